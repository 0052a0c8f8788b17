"""What all kinds share: one look at one object, driven by its actuator.

1. Read the store. Another replica's, gone, or stalled for this very spec: nothing to do. What
   the store does not hold of what it refers to, it reads first.
2. It cannot be parsed: say so in its status.
3. It is being deleted: children first, then the actuator cleans up, then the finalizer goes.
4. Otherwise wait for what it refers to, put the finalizer on, let the actuator work.
5. Write the status once, if it changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

import orjson

from common.logs import bind
from controller import metrics
from controller.cascade.graph import Graph
from controller.client import NotFound
from controller.errors import KumulusError
from controller.keys import Key
from controller.queue.queue import Verdict
from controller.reconcile.actuator import Actuator, Context
from controller.reconcile.conditions import conditions_after
from controller.reconcile.deletion import clear_family
from controller.reconcile.findings import INTERNAL, Finding, noting, of_error, of_outcome
from controller.reconcile.gate import check_references, lets_go
from controller.rights import OnKinds
from controller.sharding.base import Moved, Sharding
from controller.sharding.guard import working_on
from controller.status.writer import Snapshot, StatusWriter, Unparsed
from controller.watch.entry import Entry
from controller.watch.store import ObjectStore
from crds.base import FINALIZER, Resource
from crds.tags import remarks

log = logging.getLogger(__name__)
_TIMER_SLACK = 0.05
RIGHTS = (OnKinds(("patch",), of=lambda registry: registry.actuators),)
"""Finalizers are put on and taken off."""


class Writes(Protocol):
    """What the reconciler itself writes; objects.Objects has it."""

    async def refresh(self, key: Key) -> Any: ...
    async def set_finalizers(self, obj: Resource, finalizers: list[str]) -> Any: ...
    async def delete_key(self, key: Key, uid: str) -> None: ...


@dataclass(frozen=True)
class Machinery:
    """What the reconcilers of all kinds share. ``timeout``: seconds for one look."""

    store: ObjectStore
    objects: Writes
    status: StatusWriter
    sharding: Sharding
    graph: Graph
    actuators: Mapping[str, Actuator[Any]]
    ctx: Context
    timeout: float = 330.0
    on_state: Callable[[Resource, str], None] = lambda _obj, _old: None
    """Told of an object whose ``status.state`` has changed, and what it was."""


@dataclass(frozen=True)
class _Parked:
    """A spec that only a change can help; not looked at again before ``until`` (monotonic)."""

    uid: str
    generation: int
    until: float


@dataclass
class Reconciler:
    """The worker of one kind's queue. Keeps only which objects are stalled."""

    kind: str
    machinery: Machinery
    working: dict[Key, str] = field(default_factory=dict)
    """The uids that are being worked on, by their keys."""
    _parked: dict[Key, _Parked] = field(default_factory=dict)

    async def __call__(self, key: Key) -> Verdict:
        """One look. Raises nothing but CancelledError."""
        m = self.machinery
        entry = m.store.entry(key)
        if entry is None:
            self._parked.pop(key, None)
            return Verdict()
        with bind(kind=key.kind, namespace=key.namespace, name=key.name):
            if not m.sharding.owns(entry.uid):
                return await self._observe(key)
            with metrics.RECONCILE_SECONDS.labels(self.kind).time():
                try:
                    finding = await self._work(key, entry)
                except Moved as moved:
                    log.info("left to another controller", extra={"why": moved.message})
                    return Verdict()
                except KumulusError as error:
                    log.warning("not read", extra={"why": error.message})
                    return Verdict("retry", error.retry_after)
            if finding is None:
                return self._skip(key)
            metrics.RECONCILES.labels(self.kind, finding.end).inc()
            return Verdict("retry" if finding.backs_off else "done", finding.after)

    @property
    def observes(self) -> bool:
        """Are other replicas' objects looked at, too?"""
        return type(self._actuator).observe is not Actuator.observe

    async def _observe(self, key: Key) -> Verdict:
        """Another replica's object: at most see what this one has to know of it."""
        obj = self.machinery.store.share(key) if self.observes else None
        if obj is None:
            return Verdict()
        try:
            async with asyncio.timeout(self.machinery.timeout):
                return Verdict(after=await self._actuator.observe(obj, self.machinery.ctx))
        except (KumulusError, TimeoutError) as error:
            log.debug("not observed", extra={"why": str(error)})
        except Exception:
            log.exception("observing failed unexpectedly")
        return Verdict("retry")

    async def _work(self, key: Key, entry: Entry) -> Finding | None:
        self.working[key] = entry.uid
        try:
            with working_on(entry.uid):
                return await self._look(key)
        finally:
            del self.working[key]

    async def _look(self, key: Key) -> Finding | None:
        """None: there is nothing to do. Raises what reading from the API raises."""
        store = self.machinery.store
        for lacking in store.lacking(key):
            await self.machinery.objects.refresh(lacking)
        obj, entry = store.load(key), store.entry(key)
        if obj is None:
            return await self._report_invalid(entry)
        if self._is_parked(key, obj):
            return None
        before = Snapshot.of(obj)
        finding = await self._judge(obj)
        if finding.end == "deleted":
            return finding
        self._park(key, obj, finding)
        return await self._report(before, obj, finding)

    # -- finding out

    async def _judge(self, obj: Resource) -> Finding:
        try:
            async with asyncio.timeout(self.machinery.timeout) as limit:
                return await (self._delete(obj) if obj.deleting else self._apply(obj))
        except Moved:
            raise
        except KumulusError as error:
            # Others wait until it lets go of what is being deleted: that is tried again, too.
            urgent = obj.deleting or lets_go(obj, self._actuator, self.machinery.store)
            return of_error(error, deleting=urgent)
        except Exception:
            if limit.expired():
                seconds = self.machinery.timeout
                return Finding("transient", "Timeout", f"gave up after {seconds:.0f} s; will retry")
            log.exception("reconcile failed unexpectedly")
            return INTERNAL

    async def _apply(self, obj: Resource) -> Finding:
        m = self.machinery
        if m.graph.has_dependents(self.kind):
            # Others may refer to it already: they must not outlive it while it still waits.
            await self._hold(obj)
        check_references(obj, self._actuator, m.store)
        await self._hold(obj)
        return of_outcome(noting(await self._actuator.reconcile(obj, m.ctx), remarks(obj)))

    async def _hold(self, obj: Resource) -> None:
        """Put the finalizer on, once; in most cases it is there since the object was made."""
        if FINALIZER not in obj.metadata.finalizers:
            finalizers = [*obj.metadata.finalizers, FINALIZER]
            updated = await self.machinery.objects.set_finalizers(obj, finalizers)
            obj.metadata = updated.metadata

    async def _delete(self, obj: Resource) -> Finding:
        m = self.machinery
        if FINALIZER not in obj.metadata.finalizers:
            return Finding("deleted", "Deleted")
        _mark_deleting(obj)
        key = Key(self.kind, obj.metadata.namespace or "", obj.name)
        await clear_family(key, m.store, m.actuators, m.graph, m.objects)
        outcome = await self._actuator.delete(obj, m.ctx)
        if not outcome.ready:
            return of_outcome(outcome)
        others = [name for name in obj.metadata.finalizers if name != FINALIZER]
        try:
            await m.objects.set_finalizers(obj, others)
        except NotFound:
            log.debug("gone already")
        return Finding("deleted", "Deleted")

    @property
    def _actuator(self) -> Actuator[Any]:
        return self.machinery.actuators[self.kind]

    # -- stalled objects

    def forget(self, concerned: Callable[[str], bool]) -> None:
        """These uids are another replica's now."""
        gone = [key for key, parked in self._parked.items() if concerned(parked.uid)]
        for key in gone:
            del self._parked[key]

    def unpark(self, key: Key) -> None:
        """Somebody knows more: look at it although it is stalled."""
        self._parked.pop(key, None)

    def _is_parked(self, key: Key, obj: Resource) -> bool:
        parked = self._parked.get(key)
        if parked is None:
            return False
        same = (parked.uid, parked.generation) == (obj.uid, obj.metadata.generation)
        early = self.machinery.ctx.clock.monotonic() < parked.until
        if same and early and not obj.deleting:
            return not lets_go(obj, self._actuator, self.machinery.store)
        return False

    def _park(self, key: Key, obj: Resource, finding: Finding) -> None:
        self._parked.pop(key, None)
        # A full pool is no matter of the spec: any wake may bring the news that there is room.
        if finding.end == "terminal" and not finding.capacity and not obj.deleting:
            after = float("inf") if finding.after is None else finding.after - _TIMER_SLACK
            until = self.machinery.ctx.clock.monotonic() + after
            self._parked[key] = _Parked(obj.uid, obj.metadata.generation, until)

    def _skip(self, key: Key) -> Verdict:
        """Nothing was done; a stalled object keeps the appointment that it had."""
        metrics.RECONCILES.labels(self.kind, "skipped").inc()
        parked = self._parked.get(key)
        if parked is None or parked.until == float("inf"):
            return Verdict()
        left = parked.until - self.machinery.ctx.clock.monotonic() + _TIMER_SLACK
        return Verdict(after=max(0.0, left))

    # -- saying it

    async def _report(self, before: Snapshot, obj: Resource, finding: Finding) -> Finding:
        """Write the status; returns the finding, or the error if it could not be written."""
        generation = obj.metadata.generation
        now = self.machinery.ctx.clock.now()
        obj.status.conditions = conditions_after(before.conditions, finding, generation, now)
        obj.status.observed_generation = generation
        self._announce(before, obj, finding)
        try:
            await self.machinery.status.write(before, obj)
        except Moved:
            raise
        except KumulusError as error:
            log.warning("status not written", extra={"reason": error.reason, "why": error.message})
            return of_error(error, deleting=obj.deleting)
        except Exception:
            log.exception("status not written")
            return INTERNAL
        old = str(before.status.get("state", ""))
        if obj.status.state != old:
            self.machinery.on_state(obj, old)
        return finding

    def _announce(self, before: Snapshot, obj: Resource, finding: Finding) -> None:
        """An Event, and a line in the log, when something new is wrong."""
        old = before.condition("Ready")
        if old is not None and (old.reason, old.message) == (finding.reason, finding.message):
            return
        level = logging.DEBUG if finding.reason == "OperationPending" else logging.INFO
        log.log(level, finding.end, extra={"reason": finding.reason, "why": finding.message})
        if finding.backs_off or finding.stalled or finding.reason == "DeletionBlocked":
            self.machinery.ctx.events.warning(obj, finding.reason, finding.message)

    async def _report_invalid(self, entry: Entry | None) -> Finding | None:
        """The object cannot be parsed, so only its conditions are written."""
        if entry is None or entry.invalid is None:
            return None  # gone meanwhile
        finding = Finding("invalid", "InvalidSpec", f"{entry.invalid}; correct the manifest")
        obj = Unparsed.of(orjson.loads(entry.raw))
        return await self._report(Snapshot.of(obj), obj, finding)


def _mark_deleting(obj: Resource) -> None:
    """Show it where the kind has such a state; others show it by their own actuator."""
    states = get_args(type(obj.status).model_fields["state"].annotation)
    if "Deleting" in states:
        obj.status.state = "Deleting"
