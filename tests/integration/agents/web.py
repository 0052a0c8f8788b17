"""A web server that serves one file, badly when told to."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer


def qcow2(virtual_size: int, body: bytes = b"", backing: str = "") -> bytes:
    """Something with a version 3 qcow2 header."""
    name = backing.encode()
    header = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 104 if name else 0, len(name), 16, virtual_size)
    return header.ljust(104, b"\0") + name + body


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class BadServer:
    """``/file`` is ``content``. The first ``cuts`` answers break off half way; ``stall``: they
    hang there instead; ``ranges`` False: Range is ignored; ``errors``: statuses of the first
    answers."""

    content: bytes
    cuts: int = 0
    stall: bool = False
    ranges: bool = True
    errors: list[int] = field(default_factory=list)
    etags: list[str] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    """The Range header of each request."""
    url: str = ""

    async def file(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.headers.get("Range"))
        if self.errors:
            return web.Response(status=self.errors.pop(0))
        etag = self.etags.pop(0) if self.etags else '"one"'
        start = self._start(request, etag)
        left = self.content[start:]
        headers = {"ETag": etag, "Content-Length": str(len(left))}
        if start:
            size = len(self.content)
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        if self.cuts:
            self.cuts -= 1
            await response.write(left[: len(left) // 2])
            if self.stall:
                await asyncio.sleep(60)
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(left)
        return response

    async def around(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/around")

    async def elsewhere(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/file")

    def _start(self, request: web.Request, etag: str) -> int:
        asked = request.headers.get("Range")
        if asked is None or not self.ranges or request.headers.get("If-Range") != etag:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))


@asynccontextmanager
async def bad_server(content: bytes, **behaviour: object) -> AsyncIterator[BadServer]:
    bad = BadServer(content, **behaviour)  # type: ignore[arg-type]
    app = web.Application()
    app.router.add_get("/file", bad.file)
    app.router.add_get("/around", bad.around)
    app.router.add_get("/elsewhere", bad.elsewhere)
    async with TestServer(app, host="127.0.0.1") as server:
        bad.url = f"http://127.0.0.1:{server.port}/file"
        yield bad


def files_in(directory: Path) -> list[str]:
    """Everything there, hidden or not."""
    return sorted(path.name for path in directory.iterdir())
