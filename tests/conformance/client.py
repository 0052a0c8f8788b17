"""A plain HTTP client for a cluster given by a kubeconfig: what goes over the wire, unadorned."""

from __future__ import annotations

import base64
import copy
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
Wire = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the server answered. ``text`` is the body as it came."""

    code: int
    text: str
    warnings: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Wire:
        found: Wire = json.loads(self.text)
        return found

    @property
    def events(self) -> list[Wire]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def message(self) -> str:
        return str(self.json.get("message", ""))

    @property
    def fields(self) -> list[str]:
        """The fields that the causes name."""
        return [cause.get("field", "") for cause in self.json["details"]["causes"]]

    def ok(self) -> Wire:
        assert self.code in (200, 201), f"{self.code}: {self.text[:500]}"
        return self.json


class Cluster:
    """Requests to one cluster, as its kubeconfig's user."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = urlsplit(cluster["server"])
        self._ca = _material(cluster, "certificate-authority").decode()
        self.context = ssl.create_default_context(cadata=self._ca)
        if "client-certificate" in user or "client-certificate-data" in user:
            with _files(user) as (cert, key):
                self.context.load_cert_chain(cert, key)
        self._token = user.get("token")

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = "application/json",
        accept: str = "application/json",
        query: dict[str, Any] | None = None,
        timeout: float = 30,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = self.connection(timeout)
        sent = {"Accept": accept, "Content-Type": content, **(headers or {})}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            connection.request(method, target, raw, sent)
            found = connection.getresponse()
            text = found.read().decode(errors="replace")
            warnings = found.headers.get_all("Warning") or []
            return Reply(
                found.status, text, warnings, {k.lower(): v for k, v in found.getheaders()}
            )
        finally:
            connection.close()

    def connection(self, timeout: float = 30) -> http.client.HTTPSConnection:
        """A new one, to be closed by the caller. Clients with tokens send them themselves."""
        return http.client.HTTPSConnection(
            self._server.hostname or "", self._server.port, context=self.context, timeout=timeout
        )

    @property
    def host(self) -> str:
        return self._server.hostname or ""

    # ``_as`` and ``_groups`` among the query say whom to impersonate.

    def get(self, path: str, **query: Any) -> Reply:
        return self("GET", path, headers=_impersonation(query), query=query)

    def post(self, path: str, body: Any, **query: Any) -> Reply:
        return self("POST", path, body, headers=_impersonation(query), query=query)

    def put(self, path: str, body: Any, **query: Any) -> Reply:
        return self("PUT", path, body, query=query)

    def delete(self, path: str, body: Any = None, **query: Any) -> Reply:
        return self("DELETE", path, body, headers=_impersonation(query), query=query)

    def merge(self, path: str, body: Any, **query: Any) -> Reply:
        headers = _impersonation(query)
        return self("PATCH", path, body, content=MERGE, headers=headers, query=query)

    def anonymous(self, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        """Without the kubeconfig's credentials."""
        return self._stranger()(method, path, body, **more)

    def bearer(self, token: str, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        """With a token in place of the kubeconfig's credentials."""
        headers = {**more.pop("headers", {}), "Authorization": f"Bearer {token}"}
        return self._stranger()(method, path, body, headers=headers, **more)

    def _stranger(self) -> Cluster:
        found = copy.copy(self)
        found.context, found._token = ssl.create_default_context(cadata=self._ca), None
        return found

    def watch(self, path: str, seconds: int = 1, **query: Any) -> list[Wire]:
        """What a watch says in ``seconds``."""
        asked = {"watch": "1", "timeoutSeconds": seconds, **query}
        return self("GET", path, query=asked).events


def _impersonation(query: dict[str, Any]) -> dict[str, str]:
    found = {}
    if user := query.pop("_as", ""):
        found["Impersonate-User"] = user
    for group in query.pop("_groups", ()):
        found["Impersonate-Group"] = group
    return found


def _material(holder: Wire, key: str) -> bytes:
    if f"{key}-data" in holder:
        return base64.b64decode(holder[f"{key}-data"])
    return Path(holder[key]).read_bytes()


@contextmanager
def _files(user: Wire) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as directory:
        cert, key = Path(directory, "cert"), Path(directory, "key")
        cert.write_bytes(_material(user, "client-certificate"))
        key.write_bytes(_material(user, "client-key"))
        yield str(cert), str(key)
