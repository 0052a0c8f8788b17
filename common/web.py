"""An aiohttp server with probes and metrics, and a clear word when its port is taken."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

SHUTDOWN_SECONDS = 2.0


@dataclass(frozen=True)
class Patience:
    """How long a server waits for its clients, in seconds; then it ends the connection.

    ``tls``: for the handshake, and for the client's goodbye. ``head``: until the head of a request
    is whole, from the connection's beginning or from the answer before; sending it in bits does not
    help. ``rest``: for what is left of a body when its request has been answered. How long reading
    a body may take is the handler's to say.
    """

    tls: float = 15.0
    head: float = 90.0
    rest: float = 10.0


PATIENCE = Patience()


class PortTaken(Exception):
    """Another process listens there already. ``flag`` is the option that chooses another port."""

    def __init__(self, host: str, port: int, flag: str) -> None:
        super().__init__(
            f"port {port} on {host} is taken by another process; stop it, or choose another port "
            f"with {flag}"
        )
        self.port = port
        self.flag = flag


@dataclass(frozen=True)
class Server:
    """A running server. ``port`` is the real one when 0 was asked for."""

    runner: web.BaseRunner
    listener: asyncio.Server
    port: int

    async def close(self) -> None:
        """Stop listening, give open requests SHUTDOWN_SECONDS, end."""
        self.listener.close()
        await self.runner.cleanup()


async def serve(
    app: web.Application | web.Server,
    host: str,
    port: int,
    *,
    flag: str,
    ssl_context: ssl.SSLContext | None = None,
    patience: Patience = PATIENCE,
) -> Server:
    """Start serving; raises PortTaken. A handler whose client goes away is cancelled."""
    runner = _runner(app, patience)
    await runner.setup()
    assert runner.server is not None
    tls = patience.tls if ssl_context is not None else None
    try:
        # Not aiohttp's site: it leaves the handshake's deadline at a minute.
        listener = await asyncio.get_running_loop().create_server(
            runner.server, host, port, ssl=ssl_context, backlog=1024,
            ssl_handshake_timeout=tls, ssl_shutdown_timeout=tls,
        )  # fmt: skip
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port, flag) from None
        raise
    return Server(runner, listener, int(listener.sockets[0].getsockname()[1]))


def handler(
    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    body_limit: int,
    patience: Patience = PATIENCE,
) -> web.Server:
    """An application that is one function: without a router and what else it would not use.

    ``body_limit``: bytes; a larger body raises web.HTTPRequestEntityTooLarge where it is read.
    """
    loop = asyncio.get_running_loop()

    def make(
        message: RawRequestMessage, payload: StreamReader, protocol: web.RequestHandler,
        writer: AbstractStreamWriter, task: asyncio.Task[None],
    ) -> web.BaseRequest:  # fmt: skip
        return web.BaseRequest(
            message, payload, protocol, writer, task, loop, client_max_size=body_limit
        )

    return web.Server(
        handle, request_factory=make, handler_cancellation=True, access_log=None,
        **_waiting(patience),
    )  # fmt: skip


def _runner(app: web.Application | web.Server, patience: Patience) -> web.BaseRunner:
    if isinstance(app, web.Server):
        return web.ServerRunner(app, shutdown_timeout=SHUTDOWN_SECONDS)
    return web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS,
        **_waiting(patience),
    )  # fmt: skip


def _waiting(patience: Patience) -> dict[str, Any]:
    """In aiohttp's words. Its keep-alive time begins with the connection and with each answer, and
    ends with a whole head."""
    return {"keepalive_timeout": patience.head, "lingering_time": patience.rest}


def add_probes(app: web.Application, ready: Callable[[], bool | str]) -> None:
    """Add /healthz, /readyz and /metrics.

    ``ready`` answers True, or False or the reason why not (503).
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        state = ready()
        if state is True:
            return web.Response(text="ok")
        return web.Response(status=503, text=state or "not ready")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
