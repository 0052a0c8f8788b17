"""Clients that do not go on are cut off, whatever they have sent so far."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from common.pki import Authority, client_context, server_context
from common.web import Patience, handler, serve

SHORT = Patience(tls=0.2, head=0.2, rest=0.1)
LONG = Patience(tls=60.0, head=60.0, rest=60.0)
GENEROUS = 20.0
"""Far more than any deadline that is tested, far less than one that does not work."""


class Site:
    """A server with TLS, and connections to it."""

    def __init__(self, directory: Path, patience: Patience) -> None:
        self._authority = Authority.create(directory / "pki")
        pair = self._authority.issue(directory, "s", common_name="s", dns=["s"], server=True)
        self.tls = server_context(pair, self._authority.ca, client_certificates="none")
        self.patience = patience
        self.port = 0
        self.whole = asyncio.Event()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            with contextlib.suppress(TimeoutError):  # as the API server reads a body
                async with asyncio.timeout(SHORT.head):
                    await request.read()
        self.whole.set()
        return web.Response(text="so it is")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Site]:
        server = await serve(
            handler(self._handle, 1024, self.patience), "127.0.0.1", 0, flag="--port",
            ssl_context=self.tls, patience=self.patience,
        )  # fmt: skip
        self.port = server.port
        try:
            yield self
        finally:
            await server.close()

    @contextlib.asynccontextmanager
    async def connection(
        self, context: ssl.SSLContext | None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        name = "s" if context is not None else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name
        )
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def client(self) -> ssl.SSLContext:
        return client_context(self._authority.ca, None)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection."""
    async with asyncio.timeout(GENEROUS):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
    return b""


async def trickle(writer: asyncio.StreamWriter) -> None:
    """A head that never ends, in bits."""
    with contextlib.suppress(ConnectionError):
        writer.write(b"GET / HTTP/1.1\r\n")
        while True:
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01"], ids=["silent", "begun"])
async def test_a_handshake_that_does_not_end(tmp_path: Path, hello: bytes) -> None:
    async with (
        Site(tmp_path, Patience(SHORT.tls, LONG.head, LONG.rest)).running() as site,
        site.connection(None) as (reader, writer),
    ):
        writer.write(hello)
        assert await ended(reader) == b""


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: s\r\n"], ids=["silent", "begun"])
async def test_a_head_that_does_not_come(tmp_path: Path, sent: bytes) -> None:
    async with (
        Site(tmp_path, Patience(SHORT.tls, SHORT.head, LONG.rest)).running() as site,
        site.connection(site.client()) as (reader, writer),
    ):
        writer.write(sent)
        assert await ended(reader) == b""
        assert not site.whole.is_set()


@pytest.mark.parametrize("asked", [False, True], ids=["first", "after an answer"])
async def test_a_head_that_comes_in_bits(tmp_path: Path, asked: bool) -> None:
    async with (
        Site(tmp_path, Patience(SHORT.tls, SHORT.head, LONG.rest)).running() as site,
        site.connection(site.client()) as (reader, writer),
    ):
        if asked:
            writer.write(b"GET / HTTP/1.1\r\nHost: s\r\n\r\n")
            assert (await reader.readuntil(b"so it is")).startswith(b"HTTP/1.1 200")
            site.whole.clear()
        trickling = asyncio.create_task(trickle(writer))
        try:
            assert await ended(reader) == b""
        finally:
            trickling.cancel()
            await asyncio.gather(trickling, return_exceptions=True)
        assert not site.whole.is_set()


async def test_a_body_that_stops(tmp_path: Path) -> None:
    """It gets its answer, and its connection ends: the rest of the body would be in the way."""
    async with (
        Site(tmp_path, Patience(SHORT.tls, LONG.head, SHORT.rest)).running() as site,
        site.connection(site.client()) as (reader, writer),
    ):
        writer.write(b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 99\r\n\r\nhalf")
        answer = await ended(reader)
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"so it is")


async def test_a_client_that_thinks_is_waited_for(tmp_path: Path) -> None:
    async with (
        Site(tmp_path, LONG).running() as site,
        site.connection(site.client()) as (reader, writer),
    ):
        for _ in range(2):
            await asyncio.sleep(3 * SHORT.head)
            writer.write(b"GET / HTTP/1.1\r\nHost: s\r\n\r\n")
            await reader.readuntil(b"so it is")
