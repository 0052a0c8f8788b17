"""One look at an object: what is waited for, what errors become, what is written."""

from __future__ import annotations

import pytest

from controller.errors import Exhausted, Terminal, Transient, Waiting
from controller.keys import Key
from controller.reconcile.actuator import Outcome
from crds.base import FINALIZER
from tests.unit.core.fakes import (
    WORLD,
    running,
)
from tests.unit.core.toys import branch, leaf, trunk

pytestmark = pytest.mark.looptime
T1, B1, L1 = Key("Trunk", "", "t1"), Key("Branch", "", "b1"), Key("Leaf", "ns", "l1")


async def test_a_new_object_becomes_ready_with_two_writes() -> None:
    async with running() as bench:
        bench.api.put(trunk())
        await bench.settle()
        assert bench.condition(T1)["status"] == "True"
        assert bench.condition(T1, "Reconciling")["status"] == "False"
        assert bench.condition(T1, "Stalled")["status"] == "False"
        obj = bench.api.find(T1)
        assert obj is not None
        assert obj["metadata"]["finalizers"] == [FINALIZER]
        assert obj["status"]["observedGeneration"] == 1
        assert [verb for verb, *_ in bench.api.log] == ["user create", "patch", "patch status"]
        assert WORLD.looks == [T1]


async def test_a_finalizer_set_at_creation_is_not_added_again() -> None:
    async with running() as bench:
        obj = trunk()
        obj.metadata.finalizers = ["example.com/other", FINALIZER]
        bench.api.put(obj)
        await bench.settle()
        assert bench.condition(T1)["status"] == "True"
        assert bench.api.requests("patch", "trunks") == []


async def test_nothing_is_written_when_nothing_changes() -> None:
    async with running(resync_interval=10) as bench:
        bench.api.put(trunk())
        await bench.settle(5)
        writes = len(bench.api.log)
        await bench.settle(100)
        assert len(WORLD.looks) > 8, "resyncs look again"
        assert len(bench.api.log) == writes


async def test_a_missing_reference_is_waited_for_by_name_and_its_arrival_wakes() -> None:
    async with running() as bench:
        bench.api.put(branch())
        await bench.settle(100)
        ready = bench.condition(B1)
        assert (ready["status"], ready["reason"]) == ("False", "WaitingForDependency")
        assert "Trunk/t1" in ready["message"]
        assert bench.condition(B1, "Reconciling")["status"] == "True"
        assert B1 not in WORLD.looks, "the actuator is not asked"
        bench.api.put(trunk())
        await bench.settle(0.5)
        assert bench.condition(B1)["status"] == "True"


async def test_a_reference_that_is_not_ready_is_waited_for_with_its_own_reason() -> None:
    async with running() as bench:
        WORLD.outcomes[T1] = Outcome(ready=False, reason="Growing", message="5 rings so far")
        bench.api.put(trunk())
        bench.api.put(branch())
        await bench.settle()
        assert "(Growing)" in bench.condition(B1)["message"]
        WORLD.outcomes[T1] = Outcome()
        bench.core.wake(T1)
        await bench.settle(0.5)
        assert bench.condition(B1)["status"] == "True"


async def test_waiting_has_no_back_off_but_keeps_its_own_appointment() -> None:
    async with running() as bench:
        WORLD.troubles[T1] = [Waiting("the tide", retry_after=30.0), Waiting("the tide")]
        bench.api.put(trunk())
        await bench.settle(20)
        assert len(WORLD.looks) == 1
        await bench.settle(20)
        assert len(WORLD.looks) == 2
        await bench.settle(200)
        assert len(WORLD.looks) == 2
        assert bench.condition(T1)["message"] == "the tide"


async def test_transient_errors_are_retried_with_growing_pauses() -> None:
    async with running() as bench:
        WORLD.troubles[T1] = [Transient("no answer", reason="AgentUnreachable")] * 6
        bench.api.put(trunk())
        await bench.settle(0.04)
        assert bench.condition(T1)["reason"] == "AgentUnreachable"
        assert bench.condition(T1, "Reconciling")["status"] == "True"
        assert bench.condition(T1, "Stalled")["status"] == "False"
        await bench.settle(0.3)
        early = len(WORLD.looks)
        assert 2 <= early <= 4
        await bench.settle(10)
        assert bench.condition(T1)["status"] == "True"
        assert len(WORLD.looks) == 7
        statuses = bench.api.requests("patch status", "trunks")
        assert len(statuses) == 2, "the same error is written once"


