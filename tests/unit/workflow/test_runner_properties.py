"""Whatever goes wrong and wherever the controller dies: all effects are there once, or none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import FlowFailed, Transient, Waiting
from controller.workflow.flow import PlannedStep
from tests.unit.workflow.world import (
    Clock,
    Crash,
    Mishap,
    ScriptedStep,
    World,
    context,
    flow_of,
    reread,
    zone,
)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Hundreds of expected failures need no log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


mishaps = st.sampled_from(  # those that make other ones possible come more often
    ["ok", "ok", "waiting", "waiting", "crash", "crash", "terminal", "transient", "bug"]
)
scripts = st.lists(st.tuples(mishaps, st.booleans()), max_size=4)


@dataclass(frozen=True)
class Plan:
    forward: list[tuple[Mishap, bool]]
    backward: list[tuple[Mishap, bool]]
    timeout: float | None
    retries: int | None


plans = st.builds(
    Plan, scripts, scripts, st.sampled_from([None, 5.0, 1000.0]), st.sampled_from([0, 1, 3, None])
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(plans, min_size=1, max_size=5),
    st.none() | st.integers(0, 6),
    st.lists(st.integers(0, 4), max_size=10),
)
async def test_all_or_nothing(flow: list[Plan], cancel_at: int | None, pauses: list[int]) -> None:
    world = World([f"s{i}" for i in range(len(flow))])
    steps = [
        PlannedStep(ScriptedStep(n, world, p.forward, p.backward), p.timeout, p.retries)
        for n, p in zip(world.names, flow, strict=True)
    ]
    clock, written = Clock(), zone()
    outcome = None
    for number in range(200):
        flows, obj, ctx = flow_of(*steps), reread(written), context(clock)
        cancel = cancel_at is not None and number >= cancel_at and flows.running(obj) is not None
        try:
            if cancel:
                await flows.cancel(obj, ctx, "it is deleted")
                outcome = "cancelled"
            else:
                await flows.run("flow", obj, ctx)
                outcome = "done"
        except Crash:
            continue
        except FlowFailed as error:
            assert error.step in world.names
            assert error.reason in {
                "Broken", "Busy", "StepError", "StepTimeout", "Cancelled",
            }  # fmt: skip
            outcome = "failed"
        except (Waiting, Transient) as pause:
            if pause.reason == "Cancelled":
                outcome = "cancelled"
            else:
                assert obj.status.workflow is not None
        written = reread(obj)
        if outcome:
            break
        clock.time += pauses[number] if number < len(pauses) else 0
    assert outcome is not None, "it never ends"
    assert written.status.workflow is None
    assert world.broken == []
    there = {name for name, count in world.effects.items() if count}
    assert all(count <= 1 for count in world.effects.values())
    if outcome == "done":
        assert there == set(world.names)
    else:
        assert there == set()
