"""The controller as a process: settings, certificates, signals, the HTTPS server."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from aiohttp import web

from common.pki import Authority, CertPair, server_context
from common.web import add_probes, serve
from controller import tls
from controller.admission import Judge
from controller.admission.local import LocalLookup, namespaces
from controller.admission.registration import Registration, webhooks
from controller.admission.webhook import PATH, Reviewer, admission_routes
from controller.agentlink.callbacks import callback_routes, load_secret
from controller.agentlink.link import AgentsClient
from controller.agentlink.transport import Limits
from controller.cascade.graph import CascadeCycle, UnknownTarget
from controller.client import Api, NoCluster
from controller.clock import SystemClock
from controller.core import Core, patiently
from controller.errors import Terminal
from controller.ledger.sql import SqlLedger
from controller.plugins.catalog import load_all
from controller.plugins.guarded import Observers
from controller.plugins.served import await_kinds
from controller.registry import RegistryError, fitted
from controller.settings import BadSettings, Settings
from controller.watch.kopf_source import KopfSource
from controller.workflow.chaos import VARIABLE, kill_point
from controller.workflow.flow import FlowError
from controller.workflow.observers import Observer
from controller.workflow.runner import FlowEngine

log = logging.getLogger(__name__)

GC_THRESHOLD = 50_000
PORT_FLAG = "--controller-port"
REGISTRATION = "kumulus.dev/admission"
"""Whose arcs this lies in keeps the webhook's registration: one controller, always."""


async def run(settings: Settings) -> None:
    """Be a controller until SIGTERM or SIGINT.

    Waits for whatever is not there yet (API server, kinds, database, the end of another
    controller) and says so in the log. Raises BadSettings when it cannot start as it was told to,
    and PortTaken.
    """
    stopping = asyncio.Event()
    _on_signals(stopping.set)
    try:
        async with AsyncExitStack() as stack:
            identity = stack.enter_context(_data_dir(settings.data_dir))
            core, source = await _compose(settings, identity, stopping, stack)
            await core.run(source, stopping)
    except (NoCluster, RegistryError, UnknownTarget, CascadeCycle, FlowError, Terminal) as error:
        raise BadSettings(str(error)) from None
    except ExceptionGroup:
        log.exception("a part of the controller failed; it ends, to be started afresh")
        raise SystemExit(1) from None


async def _compose(
    settings: Settings, identity: str, stopping: asyncio.Event, stack: AsyncExitStack
) -> tuple[Core, KopfSource]:
    """Everything made and connected; what is open is closed by ``stack``."""
    api = await Api.connect(settings.kubeconfig, settings.context)
    stack.push_async_callback(api.close)
    clock, plugins = SystemClock(), load_all()
    stack.callback(plugins.close)
    await await_kinds(plugins, api)
    registry, flows = fitted(plugins)
    observers = plugins.observers(clock.now)
    engine = FlowEngine(flows, observers=_at_steps(settings, observers))
    core = Core(settings, registry, api, identity, clock, on_synced=_settle_memory)
    core.on_state = observers.on_state
    certified = certificates(settings)
    agents = await _serve(settings, core, certified, stack)
    if settings.admission in ("on", "remove"):
        core.duties["admission"] = _registration(core, agents.callback_base, certified[0]).run
    ledger = await patiently("opening the ledger", lambda: SqlLedger.open(settings.ledger_url))
    stack.push_async_callback(ledger.close)
    core.equip(
        agents=agents,
        ledger=ledger,
        flows=engine,
        allocators=plugins.allocators(),
        fence=agents.fence,
    )
    source = KopfSource(
        api,
        {k: model for k, model in registry.models.items() if k not in registry.partitioned},
        on_restart=core.comparison.poke,
        signals=lambda: _on_signals(stopping.set),
    )
    return core, source


