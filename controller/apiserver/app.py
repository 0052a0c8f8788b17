"""Start the embedded API server.

::

    server = await serve(ApiServerConfig(data_dir=Path(".kumulus"), port=6443))
    …  # server.kubeconfig is what kubectl needs
    await server.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from dataclasses import dataclass, field
from pathlib import Path

from common import pki, web
from controller.apiserver import auth, heap
from controller.apiserver.access import tokens
from controller.apiserver.access.audit import Audit, Level
from controller.apiserver.access.keeper import Keeper
from controller.apiserver.access.kinds import access_kinds
from controller.apiserver.access.rbac import Rbac
from controller.apiserver.access.reviews import Reviews
from controller.apiserver.access.tokens import Bearers, Signer
from controller.apiserver.admission import Admission, User
from controller.apiserver.builtins import builtins
from controller.apiserver.catalog import Catalog
from controller.apiserver.collector import Collector
from controller.apiserver.definitions import Definitions
from controller.apiserver.errors import ApiError
from controller.apiserver.gates import Gates
from controller.apiserver.http import Gate, HttpApi
from controller.apiserver.kubeconfig import write_kubeconfig
from controller.apiserver.registry import Registry
from controller.apiserver.store import DATABASE, Store
from controller.apiserver.store.log import Synchronous
from controller.apiserver.store.store import Limits
from controller.apiserver.verbs import Verbs
from controller.apiserver.webhooks.dispatcher import Dispatcher
from controller.apiserver.webhooks.kinds import webhook_kinds
from controller.apiserver.writes import WriteOptions

_log = logging.getLogger(__name__)
_OWN = WriteOptions(
    User("system:apiserver", frozenset({auth.MASTERS})), internal=True, manager="kumulus-apiserver"
)
_FIRST_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass
class ApiServerConfig:
    """How to run the server.

    data_dir: holds ``apiserver.db``, ``pki/`` (the CA) and ``kubeconfig``. port 0: any free one.
    synchronous: FULL survives power loss, NORMAL kill -9 alone, OFF is for tests. body_limit:
    bytes. compact_seconds: how often old history is dropped. token_file: static bearer tokens
    (``access.tokens.static_tokens``). audit_log: where to write who did what.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 6443
    port_flag: str = "--api-port"
    admission: Admission | None = None
    token_file: Path | None = None
    audit_log: Path | None = None
    audit_level: Level = "Metadata"
    synchronous: Synchronous = "FULL"
    limits: Limits = field(default_factory=Limits)
    compact_seconds: float = 60.0
    body_limit: int = 3 * 2**20
    dns: tuple[str, ...] = ("localhost", "kubernetes", "kubernetes.default.svc")
    pki_dir: Path | None = None
    kubeconfig: Path | None = None


@dataclass
class RunningServer:
    """A server that answers. ``url`` is https; ``kubeconfig`` is the admin's."""

    url: str
    port: int
    kubeconfig: Path
    authority: pki.Authority
    admin: pki.CertPair
    store: Store
    _web: web.Server
    _collector: Collector
    _compaction: asyncio.Task[None]
    _access: Access

    async def close(self) -> None:
        """Answer what is under way, commit, end. Watches are closed."""
        self._compaction.cancel()
        await asyncio.gather(self._compaction, return_exceptions=True)
        self.store.end_subscriptions()
        await self._web.close()
        await self._access.close()
        await self._collector.stop()
        await self.store.close()


