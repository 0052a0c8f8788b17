"""Plugins' actuators, steps, allocators and observers, each behind its plugin's room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from controller.errors import KumulusError, Transient, Waiting
from controller.kinds.allocation.model import Candidate, Request
from controller.kinds.allocation.strategies import HostAllocator
from controller.plugins.bridge import bridged
from controller.plugins.interface import Event, Insertion, Observer
from controller.plugins.room import PluginBusy, PluginFailed, Room
from controller.reconcile.actuator import Actuator, Context, Outcome
from controller.workflow.observers import Observer as StepObserver
from controller.workflow.observers import StepEvent
from controller.workflow.step import Scope, Step
from crds.base import Resource

T = TypeVar("T")

LOOK_SECONDS, STEP_SECONDS, ALLOCATOR_SECONDS = 60.0, 30.0, 5.0
RETRY_ALLOCATOR, RETRY_BROKEN = 30.0, 300.0


async def within(
    room: Room, obj: Resource, ctx: Context, work: Callable[[Any, Context], Awaitable[T]],
    limit: float, *, guest: bool = False,
) -> T:  # fmt: skip
    """``work`` on a copy of ``obj`` in the room. What it did to the status counts, also if it
    raised: unless the plugin was cut off, which may still be at it. ``guest``: it is called from
    a flow, whose own record in the status stays the engine's."""
    copy = obj.model_copy(deep=True)
    far = bridged(ctx, asyncio.get_running_loop())
    try:
        result = await room.run(lambda: work(copy, far), limit, guest=guest)
    except KumulusError as error:
        if not isinstance(error, PluginFailed | PluginBusy):
            _take(obj, copy.status, guest)
        raise
    _take(obj, copy.status, guest)
    return result


def _take(obj: Resource, status: Any, guest: bool) -> None:
    if guest:
        status.workflow = obj.status.workflow
    obj.status = status


class _Guarded(Actuator[Any]):
    """A plugin's actuator as our reconciler sees it."""

    room: ClassVar[Room]
    theirs: ClassVar[Actuator[Any]]

    async def reconcile(self, obj: Any, ctx: Context) -> Outcome:
        return _outcome(
            self.room, await within(self.room, obj, ctx, self.theirs.reconcile, LOOK_SECONDS)
        )

    async def delete(self, obj: Any, ctx: Context) -> Outcome:
        return _outcome(
            self.room, await within(self.room, obj, ctx, self.theirs.delete, LOOK_SECONDS)
        )


def guarded_actuator(cls: type[Actuator[Any]], room: Room) -> type[Actuator[Any]]:
    """A class for the registry that stands for the plugin's ``cls``."""
    theirs = cls()
    body: dict[str, Any] = {"room": room, "theirs": theirs, "__module__": cls.__module__}
    body |= {name: getattr(cls, name) for name in ("partitioned", "watches", "surveys", "quiet")}
    for name in ("waits_for", "holds"):
        if getattr(cls, name) is not getattr(Actuator, name):
            method = getattr(theirs, name)
            body[name] = lambda self, *arguments, _method=method: _method(*arguments)
    if hasattr(cls, "model"):
        body["model"] = cls.model
    return type(cls.__name__, (_Guarded,), body)


class _Missing(Actuator[Any]):
    """Stands in for the actuator of a plugin that cannot be used: its objects say why."""

    why: ClassVar[str]

    async def reconcile(self, obj: Any, ctx: Context) -> Outcome:
        raise Transient(self.why, reason="PluginBroken", retry_after=RETRY_BROKEN)

    async def delete(self, obj: Any, ctx: Context) -> Outcome:
        """What it has outside of the API only its plugin can remove."""
        raise Transient(self.why, reason="PluginBroken", retry_after=RETRY_BROKEN)


def missing_actuator(model: type[Resource], why: str) -> type[Actuator[Any]]:
    return type(f"Missing{model.__name__}", (_Missing,), {"model": model, "why": why})


class GuardedStep(Step):
    """A plugin's step in a flow."""

    def __init__(self, insertion: Insertion, room: Room) -> None:
        self.name = insertion.step.name  # type: ignore[misc] # elsewhere each step has its class
        self._theirs = insertion.step()
        self._required = insertion.required
        self._room = room

    async def run(self, scope: Scope[Any]) -> None:
        try:
            await self._within(scope, self._theirs.run)
        except (PluginFailed, PluginBusy) as error:
            if self._required:
                raise
            message = f"step {self.name} was left out: {error.message}"
            scope.ctx.events.warning(scope.obj, "PluginFailed", message)

    async def rollback(self, scope: Scope[Any]) -> None:
        await self._within(scope, self._theirs.rollback)

    async def _within(
        self, scope: Scope[Any], work: Callable[[Scope[Any]], Awaitable[None]]
    ) -> None:
        data = dict(scope.data or {})

        async def do(obj: Any, far: Context) -> None:
            await work(Scope(obj, far, scope.run_id, scope.step, data))

        await within(self._room, scope.obj, scope.ctx, do, STEP_SECONDS, guest=True)
        if scope.data is not None:
            scope.data.update(data)


@dataclass(frozen=True)
class GuardedAllocator:
    """A plugin's host allocator. Raises Waiting if it fails: the VM that asked for it waits."""

    name: str
    theirs: HostAllocator
    room: Room

    async def __call__(
        self, request: Request, candidates: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        async def work() -> list[Candidate]:
            return list(self.theirs(request, candidates))

        try:
            chosen = await self.room.run(work, ALLOCATOR_SECONDS, guest=True)
        except (PluginFailed, PluginBusy) as error:
            raise Waiting(
                f"allocator strategy {self.name}: {error.message}",
                reason=error.reason,
                retry_after=error.retry_after or RETRY_ALLOCATOR,
            ) from error
        strange = [each for each in chosen if each not in candidates]
        if strange:
            raise Waiting(
                f"allocator strategy {self.name} chose what does not fit: {strange[0]!r:.80}",
                reason="PluginFailed",
                retry_after=RETRY_ALLOCATOR,
            )
        return chosen


@dataclass(frozen=True)
class Observers:
    """All plugins' observers, each with what it wants. ``now``: seconds since the epoch."""

    observers: Sequence[tuple[Observer, frozenset[str], Room]]
    now: Callable[[], float]

    def on_step(self) -> StepObserver:
        """An observer for the workflow engine."""

        def observe(event: StepEvent) -> None:
            self._tell(f"step.{event.when}", event.obj, flow=event.flow, step=event.step)

        return observe

    def on_state(self, obj: Resource, old: str) -> None:
        """``status.state`` was ``old``, and now it is another."""
        self._tell("state.changed", obj, old=old, new=obj.status.state)

    def _tell(self, name: Any, obj: Resource, **more: str) -> None:
        meta = obj.metadata
        event = Event(
            name, self.now(), type(obj).__name__, meta.namespace or "", obj.name, obj.uid, **more
        )
        for observer, wanted, room in self.observers:
            if name in wanted:
                room.post(lambda observer=observer: observer(event))  # type: ignore[misc]


def _outcome(room: Room, outcome: Any) -> Outcome:
    if not isinstance(outcome, Outcome):
        raise PluginFailed(f"plugin {room.plugin}: an actuator must return an Outcome")
    return outcome
