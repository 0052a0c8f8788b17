"""HTTP/1.1 over TLS with as little of it as a load generator needs.

The generator shares the processors with the server that it measures, so each of its own
milliseconds is one that the server lacks: requests are bytes made beforehand, answers are only
searched for their status and their end. A request costs it about a tenth of what the usual
clients take.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

TIMEOUT_SECONDS = 120.0
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the TLS that it takes."""

    host: str
    port: int
    tls: ssl.SSLContext


def request(method: str, path: str, body: bytes = b"", media: str = "application/json") -> bytes:
    """A request, ready to be sent."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1\r\nAccept: */*\r\n"
    if body:
        head += f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Failed(Exception):
    """The server answered with an error, or ended the connection."""


class Connection(asyncio.Protocol):
    """One connection that is kept; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._size: int | None = None
        self._answer: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            cls, address.host, address.port, ssl=address.tls
        )
        return connection

    async def ask(self, data: bytes) -> bytes:
        """Send a request; the whole answer, its head included. Raises Failed."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        answer = await self._answer
        if answer[9:10] != b"2":
            raise Failed(bytes(answer[:600]).decode(errors="replace"))
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._size is None:
            self._size = _size(self._buffer)
        if self._size is not None and self._complete():
            answer, self._answer = self._answer, None
            whole, self._buffer, self._size = bytes(self._buffer), bytearray(), None
            if answer is not None and not answer.done():
                answer.set_result(whole)

    def _complete(self) -> bool:
        if self._size == 0:
            return self._buffer.endswith(_LAST_CHUNK)
        return len(self._buffer) >= (self._size or 0)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Failed(f"the connection ended: {exc}"))


def _size(buffer: bytearray) -> int | None:
    """The answer's size with its head; 0 if it comes in chunks; None if the head is not whole."""
    end = buffer.find(_HEAD_END)
    if end < 0:
        return None
    head = buffer[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    line = head[at + 17 :].partition(b"\r\n")[0]
    return end + len(_HEAD_END) + int(line)


class Watcher(Connection):
    """A watch: calls back with the time at which an event came, in seconds."""

    def __init__(self, seen: Callable[[float], None]) -> None:
        super().__init__()
        self._seen = seen
        self._open = asyncio.get_running_loop().create_future()

    @classmethod
    async def watch(cls, address: Address, path: str, seen: Callable[[float], None]) -> Watcher:
        loop = asyncio.get_running_loop()
        _, watcher = await loop.create_connection(
            lambda: cls(seen), address.host, address.port, ssl=address.tls
        )
        assert watcher._transport is not None
        watcher._transport.write(request("GET", path))
        await asyncio.wait_for(watcher._open, TIMEOUT_SECONDS)
        return watcher

    def data_received(self, data: bytes) -> None:
        if not self._open.done():
            self._open.set_result(None)  # the head; events come later
        elif b'"type":"MODIFIED"' in data:
            self._seen(time.perf_counter())
