"""The audit log: a line of JSON (audit.k8s.io/v1 Event) for every request that is answered.

Level Metadata says who did what and with what result; level Request adds what was sent, except
where that holds secrets. Tokens and keys are never written.
https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import orjson
from aiohttp import web

from controller.apiserver import auth
from controller.apiserver.admission import User
from controller.apiserver.paths import ResourcePath

Level = Literal["Metadata", "Request"]
_SECRET = frozenset(
    {("", "secrets", ""), ("", "serviceaccounts", "token"),
     ("authentication.k8s.io", "tokenreviews", "")}
)  # fmt: skip
_QUEUE = 10_000
_MAX_BODY = 64 * 1024


class Audit:
    """Lines are written by another thread, in order; requests wait when it falls far behind."""

    def __init__(self, path: Path, level: Level = "Metadata") -> None:
        self._path = path
        self.level = level
        self._lines: deque[bytes] = deque()
        self._file: IO[bytes] | None = None
        self._writing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Opens the file (mode 0600). Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "ab")

    async def close(self) -> None:
        """Everything said is written when it returns."""
        while self._writing is not None and not self._writing.done():
            await self._writing
        if self._lines:
            await self._write()
        if self._file is not None:
            self._file.close()
            self._file = None

    async def record(self, event: dict[str, Any]) -> None:
        self._lines.append(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE, default=str))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="apiserver-audit")
        if len(self._lines) > _QUEUE:
            await asyncio.shield(self._writing)

    async def _write(self) -> None:
        while self._lines and self._file is not None:
            lines = b"".join(self._lines)
            self._lines.clear()
            await asyncio.to_thread(_append, self._file, lines)

    def wants_body(self, target: ResourcePath | None) -> bool:
        return self.level == "Request" and target is not None and not _is_secret(target)


def _append(file: IO[bytes], lines: bytes) -> None:
    file.write(lines)
    file.flush()


def _is_secret(target: ResourcePath) -> bool:
    return (target.group, target.plural, target.subresource) in _SECRET


@dataclass
class Exchange:
    """A request and what became of it. ``by``: who asked; ``acting``: as whom."""

    received: dt.datetime
    verb: str = ""
    by: User | None = None
    acting: User | None = None
    target: ResourcePath | None = None
    code: int = 0


def event(
    request: web.BaseRequest, exchange: Exchange, *, level: Level, body: bytes = b""
) -> dict[str, Any]:
    """The line of a request. ``body`` is shown if it is JSON and not too long."""
    user, actor, target = exchange.by, exchange.acting, exchange.target
    verb = exchange.verb
    found: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": level,
        "auditID": str(uuid.uuid4()),
        "stage": "ResponseComplete",
        "requestURI": request.rel_url.raw_path_qs,
        "verb": verb if target is not None else verb.lower(),
        "user": auth.user_info(user) if user is not None else {},
        "sourceIPs": [request.remote or ""],
        "userAgent": request.headers.get("User-Agent", "")[:1024],
        "responseStatus": {"metadata": {}, "code": exchange.code},
        "requestReceivedTimestamp": _micro(exchange.received),
        "stageTimestamp": _micro(dt.datetime.now(dt.UTC)),
    }
    if actor is not None and actor is not user:
        found["impersonatedUser"] = auth.user_info(actor)
    if target is not None:
        found["objectRef"] = _reference(target)
    if body and len(body) <= _MAX_BODY:
        found["requestObject"] = _object(body)
    return found


def _object(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _reference(target: ResourcePath) -> dict[str, str]:
    found = {
        "resource": target.plural, "namespace": target.namespace, "name": target.name,
        "apiGroup": target.group, "apiVersion": target.version,
        "subresource": target.subresource,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value}


def _micro(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
