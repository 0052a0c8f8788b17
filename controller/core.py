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
from controller.fencing import Fence, Send
from controller.handover import HandOver
from controller.keys import Key
from controller.ledger.base import Ledger
from controller.objects import Objects, resource_of
from controller.queue.queue import Queues, WorkQueue
from controller.reconcile.actuator import Clock, Context, Observations
from controller.reconcile.reconciler import Machinery, Reconciler
from controller.registry import Registry
from controller.settings import Settings
from controller.sharding.arcs import EVERYTHING, NOTHING, Arcs
from controller.sharding.guard import Guard, GuardedAgents, GuardedLedger
from controller.sharding.leases import Leases
from controller.sharding.member import Member
from controller.sharding.ring_object import RingObject
from controller.status.writer import StatusWriter
from controller.watch.base import Source
from controller.watch.comparison import Comparison
from controller.watch.informer import Informer, Sources
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
    duties: dict[str, Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=dict)
    on_state: Callable[[Resource, str], None] = lambda _obj, _old: None
    synced: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._reconcilers: dict[str, Reconciler] = {}
        self._tell_agents: Fence | None = None
        self._ledger: Ledger | None = None
        self.member = self._make_member()
        self.store = ObjectStore(self.registry.models, self.registry.quiet, self.registry.divided)
        self.queues = Queues(self._admits)
        self.store.subscribe(Waker(self.store, self.queues, self.registry.actuators))
        self._guard = Guard(self.member)
        self.objects = Objects(self.api, self.store, self.registry.models, self._guard)
        self.events = EventRecorder(self.api, self.clock, self.identity)
        self.informer = Informer(
            self.api, self.registry.partitioned, self.store,
            arcs=NOTHING, linked=self.registry.linked,
        )  # fmt: skip
        self.comparison = Comparison(
            self.api, self.store, self.registry.models, self.settings.compare_interval,
            frozenset(self.registry.partitioned),
        )  # fmt: skip
        self.handover = HandOver(
            self.store, self.queues, self._reconcilers, self._freshen, self.informer.lose
        )
        self.member.follow(self.handover)

    async def _freshen(self, arcs: Arcs) -> None:
        """Bring what lies in these arcs up to date: others wrote it until a moment ago."""
        await asyncio.gather(self.comparison.freshen(arcs), self.informer.gain(arcs))

    def _make_member(self) -> Member:
        namespace, duration = self.settings.namespace, self.settings.lease_duration
        return Member(
            RingObject(self.api, namespace),
            Leases(self.api, namespace, self.identity, duration, self.clock),
            self.clock,
            fence=self._fence,
            grace=self.settings.grace,
            keys=lambda arcs: sum(1 for _ in self.handover.keys(arcs)),
        )

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
        fence: Send | None = None,
    ) -> Context:
        """Make the reconcilers and their queues. Once, before run(). ``fence`` tells an agent of
        a new ring generation."""
        context = Context(
            store=self.store,
            objects=self.objects,
            agents=GuardedAgents(agents, self._guard, self.handover.late),
            ledger=GuardedLedger(ledger, self._guard),
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
        if flows is not None:
            self.handover.memories = (flows,)
        if fence is not None:
            self._tell_agents, self._ledger = Fence(self.registry.actuators, context, fence), ledger
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
        source = Sources(source, self.informer)
        await source.start(self.store.apply)
        self.queues.start()
        try:
            if await _unless(stopping, self._settle(source)):
                await self._work(stopping)
        finally:
            await self.member.leave()
            await self.queues.stop(0)
            await source.stop()
            await self.events.drain(1.0)

    async def _work(self, stopping: asyncio.Event) -> None:
        parts = {
            "ring": self.member.run(),
            "comparison": self.comparison.run(),
            "events": self.events.run(),
            "resync": self._resync(),
            **{name: duty() for name, duty in self.duties.items()},
        }
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(part, name=name) for name, part in parts.items()]
            await stopping.wait()
            log.info("stopping")
            for task in background:
                task.cancel()

    async def _fill(self) -> None:
        await patiently("waiting for the kinds", self._check_kinds)
        await patiently("waiting for the API server", self.comparison.fill)

    async def _settle(self, source: Source) -> None:
        await source.settled()
        self.on_synced()
        self.synced = True
        log.info("synced", extra={"objects": sum(1 for _ in self.handover.keys(EVERYTHING))})

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

    def _admits(self, key: Key) -> bool:
        return self.handover.admits(key, self.member.owns)

    async def _fence(self, generation: int) -> None:
        """Nobody acts under an older generation any more: neither on agents nor in the ledger.
        Raises Transient while that cannot be said of the ledger."""
        if self._tell_agents is not None and self._ledger is not None:
            await asyncio.gather(self._tell_agents(generation), self._ledger.fence(generation))

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(_jittered(self.settings.resync_interval))
            self.handover.serve(self.member.arcs)


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
