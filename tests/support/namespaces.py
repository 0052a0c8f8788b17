"""TCP ports carried between this process and a network namespace, loopback to loopback.

A socket belongs to the namespace in which it was made, for good; so one is made there by a thread
that has entered it, and served from here like any other. Bytes pass through untouched (TLS too).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
LOOPBACK = "127.0.0.1"


class NetworkNamespace:
    """The network namespace of process ``pid``, as seen from here."""

    def __init__(self, pid: int) -> None:
        self._inside = ThreadPoolExecutor(1, f"netns-{pid}", lambda: _enter(pid))
        self._servers: list[asyncio.Server] = []
        self._pipes: set[asyncio.Task[None]] = set()

    async def publish(self, port: int, outside: int = 0) -> int:
        """Make the namespace's ``port`` reachable out here; answers the port it has here."""
        server = await asyncio.start_server(
            lambda r, w: self._carry(r, w, lambda: self.connect(port)), LOOPBACK, outside
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def admit(self, port: int) -> None:
        """Make ``port`` of out here reachable in the namespace, as the same port."""
        listener = await self._in(lambda: _listener(port))
        server = await asyncio.start_server(
            lambda r, w: self._carry(r, w, lambda: _connect(socket.socket(), port)), sock=listener
        )
        self._servers.append(server)

    async def connect(self, port: int) -> socket.socket:
        """A socket connected to the namespace's loopback ``port``."""
        return await _connect(await self._in(socket.socket), port)

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        self._inside.shutdown()

    async def _in(self, make: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._inside, make)

    async def _carry(self, reader, writer, connect) -> None:  # type: ignore[no-untyped-def]
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            # Cancelled by close() alone: to be swallowed, or asyncio logs it as a crash.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there = await asyncio.open_connection(sock=await connect())
                try:
                    await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
                finally:
                    there[1].close()
        finally:
            writer.close()
            self._pipes.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _connect(connection: socket.socket, port: int) -> socket.socket:
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (LOOPBACK, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    return listener


def _enter(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)
