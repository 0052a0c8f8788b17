"""Where agents report that an operation has ended.

``POST /callbacks/{kind}/{namespace or "-"}/{name}/{operation}?attempt=…&token=…`` with an
OperationReply. The token is an HMAC over all of it and the identity of the agent that the
operation was sent to, and the caller's certificate must have that identity: so one agent cannot
speak for another, nor for an operation that it was not given. Answers 204 for whatever is genuine,
known to us or not; a callback that is lost, late or doubled does no harm.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

from aiohttp import web
from pydantic import ValidationError

from agents.wire import OperationReply
from common.pki import peer_of
from controller.agentlink.metrics import CALLBACKS
from controller.keys import Key

SECRET_FILE = "callback.secret"  # noqa: S105
_SECRET_BYTES = 32
_MAX_BODY = 2**20


@dataclass(frozen=True)
class Ticket:
    """What a callback is about: an attempt at an operation for ``owner``."""

    owner: Key
    operation: str
    attempt: str

    def token(self, secret: bytes, identity: str) -> str:
        parts = (identity, *self.owner, self.operation, self.attempt)
        return hmac.digest(secret, "\n".join(parts).encode(), "sha256").hex()

    def url(self, base: str, secret: bytes, identity: str) -> str:
        """The callback URL for the agent with this identity. ``base``: https://host:port."""
        path = (self.owner.kind, self.owner.namespace or "-", self.owner.name, self.operation)
        query = urlencode({"attempt": self.attempt, "token": self.token(secret, identity)})
        return f"{base}/callbacks/{'/'.join(quote(p, safe='') for p in path)}?{query}"


class Receiver(Protocol):
    def deliver(self, identity: str, ticket: Ticket, reply: OperationReply) -> str:
        """Take a genuine result; returns what became of it (a metric's label)."""


def load_secret(data_dir: Path) -> bytes:
    """The key of the tokens, made on the first call: a file that only we may read.

    Callbacks to a controller that has lost it are refused; the operations are then read back.
    """
    path = data_dir / SECRET_FILE
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{SECRET_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its secret counts
            os.link(scratch, path)
        scratch.unlink()
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise ValueError(f"{path} is damaged; remove it and a new one is made")
    return secret


def callback_routes(
    client: Receiver, wake: Callable[[Key], None], secret: bytes
) -> list[web.RouteDef]:
    """Routes for the controller's HTTPS server, which must ask for client certificates."""

    async def handle(request: web.Request) -> web.Response:
        ticket, token = _ticket(request)
        identity = _sender(request, ticket, token, secret)
        if identity is None:
            CALLBACKS.labels("refused").inc()
            raise web.HTTPForbidden(text="this callback is not yours")
        reply = await _reply(request)
        if reply is None or reply.id != ticket.operation:
            CALLBACKS.labels("refused").inc()
            raise web.HTTPBadRequest(text="the body is no reply for this operation")
        outcome = client.deliver(identity, ticket, reply)
        CALLBACKS.labels(outcome).inc()
        if outcome not in ("awaited", "duplicate"):
            wake(ticket.owner)
        return web.Response(status=204)

    return [web.post("/callbacks/{kind}/{namespace}/{name}/{operation}", handle)]


def _ticket(request: web.Request) -> tuple[Ticket, str]:
    path, query = request.match_info, request.query
    namespace = "" if path["namespace"] == "-" else path["namespace"]
    owner = Key(path["kind"], namespace, path["name"])
    return Ticket(owner, path["operation"], query.get("attempt", "")), query.get("token", "")


def _sender(request: web.Request, ticket: Ticket, token: str, secret: bytes) -> str | None:
    """The caller's identity, if the token was made for it."""
    peer = peer_of(request)
    names: Iterable[str] = peer.dns if peer is not None else ()
    given = token.encode()
    return next(
        (n for n in names if hmac.compare_digest(ticket.token(secret, n).encode(), given)), None
    )


async def _reply(request: web.Request) -> OperationReply | None:
    if (request.content_length or 0) > _MAX_BODY:
        return None
    try:
        return OperationReply.model_validate_json(await request.read())
    except ValidationError:
        return None
