"""Answers that are made while they are sent: whole, packed, cut, and left unread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web

from common.web import handler, serve
from controller.apiserver import sending
from controller.apiserver.errors import ApiError
from controller.apiserver.store import Forgotten
from controller.apiserver.verbs import Answer

GENEROUS = 20.0
PIECES = [bytes([65 + number]) * 50_000 for number in range(8)]
Pieces = Callable[[], AsyncGenerator[bytes, None]]


class Maker:
    """Pieces, and whether their making came to an end. ``fails``: before which one."""

    def __init__(self, pieces: list[bytes], fails: int | None = None) -> None:
        self._pieces, self._fails = pieces, fails
        self.ended = asyncio.Event()

    async def make(self) -> AsyncGenerator[bytes, None]:
        try:
            for number, piece in enumerate(self._pieces):
                if number == self._fails:
                    raise Forgotten(number)
                yield piece
        finally:
            self.ended.set()


@contextlib.asynccontextmanager
async def site(make: Pieces) -> AsyncIterator[str]:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await sending.response(request, Answer(b"", pieces=make()))
        except ApiError as error:
            return web.Response(status=error.code)

    server = await serve(handler(handle, 1024), "127.0.0.1", 0, flag="--port")
    try:
        yield f"http://127.0.0.1:{server.port}/"
    finally:
        await server.close()


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_pieces_are_one_answer(encoding: str) -> None:
    maker = Maker(PIECES)
    headers = {"Accept-Encoding": encoding}
    async with site(maker.make) as url, aiohttp.ClientSession(headers=headers) as session:
        for _ in range(2):  # the connection is kept
            async with session.get(url) as reply:
                assert reply.headers.get("Content-Encoding", "identity") == encoding
                assert reply.headers["Content-Type"] == "application/json"
                assert await reply.read() == b"".join(PIECES)
        async with session.head(url) as reply:
            assert (reply.status, await reply.read()) == (200, b"")


async def test_what_cannot_be_read_at_all_is_an_answer() -> None:
    async with (
        site(Maker(PIECES, fails=0).make) as url,
        aiohttp.ClientSession() as session,
        session.get(url) as reply,
    ):
        assert reply.status == 410


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_what_cannot_be_read_later_ends_the_connection(encoding: str) -> None:
    """The client must not take the part for the whole."""
    maker = Maker(PIECES, fails=5)
    headers = {"Accept-Encoding": encoding}
    async with site(maker.make) as url, aiohttp.ClientSession(headers=headers) as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get(url) as reply:
                await reply.read()
    assert maker.ended.is_set()


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "WRITE_SECONDS", 0.2)
    maker = Maker([b"x" * 2**20] * 64)  # more than the system's buffers take
    async with site(maker.make) as url:
        host, port = "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])
        reader, writer = await asyncio.open_connection(host, port, limit=1024)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(maker.ended.wait(), GENEROUS)
        finally:
            writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            assert len(await asyncio.wait_for(reader.read(), GENEROUS)) < 64 * 2**20
