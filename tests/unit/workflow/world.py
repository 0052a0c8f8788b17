"""A small world for flows: steps with effects that are found or created, and scripted mishaps."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, cast

from controller.errors import Terminal, Transient, Waiting
from controller.reconcile.actuator import Context
from controller.workflow.flow import Flow, PlannedStep
from controller.workflow.observers import Observer
from controller.workflow.runner import FlowEngine
from controller.workflow.step import Scope, Step
from crds.base import Resource
from crds.v1alpha1.zone import Zone, ZoneStatus
from tests.support.fakes import FakeEvents

Mishap = Literal["ok", "terminal", "transient", "waiting", "bug", "crash"]


class Crash(BaseException):
    """The process is gone: nothing catches it, nothing is written."""


@dataclass
class Clock:
    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def context(clock: Clock) -> Context:
    return cast(Context, SimpleNamespace(clock=clock, events=FakeEvents()))


def zone(generation: int = 1) -> Zone:
    return Zone.model_validate(
        {"metadata": {"name": "z", "uid": "u-1", "generation": generation}, "spec": {}}
    )


@dataclass
class World:
    """What steps leave behind, and rules that they broke."""

    names: Sequence[str]
    effects: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def expect(self, condition: bool, what: str) -> None:
        if not condition:
            self.broken.append(what)


class ScriptedStep(Step):
    """Does ``forward`` (and on the way back ``backward``) one mishap a call, then succeeds. Each is
    (mishap, whether the effect happens before it)."""

    def __init__(
        self,
        name: str,
        world: World,
        forward: Sequence[tuple[Mishap, bool]] = (),
        backward: Sequence[tuple[Mishap, bool]] = (),
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.world = world
        self.forward = deque(forward)
        self.backward = deque(backward)

    async def run(self, scope: Scope[Any]) -> None:
        world, place = self.world, self.world.names.index(self.name)
        world.calls.append(f"run {self.name}")
        world.expect(scope.step == self.name, f"{self.name} runs as {scope.step}")
        world.expect(
            all(world.effects[n] == 1 for n in world.names[:place]),
            f"{self.name} runs although a step before it is not done",
        )
        mishap, effect = self.forward.popleft() if self.forward else ("ok", True)
        if (effect or mishap == "ok") and not world.effects[self.name]:
            world.effects[self.name] += 1
        _happen(mishap)

    async def rollback(self, scope: Scope[Any]) -> None:
        world, place = self.world, self.world.names.index(self.name)
        world.calls.append(f"rollback {self.name}")
        world.expect(
            not any(world.effects[n] for n in world.names[place + 1 :]),
            f"{self.name} is rolled back before a step after it",
        )
        mishap, effect = self.backward.popleft() if self.backward else ("ok", True)
        if effect or mishap == "ok":
            world.effects[self.name] = 0
        _happen(mishap)


def _happen(mishap: Mishap) -> None:
    errors: dict[str, Callable[[], BaseException]] = {
        "terminal": lambda: Terminal("it cannot be", reason="Broken"),
        "transient": lambda: Transient("not now", reason="Busy"),
        "waiting": lambda: Waiting("not yet"),
        "bug": lambda: KeyError("oops"),
        "crash": Crash,
    }
    if mishap != "ok":
        raise errors[mishap]()


class Recorded(FlowEngine):
    """Goes on at once when a run's start was to be written first, as if it had been."""

    async def run(self, name: str, obj: Resource, ctx: Context) -> None:
        try:
            await super().run(name, obj, ctx)
        except Waiting as pause:
            if pause.reason != "Recording":
                raise
            await super().run(name, obj, ctx)


def engine(*steps: PlannedStep, observers: Sequence[Observer] = ()) -> FlowEngine:
    return Recorded({"flow": Flow("flow", "Zone", steps)}, observers=observers)


def flow_of(*steps: PlannedStep, **more: Any) -> FlowEngine:
    """With nothing made easier."""
    return FlowEngine({"flow": Flow("flow", "Zone", steps, **more)}, chance=lambda: 0.5)


def reread(obj: Zone) -> Zone:
    """The object as a restarted controller reads it."""
    status = ZoneStatus.model_validate_json(obj.status.model_dump_json(by_alias=True))
    return obj.model_copy(update={"status": status})