async def test_terminal_errors_stall_until_the_spec_changes() -> None:
    async with running(resync_interval=20) as bench:
        WORLD.troubles[T1] = [Terminal("no such wood", reason="BadWood")] * 2
        bench.api.put(trunk())
        await bench.settle(100)
        assert bench.condition(T1, "Stalled")["status"] == "True"
        assert bench.condition(T1, "Reconciling")["status"] == "False"
        assert bench.condition(T1)["reason"] == "BadWood"
        assert len(WORLD.looks) == 1, "resyncs do not try again"
        bench.api.edit(T1, lambda o: o["metadata"].update(labels={"a": "b"}))
        await bench.settle(5)
        assert len(WORLD.looks) == 1, "nor do labels"
        bench.api.edit(T1, lambda o: o["spec"].update(description="better wood"))
        await bench.settle(5)
        assert len(WORLD.looks) == 2
        bench.core.wake(T1)
        await bench.settle(1)
        assert bench.condition(T1)["status"] == "True", "somebody who knows may wake it"


async def test_terminal_with_an_appointment_is_tried_again_then() -> None:
    async with running(resync_interval=7) as bench:
        WORLD.troubles[T1] = [Terminal("later", retry_after=60.0)]
        bench.api.put(trunk())
        await bench.settle(50)
        assert len(WORLD.looks) == 1
        await bench.settle(20)
        assert bench.condition(T1)["status"] == "True"


async def test_a_full_pool_is_asked_again() -> None:
    async with running() as bench:
        WORLD.troubles[T1] = [Exhausted("no room")] * 2
        bench.api.put(trunk())
        await bench.settle(2)
        assert bench.condition(T1, "Stalled")["reason"] == "InsufficientCapacity"
        await bench.settle(80)
        assert bench.condition(T1)["status"] == "True"


