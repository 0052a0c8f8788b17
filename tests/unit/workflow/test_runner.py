"""How a flow pauses, resumes, fails, is rolled back and shows where it is."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from prometheus_client import REGISTRY

from controller.errors import FlowFailed, Terminal, Transient, Waiting
from controller.reconcile.actuator import Context
from controller.workflow.chaos import kill_point
from controller.workflow.flow import Flow, PlannedStep
from controller.workflow.observers import StepEvent
from controller.workflow.runner import FlowEngine
from controller.workflow.step import Scope, Step
from crds.v1alpha1.zone import Zone
from tests.unit.workflow.world import (
    Clock,
    Crash,
    Recorded,
    ScriptedStep,
    World,
    context,
    engine,
    reread,
    zone,
)

AB = ("a", "b")


async def _to_its_end(flows: FlowEngine, obj: Zone, ctx: Context) -> None:
    """Run; a turn (written first, by whoever calls) is followed at once."""
    try:
        await flows.run("flow", obj, ctx)
    except Waiting as pause:
        if pause.reason != "RollingBack":
            raise
        await flows.run("flow", obj, ctx)


def _two(world: World, **scripts: Any) -> tuple[PlannedStep, PlannedStep]:
    """Steps a and b; scripts by name: a, b forward; undo_a, undo_b backward."""
    first, second = (
        PlannedStep(
            ScriptedStep(n, world, scripts.get(n, ()), scripts.get(f"undo_{n}", ())), retries=2
        )
        for n in AB
    )
    return first, second


async def test_a_flow_runs_its_steps_in_order_and_leaves_no_trace() -> None:
    world, obj = World(AB), zone()
    await engine(*_two(world)).run("flow", obj, context(Clock()))
    assert world.calls == ["run a", "run b"]
    assert obj.status.workflow is None


async def test_status_tells_where_it_waits() -> None:
    world, obj, clock = World(AB), zone(generation=7), Clock()
    flows = engine(*_two(world, b=[("waiting", False)]))
    with pytest.raises(Waiting, match="not yet"):
        await flows.run("flow", obj, context(clock))
    workflow = obj.status.workflow
    assert workflow is not None
    assert (workflow.name, workflow.phase, workflow.step) == ("flow", "Running", "b")
    assert workflow.progress == "step 2 of 2: b"
    assert workflow.generation == 7
    assert workflow.started_at is not None
    assert workflow.started_at.timestamp() == clock.time
    assert flows.running(obj) == "flow"


async def test_a_restarted_controller_goes_on_with_the_same_run() -> None:
    world, obj = World(AB), zone()
    steps = _two(world, b=[("waiting", False)])
    with pytest.raises(Waiting):
        await engine(*steps).run("flow", obj, context(Clock()))
    assert obj.status.workflow is not None
    run_id = obj.status.workflow.run_id
    seen: list[str] = []

    class Late(Step):
        name = "b"

        async def run(self, scope: Scope[Any]) -> None:
            seen.append(scope.operation("x"))

    await engine(steps[0], PlannedStep(Late())).run("flow", reread(obj), context(Clock()))
    assert seen == [f"{run_id}.b.x"]
    assert world.calls.count("run a") == 1


async def test_the_failing_step_and_those_before_it_are_undone_in_reverse() -> None:
    world, obj = World(("a", "b", "c")), zone()
    steps = [
        PlannedStep(ScriptedStep("a", world)),
        PlannedStep(ScriptedStep("b", world, [("terminal", True)])),
        PlannedStep(ScriptedStep("c", world)),
    ]
    with pytest.raises(FlowFailed, match="it cannot be") as caught:
        await _to_its_end(engine(*steps), obj, context(Clock()))
    assert (caught.value.step, caught.value.reason) == ("b", "Broken")
    assert world.calls == ["run a", "run b", "rollback b", "rollback a"]
    assert obj.status.workflow is None


async def test_transient_failures_are_counted_over_restarts() -> None:
    world, obj = World(AB), zone()
    steps = _two(world, a=[("transient", False)] * 3)
    for count in (1, 2):
        with pytest.raises(Transient, match="not now"):
            await engine(*steps).run("flow", obj, context(Clock()))
        assert obj.status.workflow is not None
        assert obj.status.workflow.retries == count
        obj = reread(obj)
    with pytest.raises(FlowFailed) as caught:
        await _to_its_end(engine(*steps), obj, context(Clock()))
    assert caught.value.reason == "Busy"
    assert not any(world.effects.values())


async def test_each_step_has_retries_of_its_own() -> None:
    world, obj = World(AB), zone()
    steps = _two(world, a=[("transient", False)] * 2, b=[("transient", False)] * 2)
    for _ in range(4):
        with pytest.raises(Transient):
            await engine(*steps).run("flow", obj, context(Clock()))
    await engine(*steps).run("flow", obj, context(Clock()))
    assert world.effects == {"a": 1, "b": 1}


async def test_a_timeout_counts_from_the_steps_start_over_restarts() -> None:
    world, obj, clock = World(("a",)), zone(), Clock()
    step = PlannedStep(ScriptedStep("a", world, [("waiting", True)] * 9), timeout=30)
    with pytest.raises(Waiting) as paused:
        await engine(step).run("flow", obj, context(clock))
    assert paused.value.retry_after == pytest.approx(30)
    clock.time += 20
    with pytest.raises(Waiting) as paused:
        await engine(step).run("flow", reread(obj), context(clock))
    assert paused.value.retry_after == pytest.approx(10)
    clock.time += 10
    with pytest.raises(FlowFailed, match="a took longer than 30s: not yet") as caught:
        await _to_its_end(engine(step), reread(obj), context(clock))
    assert caught.value.reason == "StepTimeout"
    assert world.effects["a"] == 0


async def test_work_that_got_done_while_nobody_looked_counts_although_it_is_late() -> None:
    world, obj, clock = World(("a",)), zone(), Clock()
    step = PlannedStep(ScriptedStep("a", world, [("waiting", True)]), timeout=30)
    with pytest.raises(Waiting):
        await engine(step).run("flow", obj, context(clock))
    clock.time += 3600
    await engine(step).run("flow", reread(obj), context(clock))
    assert world.effects["a"] == 1


@pytest.mark.parametrize("mishap", ["terminal", "bug"])
async def test_a_failing_rollback_is_named_and_repeated_until_it_is_clean(
    mishap: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    world, obj = World(AB), zone()
    steps = _two(world, b=[("terminal", True)], undo_a=[(mishap, False)] * 5)
    for _ in range(5):
        with pytest.raises(Transient, match="undoing step a of flow failed") as caught:
            await _to_its_end(engine(*steps), obj, context(Clock()))
        assert caught.value.reason == "RollbackFailed"
        assert obj.status.workflow is not None
        assert obj.status.workflow.progress == "rolling back step 1 of 2: a"
        obj = reread(obj)
    with pytest.raises(FlowFailed):
        await _to_its_end(engine(*steps), obj, context(Clock()))
    assert not any(world.effects.values())
    assert world.calls.count("rollback b") == 1


@pytest.mark.parametrize("mishap", ["waiting", "transient"])
async def test_a_rollback_pauses(mishap: str) -> None:
    world, obj = World(AB), zone()
    steps = _two(world, b=[("terminal", False)], undo_b=[(mishap, False)])
    with pytest.raises((Waiting, Transient)) as caught:
        await _to_its_end(engine(*steps), obj, context(Clock()))
    assert caught.value.reason != "RollbackFailed"
    assert obj.status.workflow is not None
    assert obj.status.workflow.failure is not None
    assert obj.status.workflow.failure.step == "b"
    with pytest.raises(FlowFailed):
        await _to_its_end(engine(*steps), reread(obj), context(Clock()))


async def test_cancel_undoes_what_was_done() -> None:
    world, obj = World(AB), zone()
    steps = _two(world, b=[("waiting", True)], undo_b=[("waiting", False)])
    flows, ctx = engine(*steps), context(Clock())
    with pytest.raises(Waiting):
        await flows.run("flow", obj, ctx)
    with pytest.raises(Waiting) as turned:
        await flows.cancel(obj, ctx, "it is deleted")
    assert turned.value.reason == "RollingBack"
    assert world.calls[-1] == "run b", "the turn is written before anything is undone"
    with pytest.raises(Waiting, match="not yet"):
        await flows.cancel(obj, ctx, "it is deleted")
    obj = reread(obj)
    assert obj.status.workflow is not None
    assert obj.status.workflow.phase == "RollingBack"
    await flows.cancel(obj, ctx, "it is deleted")
    assert obj.status.workflow is None
    assert not any(world.effects.values())
    await flows.cancel(obj, ctx, "again")


async def test_run_goes_on_with_a_cancelled_flows_rollback() -> None:
    world, obj = World(AB), zone()
    steps = _two(world, b=[("waiting", True)], undo_b=[("waiting", False)])
    flows, ctx = engine(*steps), context(Clock())
    for call in (flows.run("flow", obj, ctx), flows.cancel(obj, ctx, "the spec changed")):
        with pytest.raises(Waiting):
            await call
    with pytest.raises(Waiting, match="not yet"):
        await flows.run("flow", obj, ctx)
    with pytest.raises(Waiting, match="the spec changed") as caught:
        await flows.run("flow", obj, ctx)
    assert caught.value.reason == "Cancelled", "what it needs now is decided anew"
    assert obj.status.workflow is None
    assert not any(world.effects.values())


async def test_another_flow_takes_the_place_of_a_running_one() -> None:
    world, obj, ctx = World(AB), zone(), context(Clock())
    waits = PlannedStep(ScriptedStep("a", world, [("waiting", True)] * 9))
    other = World(("c",))
    flows = Recorded(
        {
            "one": Flow("one", "Zone", (waits,)),
            "two": Flow("two", "Zone", (PlannedStep(ScriptedStep("c", other)),)),
        }
    )
    with pytest.raises(Waiting):
        await flows.run("one", obj, ctx)
    with pytest.raises(Waiting):
        await flows.run("two", obj, ctx)
    await flows.run("two", obj, ctx)
    assert world.calls == ["run a", "rollback a"]
    assert other.calls == ["run c"]


async def test_a_step_that_this_version_does_not_have_is_left_for_the_one_that_does() -> None:
    world, obj, ctx = World(AB), zone(), context(Clock())
    steps = _two(world, b=[("waiting", True)])
    with pytest.raises(Waiting):
        await engine(*steps).run("flow", obj, ctx)
    older = engine(steps[0])
    for call in (older.run("flow", obj, ctx), older.cancel(obj, ctx, "gone")):
        with pytest.raises(Transient, match="this version does not have it") as caught:
            await call
        assert caught.value.reason == "UnknownFlow"
    assert world.effects == {"a": 1, "b": 1}


async def test_an_unknown_flow_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(LookupError, match="no flow 'nope'; there are: flow"):
        await engine(*_two(World(AB))).run("nope", zone(), context(Clock()))


@pytest.mark.looptime
async def test_a_step_that_hangs_is_cut_off() -> None:
    class Hangs(Step):
        name = "a"

        async def run(self, scope: Scope[Any]) -> None:
            await asyncio.Event().wait()

    obj, ctx = zone(), context(Clock())
    with pytest.raises(Transient, match="hung and was cut off after 300s"):
        await engine(PlannedStep(Hangs())).run("flow", obj, ctx)
    assert asyncio.get_running_loop().time() == pytest.approx(300, abs=1)
    assert obj.status.workflow is not None
    assert obj.status.workflow.retries == 1


async def test_an_unexpected_error_becomes_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    world, obj = World(("a",)), zone()
    step = PlannedStep(ScriptedStep("a", world, [("bug", False)]), retries=0)
    with pytest.raises(FlowFailed, match="unexpected KeyError: 'oops'") as caught:
        await _to_its_end(engine(step), obj, context(Clock()))
    assert caught.value.reason == "StepError"
    assert "KeyError" in caplog.text


async def test_observers_see_every_step_and_cannot_break_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[tuple[str, str]] = []

    def breaks(_: StepEvent) -> None:
        raise RuntimeError("observer")

    def watches(event: StepEvent) -> None:
        seen.append((event.when, event.step))

    world, obj = World(AB), zone()
    flows = engine(*_two(world, b=[("terminal", False)]), observers=[breaks, watches])
    with pytest.raises(FlowFailed):
        await _to_its_end(flows, obj, context(Clock()))
    assert seen == [
        ("before", "a"), ("after", "a"), ("before", "b"), ("rollback", "b"), ("rollback", "a"),
    ]  # fmt: skip
    assert "an observer of flow/a failed" in caplog.text


async def test_steps_are_counted() -> None:
    def count(outcome: str) -> float:
        labels = {"flow": "flow", "step": "a", "outcome": outcome}
        return REGISTRY.get_sample_value("kumulus_workflow_steps_total", labels) or 0

    before = {o: count(o) for o in ("waiting", "succeeded", "rolled-back")}
    world, obj = World(AB), zone()
    flows = engine(*_two(world, a=[("waiting", False)], b=[("terminal", False)]))
    with pytest.raises(Waiting):
        await flows.run("flow", obj, context(Clock()))
    with pytest.raises(FlowFailed):
        await _to_its_end(flows, obj, context(Clock()))
    assert {o: count(o) - before[o] for o in before} == dict.fromkeys(before, 1.0)


async def test_cancellation_of_the_task_is_not_a_failure_of_the_step() -> None:
    class Cancelled(Step):
        name = "a"

        async def run(self, scope: Scope[Any]) -> None:
            raise asyncio.CancelledError

    obj = zone()
    with pytest.raises(asyncio.CancelledError):
        await engine(PlannedStep(Cancelled())).run("flow", obj, context(Clock()))
    assert obj.status.workflow is not None
    assert obj.status.workflow.phase == "Running"


@pytest.mark.parametrize(
    ("point", "calls"),
    [
        ("flow:a:before", []),
        ("flow:a:after", ["run a"]),
        ("flow:b:before", ["run a"]),
        ("*:b:rollback", ["run a", "run b"]),
        ("flow:*:before@2", ["run a"]),
        ("flow:*:rollback@2", ["run a", "run b", "rollback b"]),
        ("other:a:before", ["run a", "run b", "rollback b", "rollback a"]),
    ],
)
async def test_a_kill_point_strikes_where_it_says(point: str, calls: list[str]) -> None:
    def kill() -> None:
        raise Crash

    observer = kill_point({"KUMULUS_KILL_AT": point}, kill)
    assert observer is not None
    world, obj = World(AB), zone()
    flows = engine(*_two(world, b=[("terminal", True)]), observers=[observer])
    with pytest.raises((Crash, FlowFailed)):
        await _to_its_end(flows, obj, context(Clock()))
    assert world.calls == calls


def test_a_bad_kill_point_is_refused() -> None:
    assert kill_point({}) is None
    for bad in ("flow", "flow:a", "flow:a:now", "flow:a:before@0", "flow:a:before@x"):
        with pytest.raises(ValueError, match="is no kill point"):
            kill_point({"KUMULUS_KILL_AT": bad})


async def test_terminal_reason_survives_a_restart_in_mid_rollback() -> None:
    world, obj = World(AB), zone()
    steps = _two(world, b=[("terminal", True)], undo_b=[("ok", True)], undo_a=[("crash", False)])
    with pytest.raises(Crash):
        await _to_its_end(engine(*steps), obj, context(Clock()))
    with pytest.raises(FlowFailed, match="it cannot be") as caught:
        await _to_its_end(engine(*steps), reread(obj), context(Clock()))
    assert isinstance(caught.value, Terminal)
    assert not any(world.effects.values())


async def test_a_run_left_in_mid_pass_is_rolled_back_from_the_flows_end() -> None:
    """A controller that died after b, before it could write that b ran, must not leak b."""
    world, obj = World(("a", "b", "c")), zone()
    steps = [
        PlannedStep(
            ScriptedStep("a", world, [("waiting", True), ("ok", True), ("terminal", True)])
        ),
        PlannedStep(ScriptedStep("b", world)),
        PlannedStep(ScriptedStep("c", world, [("crash", True)])),
    ]
    with pytest.raises(Waiting):
        await engine(*steps).run("flow", obj, context(Clock()))
    written = reread(obj)
    with pytest.raises(Crash):
        await engine(*steps).run("flow", obj, context(Clock()))
    assert world.effects == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(FlowFailed) as caught:
        await _to_its_end(engine(*steps), written, context(Clock()))
    assert caught.value.step == "a"
    assert not any(world.effects.values())


async def test_whoever_left_a_run_itself_rolls_back_only_what_ran() -> None:
    world, obj = World(("a", "b")), zone()
    flows = engine(*_two(world, a=[("waiting", True), ("terminal", True)]))
    with pytest.raises(Waiting):
        await flows.run("flow", obj, context(Clock()))
    obj = reread(obj)
    with pytest.raises(FlowFailed):
        await _to_its_end(flows, obj, context(Clock()))
    assert world.calls == ["run a", "run a", "rollback a"]
