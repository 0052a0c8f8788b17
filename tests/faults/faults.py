"""Faults at a step of a flow: the real step, wrapped, in the real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.errors import Terminal, Transient
from controller.workflow.flow import Flow
from controller.workflow.step import Scope, Step
from tests.unit.kinds.world import World

Work = Callable[[Scope[Any]], Awaitable[None]]


@dataclass
class Fault:
    """Strikes at a (flow, step). ``fired``: how often it did."""

    flow: str
    step: str
    fired: int = 0
    world: World | None = None

    async def run(self, work: Work, scope: Scope[Any]) -> None:
        await work(scope)

    async def rollback(self, work: Work, scope: Scope[Any]) -> None:
        await work(scope)

    def callbacks(self, operation: str) -> int:
        """How often the operation's callback comes."""
        return 1

    def once(self) -> bool:
        self.fired += 1
        return self.fired == 1

    def crash(self) -> None:
        """The controller is gone in the middle of the pass; another one starts."""
        asyncio.get_running_loop().create_task(self._again())
        raise asyncio.CancelledError

    async def _again(self) -> None:
        assert self.world is not None
        await self.world.kill()
        self.world.controller()


class CrashAfter(Fault):
    """Its effects are there, and nothing of it is written."""

    async def run(self, work: Work, scope: Scope[Any]) -> None:
        await work(scope)
        if self.once():
            self.crash()


class CrashAndFail(Fault):
    """As CrashAfter; then an earlier step, if there is one, fails for good."""

    async def run(self, work: Work, scope: Scope[Any]) -> None:
        await work(scope)
        if self.once():
            self.crash()

    async def earlier(self, work: Work, scope: Scope[Any]) -> None:
        """How the flow's first step runs."""
        if self.fired == 1:
            self.fired = 2
            raise Terminal("the first step fails after the crash", reason="Injected")
        await work(scope)


class HangAfter(Fault):
    async def run(self, work: Work, scope: Scope[Any]) -> None:
        await work(scope)
        if self.once():
            await asyncio.Event().wait()


class ErrorAfter(Fault):
    async def run(self, work: Work, scope: Scope[Any]) -> None:
        await work(scope)
        if self.once():
            raise Terminal("it was told to fail", reason="Injected")


class RollbackErrors(ErrorAfter):
    """The step fails, and undoing it goes wrong in every way before it goes well."""

    tries: int = 0

    async def rollback(self, work: Work, scope: Scope[Any]) -> None:
        self.tries += 1
        if self.tries == 1:
            raise Terminal("undoing was told to fail", reason="Injected")
        await work(scope)
        if self.tries == 2:
            raise Transient("undoing was told to fail for now", reason="Injected")
        if self.tries == 3:
            raise KeyError("a defect")
        if self.tries == 4:
            await asyncio.Event().wait()


class RollbackCrash(ErrorAfter):
    tries: int = 0

    async def rollback(self, work: Work, scope: Scope[Any]) -> None:
        await work(scope)
        self.tries += 1
        if self.tries == 1:
            self.crash()


class LostCallback(Fault):
    copies = 0

    async def run(self, work: Work, scope: Scope[Any]) -> None:
        self.fired += 1
        await work(scope)

    def callbacks(self, operation: str) -> int:
        return self.copies if f".{self.step}" in operation else 1


class DuplicateCallback(LostCallback):
    copies = 3


FAULTS: tuple[type[Fault], ...] = (
    CrashAfter, CrashAndFail, HangAfter, ErrorAfter, RollbackErrors, RollbackCrash, LostCallback,
    DuplicateCallback,
)  # fmt: skip


class Meddled(Step):
    """A step whose work goes through a fault."""

    def __init__(self, step: Step, run: Any, rollback: Any) -> None:
        self.name = step.name  # type: ignore[misc]
        self.no_rollback = step.no_rollback  # type: ignore[misc]
        self._step, self._run, self._rollback = step, run, rollback

    async def run(self, scope: Scope[Any]) -> None:
        await self._run(self._step.run, scope)

    async def rollback(self, scope: Scope[Any]) -> None:
        await self._rollback(self._step.rollback, scope)

    @property
    def reversible(self) -> bool:
        return self._step.reversible


@dataclass
class Seen:
    """What passed by: (flow, step), and the agents' operations of each."""

    steps: set[tuple[str, str]] = field(default_factory=set)

    def meddle(self, flows: dict[str, Flow]) -> dict[str, Flow]:
        return {name: self._watched(flow) for name, flow in flows.items()}

    def _watched(self, flow: Flow) -> Flow:
        def note(name: str) -> Any:
            async def run(work: Work, scope: Scope[Any]) -> None:
                self.steps.add((flow.name, name))
                await work(scope)

            return run

        async def plain(work: Work, scope: Scope[Any]) -> None:
            await work(scope)

        return replace(
            flow,
            steps=tuple(replace(s, step=Meddled(s.step, note(s.name), plain)) for s in flow.steps),
        )


def inject(world: World, fault: Fault) -> None:
    """From the next controller on, ``fault`` is in its way; one is started at once."""
    fault.world = world
    world.agents.callbacks = fault.callbacks

    def meddle(flows: Mapping[str, Flow]) -> dict[str, Flow]:
        return {**flows, fault.flow: _meddled(flows[fault.flow], fault)}

    world.meddle = meddle


def _meddled(flow: Flow, fault: Fault) -> Flow:
    async def plain(work: Work, scope: Scope[Any]) -> None:
        await work(scope)

    steps = list(flow.steps)
    for index, planned in enumerate(steps):
        if planned.name == fault.step:
            run: Any = fault.run
            if index == 0 and isinstance(fault, CrashAndFail):
                run = _both(fault)
            wrapped = Meddled(planned.step, run, fault.rollback)
        elif index == 0 and isinstance(fault, CrashAndFail):
            wrapped = Meddled(planned.step, fault.earlier, plain)
        else:
            continue
        steps[index] = replace(planned, step=wrapped)
    return replace(flow, steps=tuple(steps))


def _both(fault: CrashAndFail) -> Any:
    async def run(work: Work, scope: Scope[Any]) -> None:
        await fault.earlier(lambda s: fault.run(work, s), scope)

    return run
