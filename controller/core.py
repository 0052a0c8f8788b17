"""The working parts, joined: watch → store → queues → reconcilers → status.

``app`` puts a process around it; tests put a toy kind into it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from controller.agentlink.client import Agents
from controller.client import Api
from controller.errors import KumulusError, Terminal, Transient
from controller.events import EventRecorder
from controller.keys import Key
from controller.ledger.base import Ledger
from controller.objects import Objects, resource_of
from controller.queue.lane import Priority
from controller.queue.queue import Queues, WorkQueue
from controller.reconcile.actuator import Clock, Context, Observations
from controller.reconcile.reconciler import Machinery, Reconciler
from controller.registry import Registry
from controller.settings import Settings
from controller.sharding.base import SingleMember
from controller.sharding.lease import LeaseGuard
from controller.status.writer import StatusWriter
from controller.watch.base import Source
from controller.watch.comparison import Comparison
from controller.watch.store import ObjectStore
from controller.watch.wakes import Waker
from controller.workflow.engine import Flows
from crds.base import Resource

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_PAUSE = 5.0


@dataclass
class Core:
    """Make it within the loop, ``equip`` it, ``run`` it. ``on_synced``: once all is loaded.

    ``duties``: what else is done, by name, from then until the end; each runs for ever."""

    settings: Settings
    registry: Registry
    api: Api
    identity: str
    clock: Clock
    on_synced: Callable[[], None] = lambda: None
    member: SingleMember = field(default_factory=SingleMember)
    duties: dict[str, Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=dict)
    on_state: Callable[[Resource, str], None] = lambda _obj, _old: None
    synced: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.store = ObjectStore(self.registry.models, self.registry.quiet)
        self.queues = Queues()
        self.store.subscribe(Waker(self.store, self.queues, self.registry.actuators))
        self.objects = Objects(self.api, self.store, self.registry.models)
        self.events = EventRecorder(self.api, self.clock, self.identity)
        self.comparison = Comparison(
            self.api, self.store, self.registry.models, self.settings.compare_interval
        )
        self._reconcilers: dict[str, Reconciler] = {}

    def wake(self, key: Key) -> None:
        """Have an object looked at because somebody knows that it is worth while: even if it is
        stalled."""
        reconciler = self._reconcilers.get(key.kind)
        if reconciler is not None:
            reconciler.unpark(key)
        self.queues.add(key)

    def equip(
        self,
        *,
        agents: Agents,
        ledger: Ledger,
        flows: Flows,
        allocators: Mapping[str, Any] | None = None,
    ) -> Context:
        """Make the reconcilers and their queues. Once, before run()."""
        context = Context(
            store=self.store,
            objects=self.objects,
            agents=agents,
            ledger=ledger,
            flows=flows,
            events=self.events,
            observed=Observations(),
            clock=self.clock,
            tuning=self.settings.tuning(),
            wake=self.wake,
            allocators=allocators or {},
        )
        machinery = Machinery(
            store=self.store,
            objects=self.objects,
            status=StatusWriter(self.objects, self.clock),
            sharding=self.member,
            graph=self.registry.graph,
            actuators=self.registry.actuators,
            ctx=context,
            timeout=self.settings.reconcile_timeout,
            on_state=self.on_state,
        )
        for kind in self.registry.actuators:
            reconciler = self._reconcilers[kind] = Reconciler(kind, machinery)
            self.queues.open(WorkQueue(kind, reconciler, concurrency=self.settings.concurrency))
        return context

    def ready(self) -> bool | str:
        """For /readyz: True, or why not."""
        if not self.synced:
            return "the store is not filled yet"
        return True if self.api.reachable else "the API server does not answer"

    async def run(self, source: Source, stopping: asyncio.Event) -> None:
        """Fill the store, then watch and work until ``stopping``; then end within seconds.

        Waits as long as the API server or the kinds are not there. Raises what no part should
        raise, in an ExceptionGroup.
        """
        if not await _unless(stopping, self._fill()):
            return
        guard = self._guard()
        await source.start(self.store.apply)
        try:
            await self._work(guard, stopping)
        finally:
            await self.queues.stop(0)
            await source.stop()
            await guard.release()
            await self.events.drain(1.0)

    async def _work(self, guard: LeaseGuard, stopping: asyncio.Event) -> None:
        parts = {
            "lease": guard.run(),
            "comparison": self.comparison.run(),
            "events": self.events.run(),
            "resync": self._resync(),
            **{name: duty() for name, duty in self.duties.items()},
        }
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(part, name=name) for name, part in parts.items()]
            await stopping.wait()
            log.info("stopping")
            await self.queues.stop(self.settings.grace)
            for task in background:
                task.cancel()

    async def _fill(self) -> None:
        await patiently("waiting for the kinds", self._check_kinds)
        await patiently("waiting for the API server", self.comparison.fill)
        self.on_synced()
        self.synced = True
        log.info("synced", extra={"objects": len(self._keys())})

    async def _check_kinds(self) -> None:
        """Raises Transient naming the kinds that the API server does not serve yet."""
        wanted: dict[tuple[str, str], set[str]] = {}
        for model in self.registry.models.values():
            resource = resource_of(model)
            wanted.setdefault((resource.group, resource.version), set()).add(resource.plural)
        for (group, version), plurals in wanted.items():
            missing = plurals - await self.api.served(group, version)
            if missing:
                raise Transient(
                    f"the API server has no {', '.join(sorted(missing))} in {group}/{version}; "
                    f"kubectl apply -f crds/manifests/"
                )

    def _guard(self) -> LeaseGuard:
        return LeaseGuard(
            api=self.api,
            member=self.member,
            namespace=self.settings.namespace,
            identity=self.identity,
            duration=self.settings.lease_duration,
            clock=self.clock,
            on_gain=self._begin,
            on_loss=self.queues.pause,
        )

    async def _begin(self) -> None:
        """This controller leads now: look at everything once, behind what changes meanwhile."""
        self._add_all()
        self.queues.start()

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(_jittered(self.settings.resync_interval))
            self._add_all()

    def _add_all(self) -> None:
        for key in self._keys():
            self.queues.add(key, Priority.RESYNC)

    def _keys(self) -> list[Key]:
        return [key for kind in self.registry.models for key in self.store.keys(kind)]


async def patiently(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until it works; only Terminal ends that. Each new reason for waiting is logged."""
    pause, told = 0.25, ""
    while True:
        try:
            return await attempt()
        except Terminal:
            raise
        except KumulusError as error:
            if error.message != told:
                told = error.message
                log.warning(what, extra={"why": error.message})
        await asyncio.sleep(_jittered(pause))
        pause = min(LONGEST_PAUSE, pause * 2)


async def _unless(stopping: asyncio.Event, work: Awaitable[None]) -> bool:
    """Do ``work`` unless ``stopping`` comes first; was it done? Raises what it raises."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        stop.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


def _jittered(seconds: float) -> float:
    return seconds * (1 - random.random() / 4)  # noqa: S311 - jitter, no secret
