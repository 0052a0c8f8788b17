"""Parallel groups, conditions, back-off, cancellation by a changed spec, and the start's record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from controller.errors import FlowFailed, Terminal, Transient, Waiting
from controller.workflow.backoff import Backoff
from controller.workflow.condition import BadCondition, parse
from controller.workflow.flow import DEFAULT_RETRIES, Flow, FlowError, Guard, PlannedStep, Steps
from controller.workflow.loader import load
from controller.workflow.step import Scope, Step
from crds.v1alpha1.virtual_machine import VirtualMachine
from crds.v1alpha1.zone import Zone
from tests.unit.workflow.world import Clock, Recorded, context, flow_of, reread, zone


class Act(Step):
    """Says what it does; goes wrong as it is told, call by call."""

    def __init__(self, name: str, said: list[str], *errors: Exception | None) -> None:
        self.name = name  # type: ignore[misc]
        self.said, self.errors = said, list(errors)

    async def run(self, scope: Scope[Any]) -> None:
        self.said.append(f"begin {scope.step}")
        await asyncio.sleep(0)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.said.append(f"end {self.name}")

    async def rollback(self, scope: Scope[Any]) -> None:
        self.said.append(f"undo {scope.step}")


def parallel(*branches: list[Act]) -> list[PlannedStep]:
    return [
        PlannedStep(step, group=1, branch=number)
        for number, branch in enumerate(branches)
        for step in branch
    ]


def recorded(*steps: PlannedStep, **more: Any) -> Recorded:
    return Recorded({"flow": Flow("flow", "Zone", steps, **more)}, chance=lambda: 0.5)


# -- parallel groups


async def test_branches_run_at_the_same_time_and_each_in_order() -> None:
    said: list[str] = []
    a, b, c, d = (Act(name, said) for name in "abcd")
    flows, obj = recorded(*parallel([a, b], [c]), PlannedStep(d)), zone()
    await flows.run("flow", obj, context(Clock()))
    assert said.index("begin c") < said.index("end a") < said.index("begin b")
    assert said[-2:] == ["begin d", "end d"]
    assert said.index("end c") < said.index("begin d")
    assert obj.status.workflow is None


async def test_a_branch_that_waits_does_not_run_the_others_again() -> None:
    said: list[str] = []
    steps = parallel(
        [Act("a", said), Act("b", said, Waiting("not yet", retry_after=9))],
        [Act("c", said, Waiting("nor this", retry_after=3))],
        [Act("d", said)],
    )
    obj = zone()
    with pytest.raises(Waiting) as paused:
        await recorded(*steps).run("flow", obj, context(Clock()))
    assert paused.value.retry_after == 3, "the shortest pause counts"
    workflow = obj.status.workflow
    assert workflow is not None
    assert workflow.progress == "steps 1-4 of 4: b, c"
    assert [(b.step, b.done) for b in workflow.branches] == [
        ("b", False), ("c", False), ("d", True),
    ]  # fmt: skip
    del said[:]
    await recorded(*steps).run("flow", reread(obj), context(Clock()))
    assert said == ["begin b", "begin c", "end b", "end c"]


async def test_a_failing_branch_turns_the_flow_once_the_others_paused() -> None:
    said: list[str] = []
    steps = [
        PlannedStep(Act("first", said)),
        *parallel([Act("a", said, Terminal("broken", reason="Broken"))],
                  [Act("b", said, Waiting("not yet")), Act("c", said)]),
        PlannedStep(Act("last", said)),
    ]  # fmt: skip
    obj, flows, ctx = zone(), recorded(*steps), context(Clock())
    with pytest.raises(Waiting) as turned:
        await flows.run("flow", obj, ctx)
    assert turned.value.reason == "RollingBack"
    with pytest.raises(FlowFailed, match="broken") as failed:
        await flows.run("flow", obj, ctx)
    assert failed.value.step == "a"
    assert said[-4:] == ["undo c", "undo b", "undo a", "undo first"]
    assert "undo last" not in said


async def test_an_error_that_passes_comes_before_a_pause_and_counts_for_its_branch() -> None:
    said: list[str] = []
    steps = parallel([Act("a", said, Waiting("not yet"))], [Act("b", said, *[Transient("no")] * 2)])
    obj = zone()
    with pytest.raises(Transient, match="no"):
        await recorded(*steps).run("flow", obj, context(Clock()))
    assert obj.status.workflow is not None
    assert [b.retries for b in obj.status.workflow.branches] == [0, 1]


async def test_a_branch_has_timeouts_of_its_own() -> None:
    said: list[str] = []
    waits = [Waiting("not yet")] * 5
    steps = parallel([Act("a", said, *waits)], [Act("b", said, *waits)])
    steps[1] = PlannedStep(steps[1].step, timeout=30, group=1, branch=1)
    obj, clock = zone(), Clock()
    with pytest.raises(Waiting) as paused:
        await recorded(*steps).run("flow", obj, context(clock))
    assert paused.value.retry_after == pytest.approx(30)
    clock.time += 31
    with pytest.raises(Waiting, match="b took longer than 30s") as turned:
        await recorded(*steps).run("flow", reread(obj), context(clock))
    assert turned.value.reason == "RollingBack"


# -- conditions


def guarded(*steps: Step, source: str) -> list[PlannedStep]:
    guard = Guard(parse(source, Zone), tuple(step.name for step in steps))
    return [PlannedStep(step, guards=(guard,)) for step in steps]


async def test_a_condition_leaves_steps_out_and_the_status_says_which() -> None:
    said: list[str] = []
    steps = [
        PlannedStep(Act("a", said)),
        *guarded(Act("b", said), Act("c", said), source="self.metadata.name == 'other'"),
        *guarded(Act("d", said), source="self.metadata.name == 'z'"),
        PlannedStep(Act("e", said, Waiting("not yet"))),
    ]
    obj = zone()
    with pytest.raises(Waiting):
        await recorded(*steps).run("flow", obj, context(Clock()))
    assert said == ["begin a", "end a", "begin d", "end d", "begin e"]
    assert obj.status.workflow is not None
    assert obj.status.workflow.skipped == ["b", "c"]


async def test_a_condition_is_asked_once_a_run() -> None:
    said: list[str] = []
    source = "self.status.state == ''"
    steps = [
        *guarded(Act("a", said), Act("b", said, Waiting("not yet")), source=source),
        *guarded(Act("c", said), source=source),
    ]
    obj = zone()
    with pytest.raises(Waiting):
        await recorded(*steps).run("flow", obj, context(Clock()))
    obj.status.state = "Enabled"
    await recorded(*steps).run("flow", obj, context(Clock()))
    assert said[-1] == "end b", "b had begun; c was asked anew"
    assert "begin c" not in said


async def test_a_condition_that_cannot_be_answered_fails_the_flow_and_says_how_to_mend_it() -> None:
    said: list[str] = []
    steps = [
        PlannedStep(Act("a", said)),
        *guarded(Act("b", said), source="self.spec.description == 'x'"),
    ]
    obj, flows, ctx = zone(), recorded(*steps), context(Clock())
    with pytest.raises(Waiting, match=r"guard what may be absent with has\(…\)"):
        await flows.run("flow", obj, ctx)
    with pytest.raises(FlowFailed):
        await flows.run("flow", obj, ctx)
    assert said[-1] == "undo a"


async def test_a_whole_group_may_be_left_out() -> None:
    said: list[str] = []
    guard = Guard(parse("false", Zone), ("a", "b"))
    steps = [
        PlannedStep(Act(name, said), guards=(guard,), group=1, branch=number)
        for number, name in enumerate("ab")
    ]
    obj = zone()
    await recorded(*steps, PlannedStep(Act("c", said))).run("flow", obj, context(Clock()))
    assert said == ["begin c", "end c"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("self.spec.nicks.size() > 0", "VirtualMachine has no field spec.nicks; there are: "),
        ("self.spec.placement.host == 'x'", "has no field spec.placement.host"),
        ("size(self.spec.nics)", "neither true nor false"),
        ("self.spec.nics +", "yntax error"),
        ("other.spec", "undeclared reference"),
    ],
)
def test_a_bad_condition_is_found_when_it_is_read(source: str, complaint: str) -> None:
    with pytest.raises(BadCondition, match=complaint):
        parse(source, VirtualMachine)


def test_conditions_speak_of_lists_options_and_strings() -> None:
    vm = VirtualMachine.model_validate({
        "metadata": {"name": "v", "uid": "u", "labels": {"app": "shop"}},
        "spec": {"imageRef": {"name": "i"}, "cpu": 1, "memory": "1Gi",
                 "nics": [{"name": "eth0", "l3NetworkRef": {"name": "n"}}]}})  # fmt: skip
    for source in (
        "size(self.spec.nics) == 1",
        "!has(self.spec.hostname) && self.spec.cpu < 2",
        "self.spec.nics.exists(n, n.l3NetworkRef.name == 'n')",
        "self.metadata.labels.app.startsWith('sh')",
        "'self.nonsense' != ''",
    ):
        assert parse(source, VirtualMachine).holds(vm), source


# -- back-off


async def test_a_back_off_holds_whatever_wakes_the_key() -> None:
    said: list[str] = []
    step = PlannedStep(
        Act("a", said, *[Transient("no", reason="Busy")] * 3), backoff=Backoff(2, longest=5)
    )
    flows, obj, clock = flow_of(step), zone(), Clock()
    with pytest.raises(Waiting):
        await flows.run("flow", obj, context(clock))
    for pause in (2, 4, 5):
        with pytest.raises(Transient) as failed:
            await flows.run("flow", obj, context(clock))
        assert failed.value.retry_after == pytest.approx(pause)
        clock.time += pause - 0.5
        calls = len(said)
        with pytest.raises(Transient) as held:
            await flows.run("flow", obj, context(clock))
        assert (held.value.reason, len(said)) == ("Busy", calls), "it was tried too early"
        assert held.value.retry_after == pytest.approx(0.5)
        clock.time += 0.6
    await flows.run("flow", obj, context(clock))


async def test_no_back_off_outlasts_the_timeout() -> None:
    step = PlannedStep(Act("a", [], Transient("no")), timeout=10, backoff=Backoff(60))
    obj = zone()
    with pytest.raises(Transient) as failed:
        await recorded(step).run("flow", obj, context(Clock()))
    assert failed.value.retry_after == pytest.approx(10)


@given(
    st.builds(
        Backoff, st.floats(0.001, 60), st.floats(60, 3600), st.floats(1, 10), st.floats(0, 1)
    ),
    st.integers(1, 10_000),
    st.floats(0, 1),
)
def test_pauses_grow_within_their_bounds(backoff: Backoff, failures: int, chance: float) -> None:
    low, high = (backoff.pause(failures, c) for c in (0, 1))
    assert low <= backoff.pause(failures, chance) <= high
    assert low >= 0
    assert high <= backoff.longest * (1 + backoff.jitter) + 1e-9
    assert backoff.pause(failures + 1, chance) >= backoff.pause(failures, chance) - 1e-9


# -- the start's record


async def test_nothing_that_a_rollback_removes_happens_before_the_start_is_written() -> None:
    said: list[str] = []

    class Looks(Step):
        name = "look"
        no_rollback = "it only looks"

        async def run(self, scope: Scope[Any]) -> None:
            said.append("look")

    flows, obj = flow_of(PlannedStep(Looks()), PlannedStep(Act("a", said))), zone()
    with pytest.raises(Waiting) as paused:
        await flows.run("flow", obj, context(Clock()))
    assert (paused.value.reason, said) == ("Recording", ["look"])
    assert obj.status.workflow is not None
    assert obj.status.workflow.step == "a"
    run_id = obj.status.workflow.run_id
    with pytest.raises(Waiting):  # the write was lost: whoever comes next begins anew
        await flow_of(PlannedStep(Looks()), PlannedStep(Act("a", said))).run(
            "flow", zone(), context(Clock())
        )
    assert said == ["look", "look"]
    await flows.run("flow", reread(obj), context(Clock()))
    assert said[-2:] == ["begin a", "end a"]
    assert run_id


async def test_a_flow_without_rollbacks_costs_no_write_of_its_own() -> None:
    class Looks(Step):
        name = "look"
        no_rollback = "it only looks"

        async def run(self, scope: Scope[Any]) -> None:
            return None

    obj = zone()
    await flow_of(PlannedStep(Looks())).run("flow", obj, context(Clock()))
    assert obj.status.workflow is None


async def test_a_run_without_a_record_that_fails_is_rolled_back_whole() -> None:
    """Its predecessor may have been killed anywhere, and nobody wrote that down."""
    said: list[str] = []
    steps = [PlannedStep(Act("a", said, Terminal("broken"))), PlannedStep(Act("b", said))]
    flows, obj, ctx = flow_of(*steps, record=False), zone(), context(Clock())
    with pytest.raises(Waiting, match="broken"):
        await flows.run("flow", obj, ctx)
    with pytest.raises(FlowFailed):
        await flows.run("flow", obj, ctx)
    assert said == ["begin a", "undo b", "undo a"]


# -- a changed spec


async def test_a_change_of_what_the_run_depends_on_rolls_it_back_from_where_it_is() -> None:
    said: list[str] = []
    steps = [PlannedStep(Act("a", said)), PlannedStep(Act("b", said, *[Waiting("not yet")] * 9))]
    flows, obj, ctx = recorded(*steps, cancel_on=("spec.description",)), zone(), context(Clock())
    with pytest.raises(Waiting, match="not yet"):
        await flows.run("flow", obj, ctx)
    obj = reread(obj)
    with pytest.raises(Waiting, match="not yet"):
        await flows.run("flow", obj, ctx)
    obj.spec.description = "another"
    with pytest.raises(Waiting, match=r"spec\.description was changed") as turned:
        await flows.run("flow", obj, ctx)
    assert turned.value.reason == "RollingBack"
    with pytest.raises(Waiting) as cancelled:
        await flows.run("flow", obj, ctx)
    assert cancelled.value.reason == "Cancelled"
    assert said[-2:] == ["undo b", "undo a"]
    assert obj.status.workflow is None, "what is needed now is decided anew"
    reasons = [reason for _, _, reason, _ in ctx.events.seen]  # type: ignore[attr-defined]
    assert reasons == ["FlowCancelled", "RolledBack"]


# -- telling


async def test_events_tell_of_slow_steps_failures_and_resumed_runs() -> None:
    steps = [PlannedStep(Act("a", [], *[Waiting("no luck yet")] * 3, Terminal("broken")))]
    obj, clock = zone(), Clock()
    flows, ctx = recorded(*steps), context(clock)
    for _ in range(3):
        with pytest.raises(Waiting):
            await flows.run("flow", obj, ctx)
        clock.time += 31
    flows = recorded(*steps)  # another process
    with pytest.raises(Waiting):
        await flows.run("flow", reread(obj), ctx)
    assert [(kind, reason, what) for kind, _, reason, what in ctx.events.seen] == [  # type: ignore[attr-defined]
        ("Normal", "FlowProgress", "flow: step 1 of 1: a: no luck yet"),
        ("Normal", "FlowResumed", "flow: step 1 of 1: a"),
        ("Warning", "FlowFailed",
         "flow: step a failed, what was done is undone: broken"),
    ]  # fmt: skip


async def test_how_long_a_step_lasted_is_measured_pauses_included() -> None:
    def total() -> float:
        labels = {"flow": "flow", "step": "lasting"}
        name = "kumulus_workflow_step_lasted_seconds_sum"
        return REGISTRY.get_sample_value(name, labels) or 0

    before, clock, obj = total(), Clock(), zone()
    flows = recorded(PlannedStep(Act("lasting", [], Waiting("not yet"))))
    with pytest.raises(Waiting):
        await flows.run("flow", obj, context(clock))
    clock.time += 7
    await flows.run("flow", obj, context(clock))
    assert total() - before == pytest.approx(7)


# -- as it is written


def _steps() -> Steps:
    found = Steps()
    found.models["Zone"] = Zone
    for name in "abcdef":
        attributes = {"name": name, "no_rollback": "it only looks"}
        found.add(type(f"Step{name}", (Step,), attributes), "Zone")
    found.add(type("Careless", (Step,), {"name": "careless"}), "Zone")
    return found


HEAD = "name: f\nkind: Zone\n"


def test_everything_that_a_flow_may_say(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(
        HEAD
        + """\
