"""One pass through a flow of one object: forward, or back."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from controller.clock import utc
from controller.errors import KumulusError, Terminal, Transient, Waiting
from controller.reconcile.actuator import Context
from controller.workflow.backoff import DEFAULT
from controller.workflow.flow import Flow, PlannedStep, Stage
from controller.workflow.observers import (
    STEP_LASTED,
    STEP_SECONDS,
    STEPS,
    Observer,
    StepEvent,
    When,
    tell,
)
from controller.workflow.step import Scope
from crds.base import Resource, WorkflowBranch, WorkflowFailure, WorkflowStatus

log = logging.getLogger(__name__)

PASS_LIMIT = 300.0
"""Seconds that one pass through a step may take: steps pause instead of waiting, so one that takes
longer hangs. It is cut off and counts as a Transient failure."""

GRACE = 5.0
"""Seconds that a pass has even if its step's timeout is nearly or quite used up: after a long
pause the step may find its work done."""

SLOW = 30.0
"""Seconds after which a step that is still at work is worth an Event."""

AT_ONCE = 0.001
CANCELLED = "Cancelled"

Cursor = WorkflowStatus | WorkflowBranch
"""Where steps go one after the other: the flow itself, or a branch of its parallel group."""


class _Broken(Transient):
    """A step hung or raised what no step should raise: most likely a defect of it."""


class _StepFailed(Exception):
    """The flow must turn round."""

    def __init__(self, failure: WorkflowFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass
class Memory:
    """What this process knows of a run beside its status; lost, it only costs work.

    position: of the furthest step that may have run. pauses: step → (monotonic time before which
    it is not tried again, why). told: slow steps that an Event told of.
    """

    run_id: str
    position: int
    pauses: dict[str, tuple[float, KumulusError]] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


@dataclass
class Run:
    """``recorded``: the API has the run's record, so that a step may have effects that only a
    rollback removes. ``chance``: a random number from 0 to 1."""

    flow: Flow
    obj: Resource
    ctx: Context
    workflow: WorkflowStatus
    memory: Memory
    recorded: bool
    observers: Sequence[Observer]
    pass_limit: float
    chance: Callable[[], float]

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

    def changed_input(self) -> str | None:
        """The first of the fields that the run depends on that is not what it was."""
        now = digests(self.flow, self.obj)
        pairs = zip(self.flow.cancel_on, self.workflow.inputs, now, strict=False)
        return next((name for name, before, after in pairs if before != after), None)

    # -- forward

    async def forward(self) -> None:
        """Run steps from the recorded one on. Returns when all are done."""
        try:
            for stage in self.flow.stages_from(self.workflow.step):
                await self._stage(stage)
        except _StepFailed as error:
            raise self.turn(error.failure) from error.__cause__

    async def _stage(self, stage: Stage) -> None:
        if self._skips(stage.steps[0], self.workflow) and self._all_skipped(stage):
            return
        self._enter(stage)
        if not stage.parallel:
            await self._step(stage.steps[0], self.workflow)
            return
        branches = zip(stage.branches, self.workflow.branches, strict=True)
        ends = await asyncio.gather(
            *(self._branch(steps, cursor) for steps, cursor in branches), return_exceptions=True
        )
        errors = [end for end in ends if end is not None]
        self.workflow.progress = self._progress(stage)
        if errors:
            raise _foremost(errors)
        self.workflow.branches = []

    def _all_skipped(self, stage: Stage) -> bool:
        return all(step.name in self.workflow.skipped for step in stage.steps)

    async def _branch(self, steps: Sequence[PlannedStep], cursor: WorkflowBranch) -> None:
        names = [step.name for step in steps]
        for planned in steps[len(steps) if cursor.done else names.index(cursor.step) :]:
            if not self._skips(planned, cursor):
                self._begin(planned.name, cursor)
                await self._step(planned, cursor)
        cursor.done = True

    def _skips(self, planned: PlannedStep, cursor: Cursor) -> bool:
        """Is the step left out? Its conditions are asked once, as the run gets to it."""
        if planned.name in self.workflow.skipped:
            return True
        if cursor.step == planned.name and cursor.step_started_at is not None:
            return False
        for guard in planned.guards:
            if guard.covers[0] == planned.name and not self._holds(guard.condition.holds, planned):
                new = [name for name in guard.covers if name not in self.workflow.skipped]
                self.workflow.skipped += new
                for name in new:
                    STEPS.labels(self.flow.name, name, "skipped").inc()
                return True
        return False

    def _holds(self, condition: Callable[[Resource], bool], planned: PlannedStep) -> bool:
        try:
            return condition(self.obj)
        except Terminal as error:
            raise self._failed(planned, error, "failed") from error

    async def _step(self, planned: PlannedStep, cursor: Cursor) -> None:
        """Returns when the step is done; raises what pauses the flow, or _StepFailed."""
        self._hold_back(planned)
        if planned.step.reversible and self.flow.record and not self.recorded:
            why = "its start is written down first"
            raise Waiting(why, reason="Recording", retry_after=AT_ONCE)
        self._tell(planned, "before")
        left = self._time_left(planned, cursor)
        try:
            await self._timed(planned, planned.step.run, left)
        except Terminal as error:
            raise self._failed(planned, error, "failed") from error
        except (Waiting, Transient) as error:
            self._pause(planned, cursor, error)
            raise
        self._count(planned, "succeeded")
        if cursor.step_started_at is not None:
            lasted = self.ctx.clock.now() - cursor.step_started_at.timestamp()
            STEP_LASTED.labels(self.flow.name, planned.name).observe(max(0.0, lasted))
        self._tell(planned, "after")

    def _pause(self, planned: PlannedStep, cursor: Cursor, error: Waiting | Transient) -> None:
        """Returns while the step has time and retries left; otherwise raises _StepFailed."""
        left = self._time_left(planned, cursor)
        if left is not None and left <= 0:
            message = f"step {planned.name} took longer than {planned.timeout:g}s: {error.message}"
            late = Terminal(message, reason="StepTimeout")
            raise self._failed(planned, late, "timeout") from error
        self._tell_slow(planned, cursor, error)
        if isinstance(error, Waiting):
            self._count(planned, "waiting")
            if left is not None:
                error.retry_after = min(left, error.retry_after or left)
            return
        cursor.retries += 1
        if planned.retries is not None and cursor.retries > planned.retries:
            raise self._failed(planned, error, "failed") from error
        self._count(planned, "retried")
        self._back_off(planned, cursor.retries, error, left)

    def _back_off(
        self, planned: PlannedStep, failures: int, error: KumulusError, left: float | None = None
    ) -> None:
        pause = (planned.backoff or DEFAULT).pause(failures, self.chance())
        error.retry_after = pause if left is None else min(left, pause)
        until = self.ctx.clock.monotonic() + error.retry_after
        self.memory.pauses[planned.name] = until, error

    def _hold_back(self, planned: PlannedStep) -> None:
        """Raise again what the step failed with while its back-off lasts, whatever woke the key:
        also the callback of the very operation that failed does."""
        until, error = self.memory.pauses.get(planned.name, (0.0, None))
        left = until - self.ctx.clock.monotonic()
        if error is not None and left > 0:
            raise Transient(error.message, reason=error.reason, retry_after=left)
        self.memory.pauses.pop(planned.name, None)

    def _failed(self, planned: PlannedStep, error: KumulusError, outcome: str) -> _StepFailed:
        self._count(planned, outcome)
        return _StepFailed(
            WorkflowFailure(step=planned.name, reason=error.reason, message=error.message)
        )

    # -- back

    def turn(self, failure: WorkflowFailure) -> Waiting:
        """Turn round. Raise what is returned: the turn must be written before anything is undone.
        The next pass rolls back, from the furthest step that may have run."""
        last = self.flow.steps[self.furthest].name
        cancelled = failure.reason == CANCELLED
        self.workflow.phase = "RollingBack"
        self.workflow.failure = failure
        self.workflow.retries = 0
        self.workflow.branches = []
        self.memory.pauses.clear()
        self.workflow.step, self.workflow.furthest = last, ""
        ended = "was cancelled" if cancelled else "failed"
        self.workflow.progress = f"rolling back after step {failure.step} {ended}"
        log.info(
            "flow %s %s at %s: %s", self.flow.name, ended, failure.step, failure.message,
            extra={"flow": self.flow.name, "step": failure.step, "reason": failure.reason},
        )  # fmt: skip
        message = f"step {failure.step} {ended}, what was done is undone: {failure.message}"
        event = self.ctx.events.normal if cancelled else self.ctx.events.warning
        event(self.obj, "FlowCancelled" if cancelled else "FlowFailed", self._said(message))
        return Waiting(message, reason="RollingBack", retry_after=AT_ONCE)

    async def back(self) -> None:
        """Roll back from the recorded step to the first. Returns when everything is undone.

        Steps that a condition left out are rolled back, too: a controller that died may have run
        them, before the decision to leave them out was taken anew.
        """
        if self.workflow.phase == "RolledBack":
            return
        for index in range(self.flow.positions[self.workflow.step], -1, -1):
            planned = self.flow.steps[index]
            self._begin(planned.name, self.workflow)
            self.workflow.progress = f"rolling back {self._place(index, planned.name)}"
            await self._undo(planned)
        self.workflow.phase = "RolledBack"
        self.ctx.events.normal(self.obj, "RolledBack", self._said("everything it did is undone"))

    async def _undo(self, planned: PlannedStep) -> None:
        self._hold_back(planned)
        self._tell(planned, "rollback")
        try:
            await self._timed(planned, planned.step.rollback, None)
        except (Terminal, _Broken) as error:
            raise self._rollback_failed(planned, error.message) from error
        except Waiting:
            self._count(planned, "rollback-waiting")
            raise
        except Transient as error:
            self._retry_undo(planned, "rollback-retried", error)
            raise
        self._count(planned, "rolled-back")

    def _retry_undo(self, planned: PlannedStep, outcome: str, error: Transient) -> None:
        self.workflow.retries += 1
        self._count(planned, outcome)
        self._back_off(planned, self.workflow.retries, error)

    def _rollback_failed(self, planned: PlannedStep, cause: str) -> Transient:
        error = Transient(
            f"undoing step {planned.name} of {self.flow.name} failed: {cause}; "
            "it is tried again until it succeeds",
            reason="RollbackFailed",
        )
        self._retry_undo(planned, "rollback-failed", error)
        return error

    # -- both ways

    async def _timed(
        self,
        planned: PlannedStep,
        work: Callable[[Scope[Resource]], Awaitable[None]],
        left: float | None,
    ) -> None:
        """Run or roll back within the pass limit. Raises nothing but KumulusError's three."""
        limit = self.pass_limit if left is None else min(self.pass_limit, max(left, GRACE))
        begun = time.perf_counter()
        deadline = asyncio.timeout(limit)
        try:
            async with deadline:
                await work(replace(self.scope, step=planned.name))
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

    def _enter(self, stage: Stage) -> None:
        """Record that ``stage`` is where the run is."""
        if self.workflow.step != stage.steps[0].name:
            self.workflow.branches = []
        self._begin(stage.steps[0].name, self.workflow)
        if stage.parallel and not self._matches(stage):
            self.workflow.branches = [WorkflowBranch(step=b[0].name) for b in stage.branches]
        if self.furthest <= stage.last:
            self.workflow.furthest = ""
            self.reaches(stage.last)
        self.workflow.progress = self._progress(stage)

    def _matches(self, stage: Stage) -> bool:
        """Are the recorded branches this stage's? Another version may have had others."""
        recorded = [branch.step for branch in self.workflow.branches]
        names = [[step.name for step in branch] for branch in stage.branches]
        return len(recorded) == len(names) and all(map(list.__contains__, names, recorded))

    def _begin(self, name: str, cursor: Cursor) -> None:
        """The step's clock and retries start if it is new."""
        if cursor.step != name or cursor.step_started_at is None:
            cursor.retries = 0
            cursor.step_started_at = utc(self.ctx.clock.now())
        cursor.step = name

    def _progress(self, stage: Stage) -> str:
        at_work = [branch.step for branch in self.workflow.branches if not branch.done]
        if not stage.parallel or not at_work:
            return self._place(stage.first, stage.steps[0].name)
        numbers = f"steps {stage.first + 1}-{stage.last + 1} of {len(self.flow.steps)}"
        return f"{numbers}: {', '.join(at_work)}"

    def _place(self, index: int, name: str) -> str:
        return f"step {index + 1} of {len(self.flow.steps)}: {name}"

    def _time_left(self, planned: PlannedStep, cursor: Cursor) -> float | None:
        if planned.timeout is None or cursor.step_started_at is None:
            return None
        return cursor.step_started_at.timestamp() + planned.timeout - self.ctx.clock.now()

    def _tell(self, planned: PlannedStep, when: When) -> None:
        tell(self.observers, StepEvent(self.flow.name, planned.name, when, self.obj))

    def _tell_slow(self, planned: PlannedStep, cursor: Cursor, error: KumulusError) -> None:
        since = cursor.step_started_at
        if since is None or planned.name in self.memory.told:
            return
        if self.ctx.clock.now() - since.timestamp() > SLOW:
            self.memory.told.add(planned.name)
            place = self._place(self.flow.positions[planned.name], planned.name)
            said = self._said(f"{place}: {error.message}")
            self.ctx.events.normal(self.obj, "FlowProgress", said)

    def _said(self, what: str) -> str:
        return f"{self.flow.name}: {what}"

    def _count(self, planned: PlannedStep, outcome: str) -> None:
        STEPS.labels(self.flow.name, planned.name, outcome).inc()


def digests(flow: Flow, obj: Resource) -> list[str]:
    """What the fields of ``cancel_on`` hold, in few characters each."""
    wire = {"spec": obj.spec.wire()} if flow.cancel_on else {}
    return [_digest(wire, name) for name in flow.cancel_on]


def _digest(wire: object, path: str) -> str:
    for name in path.split("."):
        wire = wire.get(name) if isinstance(wire, dict) else None
    return hashlib.sha256(json.dumps(wire, sort_keys=True).encode()).hexdigest()[:12]


def _foremost(errors: Sequence[BaseException]) -> BaseException:
    """What ends a pass in which several branches did not get through: whatever is no error of
    theirs, a failure, an error to be repeated, and only then a pause (the shortest)."""
    ours = (_StepFailed, Transient, Waiting)
    others = [error for error in errors if not isinstance(error, ours)]
    failures = [error for error in errors if isinstance(error, _StepFailed)]
    repeated = [error for error in errors if isinstance(error, Transient)]
    worse = [*others, *failures, *repeated]
    if worse:
        return worse[0]
    return min(errors, key=lambda e: getattr(e, "retry_after", None) or float("inf"))