async def test_an_unexpected_error_shows_no_trace_to_users(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as bench:
        WORLD.troubles[T1] = [ZeroDivisionError("secret detail")]
        bench.api.put(trunk())
        await bench.settle(0.03)
        ready = bench.condition(T1)
        assert ready["reason"] == "InternalError"
        assert "secret" not in ready["message"] and "Traceback" not in ready["message"]
        assert "ZeroDivisionError" in caplog.text
        await bench.settle(5)
        assert bench.condition(T1)["status"] == "True"


async def test_a_hanging_actuator_is_cut_off() -> None:
    async with running(reconcile_timeout=30) as bench:
        WORLD.delays[T1] = 1e6
        bench.api.put(trunk())
        await bench.settle(31)
        assert bench.condition(T1)["reason"] == "Timeout"
        WORLD.delays.clear()
        await bench.settle(40)
        assert bench.condition(T1)["status"] == "True"


async def test_a_timeout_error_of_the_actuators_own_is_no_cut_off() -> None:
    async with running() as bench:
        WORLD.troubles[T1] = [TimeoutError()]
        bench.api.put(trunk())
        await bench.settle(0.03)
        assert bench.condition(T1)["reason"] == "InternalError"


async def test_transition_times_change_only_with_the_status() -> None:
    async with running() as bench:
        WORLD.outcomes[T1] = Outcome(ready=False, reason="One")
        bench.api.put(trunk())
        await bench.settle(10)
        first = bench.condition(T1)["lastTransitionTime"]
        WORLD.outcomes[T1] = Outcome(ready=False, reason="Two")
        bench.core.wake(T1)
        await bench.settle(10)
        assert bench.condition(T1)["reason"] == "Two"
        assert bench.condition(T1)["lastTransitionTime"] == first
        WORLD.outcomes[T1] = Outcome()
        bench.core.wake(T1)
        await bench.settle(10)
        assert bench.condition(T1)["lastTransitionTime"] > first


async def test_an_object_that_cannot_be_parsed_is_stalled_and_mended_by_an_edit() -> None:
    async with running() as bench:
        bench.api.put(trunk())
        await bench.settle()
        bench.api.edit(T1, lambda o: o["spec"].update(size="many"))
        await bench.settle()
        stalled = bench.condition(T1, "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
        assert "spec.size" in stalled["message"]
        looks = len(WORLD.looks)
        bench.api.edit(T1, lambda o: o["spec"].update(size=3))
        await bench.settle()
        assert bench.condition(T1)["status"] == "True"
        assert len(WORLD.looks) == looks + 1


async def test_an_object_with_a_broken_status_is_stalled_too() -> None:
    async with running() as bench:
        bench.api.put(leaf())
        await bench.settle()
        bench.api.edit(L1, lambda o: o["status"].update(value="what", conditions="none"))
        await bench.settle()
        assert bench.condition(L1, "Stalled")["reason"] == "InvalidSpec"


async def test_an_edit_during_the_look_does_not_lose_the_status() -> None:
    async with running() as bench:
        WORLD.delays[T1] = 1.0
        bench.api.put(trunk())
        await bench.settle(0.5)
        bench.api.edit(T1, lambda o: o["metadata"].update(labels={"a": "b"}))
        await bench.settle(1.0)
        assert bench.condition(T1)["status"] == "True"
        obj = bench.api.find(T1)
        assert obj is not None and obj["metadata"]["labels"] == {"a": "b"}


async def test_a_status_of_somebody_else_is_not_overwritten_by_a_stale_look() -> None:
    async with running() as bench:
        bench.api.put(leaf())
        await bench.settle()
        WORLD.delays[L1] = 1.0
        WORLD.troubles[L1] = [Terminal("stale view")]
        bench.core.wake(L1)
        await bench.settle(0.5)
        bench.api.edit(L1, lambda o: o["status"].update(note="from the new owner"))
        await bench.settle(0.6)
        obj = bench.api.find(L1)
        assert obj is not None and obj["status"]["note"] == "from the new owner"
        assert bench.condition(L1)["reason"] != "Failed"


async def test_a_bad_api_does_not_stop_anything() -> None:
    async with running() as bench:
        bench.api.faults = [Transient("bad moment")] * 5
        bench.api.put(trunk())
        bench.api.put(branch())
        await bench.settle(30)
        assert bench.condition(T1)["status"] == "True"
        assert bench.condition(B1)["status"] == "True"


async def test_watches_wake_what_they_name() -> None:
    async with running() as bench:
        bench.api.put(trunk())
        bench.api.put(branch())
        bench.api.put(leaf())
        await bench.settle()
        before = WORLD.looks.count(L1)
        bench.api.edit(B1, lambda o: o["metadata"].update(annotations={"wakes": "ns.l1"}))
        await bench.settle(1)
        assert WORLD.looks.count(L1) == before + 1


async def test_counters_wake_nobody_and_state_wakes_referrers() -> None:
    async with running() as bench:
        bench.api.put(trunk())
        bench.api.put(branch())
        await bench.settle()
        looks = WORLD.looks.count(B1)
        bench.api.edit(T1, lambda o: o["status"].update(usedIps=4))
        await bench.settle(1)
        assert WORLD.looks.count(B1) == looks
        bench.api.edit(T1, lambda o: o["status"].update(state="Disabled"))
        await bench.settle(1)
        assert WORLD.looks.count(B1) == looks + 1


async def test_events_tell_of_trouble_once() -> None:
    async with running() as bench:
        WORLD.troubles[T1] = [Transient("no answer", reason="AgentUnreachable")] * 5
        bench.api.put(trunk())
        await bench.settle(60)
        events = [o for (plural, *_), o in bench.api.objects.items() if plural == "events"]
        assert [(e["reason"], e["type"]) for e in events] == [("AgentUnreachable", "Warning")]
        assert events[0]["involvedObject"]["name"] == "t1"
        assert events[0]["metadata"]["namespace"] == "default"
