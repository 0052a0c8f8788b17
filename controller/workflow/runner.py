"""The workflow engine: runs flows forward, and back when they fail.

All that a run must remember is in ``obj.status.workflow``, which the reconciler writes after each
pass. A controller killed in mid-pass goes on from what was written last and runs some steps (or
rollbacks) again: that is why they are idempotent. Three things make that safe:

- A flow pauses before its first step that has something to roll back, so that its start is written
  before anything is done. Whoever comes after a kill then knows of the run, also if its object
  wants another flow by now. This costs one write a flow, none where nothing can be rolled back.
  A flow that no other one but its object's deletion can follow need not (``record: false``):
  should it fail, all of its steps are rolled back, whoever ran them.
- A flow that fails pauses before it is rolled back, so that the turn is written first. Otherwise a
  controller killed in mid-rollback would go forward again over steps that are undone already.
- Whoever goes on with a run that it did not leave itself cannot know how far the one before got
  after its last write. Should the flow fail, rollback then starts at the flow's last step.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

from controller.clock import utc
from controller.errors import FlowFailed, Transient, Waiting
from controller.reconcile.actuator import Context
from controller.workflow.flow import Flow
from controller.workflow.observers import FLOW_SECONDS, Observer
from controller.workflow.run import AT_ONCE, CANCELLED, PASS_LIMIT, Memory, Run, digests
from crds.base import Resource, WorkflowFailure, WorkflowStatus

_REMEMBERED = 100_000


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
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.flows = flows
        self._observers = observers
        self._new_id = new_id
        self._pass_limit = pass_limit
        self._chance = chance
        self._left: OrderedDict[str, Memory] = OrderedDict()
        """By the uid of the object."""

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
        recorded = obj.status.workflow is not None
        if not recorded:
            self._start(name, obj, ctx)
        run = self._resume(obj, ctx, recorded=recorded)
        if run.workflow.phase == "Running":
            await self._forward(run)
            self._end(run, "succeeded")
            return
        await run.back()
        failure = run.workflow.failure or WorkflowFailure(step="", reason="Failed", message=name)
        if failure.reason == CANCELLED:
            self._end(run, "cancelled")
            message = f"{name} was cancelled and is undone: {failure.message}"
            raise Waiting(message, reason=CANCELLED, retry_after=AT_ONCE)
        self._end(run, "failed")
        raise FlowFailed(failure.message, step=failure.step, reason=failure.reason)

    async def cancel(self, obj: Resource, ctx: Context, reason: str) -> None:
        if obj.status.workflow is None:
            return
        run = self._resume(obj, ctx, recorded=True)
        if run.workflow.phase == "Running":
            raise run.turn(_cancelled(run, reason))
        await run.back()
        self._end(run, "cancelled")

    async def _forward(self, run: Run) -> None:
        changed = run.changed_input()
        if changed is not None:
            raise run.turn(_cancelled(run, f"{changed} was changed"))
        try:
            await run.forward()
        finally:
            run.memory.position = run.furthest

    def _end(self, run: Run, outcome: str) -> None:
        if run.workflow.started_at is not None:
            seconds = run.ctx.clock.now() - run.workflow.started_at.timestamp()
            FLOW_SECONDS.labels(run.flow.name, outcome).observe(max(0.0, seconds))
        run.obj.status.workflow = None
        self._left.pop(run.obj.uid, None)

    def _start(self, name: str, obj: Resource, ctx: Context) -> None:
        flow = self.flows[name]
        obj.status.workflow = WorkflowStatus(
            name=name,
            run_id=self._new_id(),
            generation=obj.metadata.generation,
            started_at=utc(ctx.clock.now()),
            step=flow.steps[0].name,
            inputs=digests(flow, obj),
        )
        # Without a record nobody knows what a run that was killed before did: all may be there.
        position = 0 if flow.record else len(flow.steps) - 1
        self._remember(obj, Memory(obj.status.workflow.run_id, position))

    def _resume(self, obj: Resource, ctx: Context, *, recorded: bool) -> Run:
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
        memory = self._left.get(obj.uid)
        if memory is None or memory.run_id != workflow.run_id:
            memory = Memory(workflow.run_id, len(flow.steps) - 1)
            ctx.events.normal(obj, "FlowResumed", f"{flow.name}: {workflow.progress}")
        self._remember(obj, memory)
        run = Run(
            flow, obj, ctx, workflow, memory, recorded, self._observers, self._pass_limit,
            self._chance,
        )  # fmt: skip
        if workflow.phase == "Running":
            run.reaches(memory.position)
        return run

    def _remember(self, obj: Resource, memory: Memory) -> None:
        self._left[obj.uid] = memory
        self._left.move_to_end(obj.uid)
        while len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)


def _cancelled(run: Run, why: str) -> WorkflowFailure:
    return WorkflowFailure(step=run.workflow.step, reason=CANCELLED, message=why)