async def serve(config: ApiServerConfig) -> RunningServer:
    """Start; answers requests when it returns.

    Raises web.PortTaken, CorruptStore, tokens.BadTokenFile, and OSError for files.
    """
    heap.bound()
    store = Store(config.data_dir / DATABASE, config.synchronous, config.limits)
    await store.start()
    async with contextlib.AsyncExitStack() as undo:
        undo.push_async_callback(store.close)
        catalog = Catalog()
        catalog.add([*builtins(), *access_kinds(), *webhook_kinds()])
        definitions = Definitions(store, catalog)
        definitions.start()
        rbac = Rbac(store)
        webhooks = Dispatcher(store, catalog, rbac)
        undo.push_async_callback(webhooks.close)
        registry = Registry(store, catalog, config.admission, Gates(rbac, webhooks))
        await _report_broken(definitions, registry, catalog)
        await _first_objects(store, registry, catalog)
        collector = Collector(store, catalog, registry)
        collector.start()
        undo.push_async_callback(collector.stop)
        authority, server_pair, admin = _certificates(config)
        access = Access.make(config, store, rbac, Keeper(store, catalog, registry), webhooks)
        await access.start()
        undo.push_async_callback(access.close)
        gate = access.gate(rbac, config.body_limit)
        api = HttpApi(catalog, Verbs(store, registry), gate, lambda: True)
        context = pki.server_context(server_pair, authority.ca, client_certificates="optional")
        running = await web.serve(
            api.application(), config.host, config.port, ssl_context=context, flag=config.port_flag
        )
        undo.pop_all()
    heap.settle()
    url = f"https://{config.host}:{running.port}"
    kubeconfig = write_kubeconfig(
        config.kubeconfig or config.data_dir / "kubeconfig", url, authority.ca, admin
    )
    compaction = asyncio.create_task(
        _compact_forever(store, config.compact_seconds), name="apiserver-compaction"
    )
    _log.info("API server ready", extra={"url": url, "version": store.version})
    return RunningServer(
        url, running.port, kubeconfig, authority, admin, store, running, collector, compaction,
        access,
    )  # fmt: skip


@dataclass
class Access:
    """What serves authentication and authorization; lives as long as the server."""

    bearers: Bearers
    reviews: Reviews
    keeper: Keeper
    webhooks: Dispatcher
    audit: Audit | None

    @classmethod
    def make(
        cls, config: ApiServerConfig, store: Store, rbac: Rbac, keeper: Keeper,
        webhooks: Dispatcher,
    ) -> Access:  # fmt: skip
        directory = config.pki_dir or config.data_dir / "pki"
        signer = Signer.load(directory / "service-accounts.key")
        static = tokens.static_tokens(config.token_file) if config.token_file else None
        bearers = Bearers(store, signer, static)
        audit = Audit(config.audit_log, config.audit_level) if config.audit_log else None
        return cls(bearers, Reviews(store, rbac, bearers, signer), keeper, webhooks, audit)

    def gate(self, authorizer: auth.Authorizer, body_limit: int) -> Gate:
        return Gate(self.bearers.user, authorizer, body_limit, self.reviews, self.audit)

    async def start(self) -> None:
        if self.audit is not None:
            self.audit.start()
        await self.keeper.start()

    async def close(self) -> None:
        await self.keeper.stop()
        await self.webhooks.close()
        if self.audit is not None:
            await self.audit.close()


def _certificates(
    config: ApiServerConfig,
) -> tuple[pki.Authority, pki.CertPair, pki.CertPair]:
    directory = config.pki_dir or config.data_dir / "pki"
    authority = pki.Authority.create(directory)
    server = authority.issue(
        directory, "apiserver", common_name="kumulus-apiserver", dns=config.dns,
        ips=(config.host,), server=True,
    )  # fmt: skip
    admin = authority.issue(
        directory, "admin", common_name="admin", organizations=(auth.MASTERS,), client=True
    )
    return authority, server, admin


async def _report_broken(definitions: Definitions, registry: Registry, catalog: Catalog) -> None:
    """Definitions that can no longer be served say so in their status."""
    resource = catalog.get("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    assert resource is not None
    for name in list(definitions.broken):
        # The registry decides the status; a write of any kind makes it look again.
        await registry.update(resource, "", name, lambda wire: wire, _OWN, subresource="status")


async def _first_objects(store: Store, registry: Registry, catalog: Catalog) -> None:
    namespaces = catalog.get("", "v1", "namespaces")
    assert namespaces is not None
    for name in _FIRST_NAMESPACES:
        wire = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        with contextlib.suppress(ApiError):  # it is there already
            await registry.create(namespaces, "", wire, _OWN)


async def run(config: ApiServerConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = await serve(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        await server.close()


async def _compact_forever(store: Store, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        store.compact()
        heap.give_back()
