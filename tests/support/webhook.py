"""An admission webhook on loopback, over TLS, in a thread of the test's process."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from common.pki import Authority, server_context

Wire = dict[str, Any]
Answer = Callable[[Wire], Wire]


@dataclass
class Webhook:
    """``answers`` says, by path, what to respond to a request; ``seen`` what was asked there."""

    port: int
    bundle: str
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: dict[str, list[Wire]] = field(default_factory=dict)

    def config(self, path: str, answer: Answer) -> Wire:
        """Answer ``path`` so; a clientConfig for it."""
        self.answers[path] = answer
        self.seen[path] = []
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.bundle}


def allow(_: Wire) -> Wire:
    return {"allowed": True}


def deny(message: str = "no", **status: Any) -> Answer:
    return lambda _: {"allowed": False, "status": {"message": message, **status}}


def patch(*operations: Wire) -> Answer:
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda _: {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


@contextmanager
def running_webhook() -> Iterator[Webhook]:
    with tempfile.TemporaryDirectory(prefix="webhook-") as directory:
        folder = Path(directory)
        authority = Authority.create(folder)
        pair = authority.issue(folder, "hook", common_name="hook", ips=("127.0.0.1",), server=True)
        server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        bundle = base64.b64encode(authority.ca.read_bytes()).decode()
        hook = Webhook(server.server_address[1], bundle)
        server.RequestHandlerClass = _handler(hook)
        context = server_context(pair, authority.ca, client_certificates="none")
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)


def _handler(hook: Webhook) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def handle(self) -> None:
            # The API server does not trust us, or went away: that is the test.
            with suppress(ssl.SSLError, ConnectionError):
                super().handle()

        def do_POST(self) -> None:
            path = self.path.partition("?")[0]
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.seen[path].append(review["request"])
            response = hook.answers[path](review["request"])
            response.setdefault("uid", review["request"]["uid"])
            body = json.dumps(
                {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                 "response": response}
            ).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
