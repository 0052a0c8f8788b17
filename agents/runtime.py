"""One agent process: table, drivers, server, put together and taken apart in order."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from agents.app import Extensions, make_app
from agents.callbacks import Callbacks, Copies, HttpsPost
from agents.drivers.base import AgentId, Driver, timeout_of
from agents.identity import Identities
from agents.journal import Journal
from agents.operations import Operations
from agents.served import Served
from agents.settings import AgentSettings
from agents.wire import VmRebootArgs, VmStopArgs, Wire
from common.web import Server, serve

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(
    settings: AgentSettings,
    identities: Identities,
    make: Callable[[AgentId], Driver],
    accepts: Callable[[AgentId], bool],
    *,
    at_start: Iterable[AgentId] = (),
    extensions: Extensions | None = None,
    copies: Copies = lambda agent, id: 1,
) -> AsyncIterator[Server]:
    """Serve agents while the context is open.

    make, accepts: see Served. at_start: agents whose drivers are opened before the port is, so
    that a host where nothing can work says so at once. copies: see callbacks.Copies.
    Raises database.InUse, DriverError, identity.NoCertificate, common.web.PortTaken.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        journal = Journal(settings.data_dir / "operations.db")
        stack.push_async_callback(journal.close)
        await journal.open()
        served = Served(make, accepts)
        stack.push_async_callback(served.close)
        for agent in at_start:
            await served.driver_of(agent)
        post = HttpsPost(identities.client_tls, settings.callbacks.at_once)
        stack.push_async_callback(post.close)
        callbacks = Callbacks(post, journal.told, settings.callbacks, copies=copies)
        operations = Operations(
            journal,
            served.driver_of,
            callbacks,
            settings.limits,
            timeouts=timeouts_with(settings.timeouts),
        )
        stack.push_async_callback(operations.close, settings.grace)
        # Before the port: what is asked for from now on must not be taken for a leftover.
        await operations.open()
        app = make_app(identities, served, operations, lambda: True, extensions)
        server = await serve(
            app,
            settings.listen,
            settings.port,
            ssl_context=identities.server_tls(),
            flag=settings.port_flag,
        )
        # Last in, first out: no requests any more, then the operations end, then their table.
        stack.push_async_callback(server.close)
        log.info("agents listen", extra={"address": settings.listen, "port": server.port})
        yield server


async def until_signal() -> None:
    """Returns on SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def timeouts_with(overrides: dict[str, float]) -> Callable[[str, Wire], float]:
    """drivers.base.timeout_of with some actions' times replaced."""

    def timeout(action: str, args: Wire) -> float:
        if action not in overrides:
            return timeout_of(action, args)
        guest = args.timeout if isinstance(args, VmStopArgs | VmRebootArgs) else 0.0
        return overrides[action] + guest

    return timeout
