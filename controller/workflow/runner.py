"""The workflow engine: runs flows forward, and back when they fail.

All that a run must remember is in ``obj.status.workflow``, which the reconciler writes after each
pass. A controller killed in mid-pass goes on from what was written last and runs some steps (or
rollbacks) again: that is why they are idempotent. Two things make that safe:

- A flow that fails pauses before it is rolled back, so that the turn is written first. Otherwise a
  controller killed in mid-rollback would go forward again over steps that are undone already.
- Whoever goes on with a run that it did not leave itself cannot know how far the one before got
  after its last write. Should the flow fail, rollback then starts at the flow's last step.

What is left open: the pass that starts a flow has no record before its end. If the controller is
killed in it, the next run finds (or the owner's deletion removes) what it did.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from uuid import uuid4

from controller.errors import FlowFailed, KumulusError, Terminal, Transient, Waiting
from controller.reconcile.actuator import Context
from controller.workflow.flow import Flow, PlannedStep, collect
from controller.workflow.loader import load
from controller.workflow.observers import (
    FLOW_SECONDS,
    STEP_SECONDS,
    STEPS,
    Observer,
    StepEvent,
    When,
    tell,
)
from controller.workflow.step import Scope
from crds.base import Resource, WorkflowFailure, WorkflowStatus

log = logging.getLogger(__name__)

PASS_LIMIT = 300.0
"""Seconds that one pass through a step may take: steps pause instead of waiting, so one that takes
longer hangs. It is cut off and counts as a Transient failure."""

_GRACE = 5.0
"""Seconds that a pass has even if its step's timeout is nearly or quite used up: after a long
pause the step may find its work done."""


_AT_ONCE = 0.001
_REMEMBERED = 100_000


@dataclass(frozen=True)
class _Left:
    flow: str
    run_id: str
    position: int


class _Broken(Transient):
    """A step hung or raised what no step should raise: most likely a defect of it."""


def _short_id() -> str:
    return uuid4().hex[:16]


class FlowEngine:
    """Implements ``controller.workflow.engine.Flows``. What it remembers of runs only spares work:
    a run that it does not know is taken for one that another process left in mid-pass."""

    def __init__(
        self,
        flows: Mapping[str, Flow],
        *,
        observers: Sequence[Observer] = (),
        new_id: Callable[[], str] = _short_id,
        pass_limit: float = PASS_LIMIT,
    ) -> None:
        self.flows = flows
        self._observers = observers
        self._new_id = new_id
        self._pass_limit = pass_limit
        self._left: OrderedDict[str, _Left] = OrderedDict()
        """uid → its unfinished run, as it was when our last pass through it ended."""

    @classmethod
    def load(
        cls, directory: Path, modules: Sequence[ModuleType], observers: Sequence[Observer] = ()
    ) -> FlowEngine:
        """The flows of ``directory`` over the steps of ``modules``. Raises FlowError."""
        return cls(load(directory, collect(modules)), observers=observers)

    def forget(self, concerned: Callable[[str], bool]) -> None:
        """Another replica goes on with the runs of these uids: how far they got is not known."""
        for uid in [uid for uid in self._left if concerned(uid)]:
            del self._left[uid]

    def running(self, obj: Resource) -> str | None:
        workflow: WorkflowStatus | None = obj.status.workflow
        return workflow.name if workflow is not None else None

    async def run(self, name: str, obj: Resource, ctx: Context) -> None:
        if name not in self.flows:
            raise LookupError(f"no flow {name!r}; there are: {', '.join(sorted(self.flows))}")
        if self.running(obj) not in (None, name):
            await self.cancel(obj, ctx, f"{name} takes its place")
        if obj.status.workflow is None:
            self._start(name, obj, ctx)
        run = self._resume(obj, ctx)
        if run.workflow.phase == "Running":
            try:
                await run.forward()
            finally:
                self._leave(run)
            self._end(run, "succeeded")
            return
        await run.back()
        self._end(run, "failed")
        failure = run.workflow.failure or WorkflowFailure(step="", reason="Failed", message=name)
        raise FlowFailed(failure.message, step=failure.step, reason=failure.reason)

    async def cancel(self, obj: Resource, ctx: Context, reason: str) -> None:
        if obj.status.workflow is None:
            return
        run = self._resume(obj, ctx)
        if run.workflow.phase == "Running":
            raise run.turn(
                WorkflowFailure(step=run.workflow.step, reason="Cancelled", message=reason)
            )
        await run.back()
        self._end(run, "cancelled")

    def _end(self, run: _Run, outcome: str) -> None:
        if run.workflow.started_at is not None:
            seconds = run.ctx.clock.now() - run.workflow.started_at.timestamp()
            FLOW_SECONDS.labels(run.flow.name, outcome).observe(max(0.0, seconds))
        run.obj.status.workflow = None
        self._left.pop(run.obj.uid, None)

    def _start(self, name: str, obj: Resource, ctx: Context) -> None:
        obj.status.workflow = WorkflowStatus(
            name=name,
            run_id=self._new_id(),
            generation=obj.metadata.generation,
            started_at=_utc(ctx.clock.now()),
            step=self.flows[name].steps[0].name,
        )
        lost = self._left.get(obj.uid)
        position = lost.position if lost is not None and lost.flow == name else 0
        self._left[obj.uid] = _Left(name, obj.status.workflow.run_id, position)

    def _resume(self, obj: Resource, ctx: Context) -> _Run:
        workflow: WorkflowStatus = obj.status.workflow
        flow = self.flows.get(workflow.name)
        if flow is None or not {workflow.step, workflow.furthest or workflow.step} <= set(
            flow.positions
        ):
            raise Transient(
                f"step {workflow.step!r} of flow {workflow.name!r} is under way, but this version "
                "does not have it; run the version (or the plugin) that began it",
                reason="UnknownFlow",
            )
        run = _Run(flow, obj, ctx, workflow, self._observers, self._pass_limit)
        left = self._left.get(obj.uid)
        if workflow.phase == "Running":
            ours = left is not None and left.run_id == workflow.run_id
            run.reaches(left.position if left is not None and ours else len(flow.steps) - 1)
        return run

    def _leave(self, run: _Run) -> None:
        uid, workflow = run.obj.uid, run.workflow
        self._left[uid] = _Left(run.flow.name, workflow.run_id, run.furthest)
        self._left.move_to_end(uid)
        while len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)


@dataclass
class _Run:
    """One pass through a flow of one object."""

    flow: Flow
    obj: Resource
    ctx: Context
    workflow: WorkflowStatus
    observers: Sequence[Observer]
    pass_limit: float

    def __post_init__(self) -> None:
        self.scope = Scope(self.obj, self.ctx, self.workflow.run_id, data={})

    @property
    def furthest(self) -> int:
        """Position of the furthest step that may have run."""
        return self.flow.positions[self.workflow.furthest or self.workflow.step]

    def reaches(self, position: int) -> None:
        """The run may have got as far as ``position``."""
        if position > self.furthest:
            self.workflow.furthest = self.flow.steps[position].name

    async def forward(self) -> None:
        """Run steps from the recorded one on. Returns when all are done."""
        for index in range(self.flow.positions[self.workflow.step], len(self.flow.steps)):
            self._enter(index, "step")
            await self._step(self.flow.steps[index])

    async def back(self) -> None:
        """Roll back from the recorded step to the first. Returns when everything is undone."""
        if self.workflow.phase == "RolledBack":
            return
        for index in range(self.flow.positions[self.workflow.step], -1, -1):
            self._enter(index, "rolling back step")
            await self._undo(self.flow.steps[index])
        self.workflow.phase = "RolledBack"

    def turn(self, failure: WorkflowFailure) -> Waiting:
        """Turn round. Raise what is returned: the turn must be written before anything is undone.
        The next pass rolls back, from the furthest step that may have run."""
        last = self.flow.steps[self.furthest].name
        self.workflow.phase = "RollingBack"
        self.workflow.failure = failure
        self.workflow.retries = 0
        self.workflow.step, self.workflow.furthest = last, ""
        self.workflow.progress = f"rolling back after step {failure.step} failed"
        log.info(
            "flow %s failed at %s: %s", self.flow.name, failure.step, failure.message,
            extra={"flow": self.flow.name, "step": failure.step, "reason": failure.reason},
        )  # fmt: skip
        message = f"step {failure.step} failed, what was done is undone: {failure.message}"
        return Waiting(message, reason="RollingBack", retry_after=_AT_ONCE)

    async def _step(self, planned: PlannedStep) -> None:
        """Returns when the step is done; raises what pauses the flow."""
        self._tell(planned, "before")
        left = self._time_left(planned)
        try:
            await self._timed(planned, planned.step.run, left)
        except Terminal as error:
            raise self._failed(planned, error, "failed") from error
        except (Waiting, Transient) as error:
            pause = self._pause(planned, error)
            if pause is error:
                raise
            raise pause from error
        self._count(planned, "succeeded")
        self._tell(planned, "after")

    def _pause(self, planned: PlannedStep, error: KumulusError) -> KumulusError:
        """``error`` itself while the step has time and retries left; otherwise the flow turns."""
        left = self._time_left(planned)
        if left is not None and left <= 0:
            message = f"step {planned.name} took longer than {planned.timeout:g}s: {error.message}"
            return self._failed(planned, Terminal(message, reason="StepTimeout"), "timeout")
        if isinstance(error, Waiting):
            self._count(planned, "waiting")
            if left is not None:
                error.retry_after = min(left, error.retry_after or left)
            return error
        self.workflow.retries += 1
        if planned.retries is not None and self.workflow.retries > planned.retries:
            return self._failed(planned, error, "failed")
        self._count(planned, "retried")
        return error

    def _failed(self, planned: PlannedStep, error: KumulusError, outcome: str) -> Waiting:
        self._count(planned, outcome)
        return self.turn(
            WorkflowFailure(step=planned.name, reason=error.reason, message=error.message)
        )

    async def _undo(self, planned: PlannedStep) -> None:
        self._tell(planned, "rollback")
        try:
            await self._timed(planned, planned.step.rollback, None)
        except (Terminal, _Broken) as error:
            raise self._rollback_failed(planned, error.message) from error
        except Waiting:
            self._count(planned, "rollback-waiting")
            raise
        except Transient:
            self.workflow.retries += 1
            self._count(planned, "rollback-retried")
            raise
        self._count(planned, "rolled-back")

    def _rollback_failed(self, planned: PlannedStep, cause: str) -> Transient:
        self.workflow.retries += 1
        self._count(planned, "rollback-failed")
        return Transient(
            f"undoing step {planned.name} of {self.flow.name} failed: {cause}; "
            "it is tried again until it succeeds",
            reason="RollbackFailed",
        )

    async def _timed(
        self,
        planned: PlannedStep,
        work: Callable[[Scope[Resource]], Awaitable[None]],
        left: float | None,
    ) -> None:
        """Run or roll back within the pass limit. Raises nothing but KumulusError's three."""
        self.scope.step = planned.name
        limit = self.pass_limit if left is None else min(self.pass_limit, max(left, _GRACE))
        begun = time.perf_counter()
        deadline = asyncio.timeout(limit)
        try:
            async with deadline:
                await work(self.scope)
        except (Waiting, Transient, Terminal):
            raise
        except KumulusError as error:
            raise Transient(error.message, reason=error.reason) from error
        except Exception as error:
            if deadline.expired():
                raise _Broken(f"hung and was cut off after {limit:g}s", reason="StepHung") from None
            log.exception("step %s of flow %s: unexpected error", planned.name, self.flow.name)
            cause = f"unexpected {type(error).__name__}: {error}"
            raise _Broken(cause, reason="StepError") from error
        finally:
            STEP_SECONDS.labels(self.flow.name, planned.name).observe(time.perf_counter() - begun)

    def _enter(self, index: int, verb: str) -> None:
        """Record that ``index`` is the current step; its clock and retries start if it is new."""
        name, of = self.flow.steps[index].name, len(self.flow.steps)
        if self.workflow.step != name or self.workflow.step_started_at is None:
            self.workflow.retries = 0
            self.workflow.step_started_at = _utc(self.ctx.clock.now())
        self.workflow.step = name
        if self.furthest <= index:
            self.workflow.furthest = ""
        self.workflow.progress = f"{verb} {index + 1} of {of}: {name}"

    def _time_left(self, planned: PlannedStep) -> float | None:
        if planned.timeout is None or self.workflow.step_started_at is None:
            return None
        return self.workflow.step_started_at.timestamp() + planned.timeout - self.ctx.clock.now()

    def _tell(self, planned: PlannedStep, when: When) -> None:
        tell(self.observers, StepEvent(self.flow.name, planned.name, when, self.obj))

    def _count(self, planned: PlannedStep, outcome: str) -> None:
        STEPS.labels(self.flow.name, planned.name, outcome).inc()


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
