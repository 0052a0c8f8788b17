"""Answers on their way out: whole ones, and those that are made while they are sent."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncGenerator, AsyncIterator

import orjson
import yaml
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web import BaseRequest

from controller.apiserver import errors, negotiate
from controller.apiserver.store import Forgotten
from controller.apiserver.verbs import Answer

WRITE_SECONDS = 60.0
"""How long a client may leave a piece of an answer unread."""
_ALWAYS = {"Cache-Control": "no-cache, private", "Vary": "Accept-Encoding"}
_BEHIND = 64 * 1024
_GZIP_FROM = 128 * 1024
_GZIP_LEVEL = 1
_GZIP_FORMAT = 31
"""zlib's window bits for a gzip stream."""


async def response(request: BaseRequest, answer: Answer) -> web.StreamResponse:
    """Raises ApiError (410): what is to be sent was compacted away."""
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    if answer.pieces is not None:
        return await _streamed(request, answer.pieces, packed=packed)
    body, media = answer.body, negotiate.JSON
    if answer.media == negotiate.YAML:
        body, media = await asyncio.to_thread(_to_yaml, body), negotiate.YAML
    headers = {"Content-Type": media, **_ALWAYS}
    if packed and len(body) >= _GZIP_FROM:
        body = await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL)
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, status=answer.code, headers=headers)


async def _streamed(
    request: BaseRequest, pieces: AsyncGenerator[bytes, None], *, packed: bool
) -> web.StreamResponse:
    try:
        first = await anext(pieces)  # what cannot be read at all is an answer, not an end
    except Forgotten:
        raise errors.expired(errors.LIST_TOO_SLOW) from None
    return _Streamed(request, first, pieces, packed=packed)


class _Streamed(web.StreamResponse):
    """Sends pieces as they are made: a list of any size takes the memory of one of them.

    What goes wrong after the first ends the connection: the client sees that its answer is cut.
    """

    def __init__(
        self, request: BaseRequest, first: bytes, rest: AsyncGenerator[bytes, None], *, packed: bool
    ) -> None:
        super().__init__(headers={"Content-Type": negotiate.JSON, **_ALWAYS})
        if packed:
            self.headers["Content-Encoding"] = "gzip"
        self._request = request
        self._pieces = _packed(_chain(first, rest)) if packed else _chain(first, rest)
        self._rest = rest

    async def write_eof(self, data: bytes = b"") -> None:
        """aiohttp calls it when it has sent the head."""
        try:
            if self._request.method != "HEAD":
                async for piece in self._pieces:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await self.write(piece)
            await super().write_eof(data)
        except (TimeoutError, Forgotten):
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the rest cannot be sent") from None
        finally:
            await self._rest.aclose()


class Outlet:
    """The body of an answer that goes on: chunks, written to the transport without a detour.

    Not to be used before the answer's head is sent.
    """

    def __init__(self, request: BaseRequest, writer: AbstractStreamWriter) -> None:
        self._request = request
        self._writer = writer

    def send(self, data: bytes) -> bool:
        """Whether the client keeps up. What is sent to one that is gone is lost."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return transport.get_write_buffer_size() <= _BEHIND

    async def caught_up(self) -> None:
        """Wait until the client has read what it was sent. Raises TimeoutError, ConnectionError."""
        async with asyncio.timeout(WRITE_SECONDS):
            await self._writer.drain()


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _packed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """As one gzip stream; compressed by a thread, as it takes milliseconds a piece."""
    packer = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT)
    async for piece in pieces:
        if found := await asyncio.to_thread(packer.compress, piece):
            yield found
    yield packer.flush()


def _to_yaml(body: bytes) -> bytes:
    return yaml.safe_dump(orjson.loads(body), default_flow_style=False).encode()