cancelOn: [spec.description]
record: false
steps:
  - {step: a, backoff: 2s, retries: 3}
  - {step: b, backoff: {first: 500ms, longest: 10s, factor: 3, jitter: 0.5}, when: "true"}
  - parallel:
      - c
      - {flow: g, when: self.spec.state == 'Enabled'}
    when: has(self.spec.description)
  - f
"""
    )
    (tmp_path / "g.yaml").write_text("name: g\nkind: Zone\nsteps: [d, {step: e, timeout: 1m}]\n")
    flow = load(tmp_path, _steps())["f"]
    assert [[[s.name for s in b] for b in stage.branches] for stage in flow.stages] == [
        [["a"]], [["b"]], [["c"], ["d", "e"]], [["f"]],
    ]  # fmt: skip
    assert flow.cancel_on == ("spec.description",)
    assert not flow.record
    a, b, c, d, e, f = flow.steps
    assert (a.backoff, a.retries) == (Backoff(2), 3)
    assert b.backoff == Backoff(0.5, 10, 3, 0.5)
    assert (c.retries, e.timeout, e.path, f.guards) == (DEFAULT_RETRIES, 60, ("g",), ())
    assert [g.covers for g in d.guards] == [("c", "d", "e"), ("d", "e")]
    assert [g.condition.source for g in c.guards] == ["has(self.spec.description)"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("steps:\n - a\n - careless", r"f.yaml:5: step 'careless' \(.*Careless\) has no"),
        ("steps:\n - {step: a, when: self.spec.nope}", "f.yaml:4: bad condition: Zone has no"),
        ("steps:\n - parallel: [a, {parallel: [b]}]", "f.yaml:4: a parallel group is within"),
        ("steps:\n - parallel: []", "f.yaml:4: parallel is a list with at least one step"),
        ("steps:\n - parallel: [a,\n  a]", "f.yaml:5: step 'a' is in flow 'f' twice"),
        ("steps: [{step: a, backoff: soon}]", "f.yaml:3: bad backoff 'soon'"),
        ("steps: [{step: a, backoff: {longest: 1s}}]", "f.yaml:3: backoff has no first"),
        ("steps: [{step: a, backoff: {first: 2s, longest: 1s}}]", "longest is shorter than first"),
        ("steps: [{step: a, backoff: {first: 2s, jitter: 2}}]", "f.yaml:3: bad jitter '2'"),
        ("steps: [{step: a, backoff: [2s]}]", "f.yaml:3: backoff is a time, or"),
        ("cancelOn: [spec.nope]\nsteps: [a]", "f.yaml:3: cancelOn: Zone has no field spec.nope"),
        ("cancelOn: [status.state]\nsteps: [a]", "f.yaml:3: bad field 'status.state'"),
        ("record: no\nsteps: [a]", "f.yaml:3: bad record 'no'; write true or false"),
        ("cancelOn: []\nsteps: [a]", "f.yaml:3: cancelOn is a list of fields"),
        ("steps: [{parallel: [a], retries: 1}]", "f.yaml:3: unknown field 'retries'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "f.yaml").write_text(HEAD + text)
    with pytest.raises(FlowError, match=complaint):
        load(tmp_path, _steps())