async def _serve(
    settings: Settings, core: Core, certified: tuple[Path, CertPair], stack: AsyncExitStack
) -> AgentsClient:
    """Start the HTTPS server (probes, metrics, callbacks, admission); returns the client that is
    called back."""
    ca, pair = certified
    secret = _secret(settings.data_dir)
    agents = AgentsClient(
        ca=ca,
        identity=pair,
        callback_base="",
        secret=secret,
        ring_generation=lambda: core.member.generation,
        limits=Limits(ping=settings.ping_timeout),
    )
    stack.push_async_callback(agents.close)
    application = web.Application()
    add_probes(application, core.ready)
    application.add_routes(callback_routes(agents, core.wake, secret))
    if settings.admission in ("on", "serve"):
        application.add_routes(admission_routes(_reviewer(core)))
    context = server_context(pair, ca, client_certificates="optional")
    renewals = tls.Renewals(lambda: certificates(settings), (context, agents.tls))
    core.duties["certificates"] = renewals.run
    server = await serve(
        application,
        settings.controller_host,
        settings.controller_port,
        flag=PORT_FLAG,
        ssl_context=context,
    )
    stack.push_async_callback(server.close)
    host = settings.callback_host
    agents.callback_base = f"https://{f'[{host}]' if ':' in host else host}:{server.port}"
    return agents


def _reviewer(core: Core) -> Reviewer:
    """Judges from the store; what it would refuse, it compares with the API server first."""

    def lookup() -> LocalLookup:
        return LocalLookup(core.store, lambda: core.synced, namespaces(core.api))

    return Reviewer(Judge(core.registry.models), lookup, core.comparison.compare)


def _registration(core: Core, base: str, ca: Path) -> Registration:
    """``base``: our URL as others reach us."""
    models = core.registry.models.values()
    asked = core.settings.admission == "on"
    wanted = webhooks(f"{base}{PATH}", ca.read_bytes(), models) if asked else None
    return Registration(core.api, wanted, lambda: core.member.owns(REGISTRATION))


def _secret(directory: Path) -> bytes:
    try:
        return load_secret(directory)
    except (OSError, ValueError) as error:
        raise BadSettings(str(error)) from None


def _at_steps(settings: Settings, plugins: Observers) -> list[Observer]:
    """Who is told of each step of a flow."""
    try:
        killer = kill_point({VARIABLE: settings.kill_at or ""})
    except ValueError as error:
        raise BadSettings(str(error)) from None
    found = plugins.on_step() if plugins.observers else None
    return [observer for observer in (found, killer) if observer is not None]


def _settle_memory() -> None:
    """What was loaded so far stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def certificates(settings: Settings) -> tuple[Path, CertPair]:
    """(CA certificate, the controller's certificate). Made with the CA's key where that is there;
    where it is not, they must have been put there. Raises BadSettings."""
    directory = settings.pki
    pair = tls.pair_in(directory)
    if pair.cert.exists() and pair.key.exists() and not (directory / "ca.key").exists():
        return directory / "ca.crt", pair
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Other replicas may start at the same moment, and share the certificate.
        with (directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            authority = Authority.create(directory)
            pair = tls.issue(authority, directory, _names(settings))
    except OSError as error:
        raise BadSettings(f"cannot use the certificates in {directory}: {error}") from None
    return authority.ca, pair


def _names(settings: Settings) -> set[str]:
    """What API servers and people may call the controller."""
    names = {"localhost", "127.0.0.1", settings.controller_host, settings.callback_host}
    return names - {"0.0.0.0", "::"}  # noqa: S104 - not bound to, but left out


@contextmanager
def _data_dir(directory: Path) -> Iterator[str]:
    """Lock the data directory; yields the identity that is kept in it. Raises BadSettings."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / "controller.lock").open("a")
    except OSError as error:
        raise BadSettings(f"cannot use the data directory {directory}: {error}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadSettings(
                f"another controller runs with the data directory {directory}; stop it, or give "
                f"this one its own with --data-dir"
            ) from None
        identity = directory / "controller-id"
        if not identity.exists():
            identity.write_text(f"kumulus-{uuid4().hex[:12]}")
        yield identity.read_text().strip()


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop)
