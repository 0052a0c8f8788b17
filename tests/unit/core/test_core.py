"""The whole core: lost events, other controllers, an API server that comes and goes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.client import NotFound
from controller.errors import Transient
from controller.events import BURST, EventRecorder
from controller.keys import Key
from controller.watch.base import Change
from crds.base import ObjectMeta
from tests.unit.core.fakes import (
    WORLD,
    FakeApi,
    FakeSource,
    Leaf,
    LoopClock,
    in_virtual_time,
    running,
)
from tests.unit.core.toys import branch, trunk

T1, B1 = Key("Trunk", "", "t1"), Key("Branch", "", "b1")


@pytest.mark.looptime
async def test_a_lost_deletion_is_found_and_acted_upon() -> None:
    api = FakeApi()
    source = FakeSource(api, loses=lambda change, *_: change is Change.GONE)
    async with running(api, source, compare_interval=60) as bench:
        bench.api.put(trunk())
        await bench.settle()
        place = ("trunks", "", "t1")
        gone = bench.api.objects.pop(place)  # as if its finalizer was forced off in a gap
        bench.api.watchers.clear()
        await bench.settle(61)
        assert bench.core.store.entry(T1) is None
        assert gone["metadata"]["uid"]


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.floats(0.0, 0.9))
def test_whatever_the_watch_loses_the_store_ends_as_the_server(seed: int, odds: float) -> None:
    rng = random.Random(seed)

    async def scenario() -> None:
        api = FakeApi()
        source = FakeSource(api, lag=lambda: rng.random() * 3, loses=lambda *_: rng.random() < odds)
        async with running(api, source, compare_interval=20) as bench:
            names = [f"t{n}" for n in range(6)]
            for _ in range(40):
                key = Key("Trunk", "", rng.choice(names))
                if api.find(key) is None:
                    api.put(trunk(key.name))
                elif rng.random() < 0.4:
                    api.remove(key)
                else:
                    api.edit(key, lambda o: o["spec"].update(size=rng.randrange(9)))
                await asyncio.sleep(rng.random() * 4)
            await bench.settle(100)
            for key in api.keys() | set(bench.core.store.keys("Trunk")):
                obj, entry = api.find(key), bench.core.store.entry(key)
                assert obj is not None and entry is not None
                assert str(entry.version) == obj["metadata"]["resourceVersion"]
                assert bench.condition(key)["status"] == "True"

    in_virtual_time(scenario)


@pytest.mark.looptime
async def test_work_starts_only_when_everything_is_known() -> None:
    """A branch listed before its trunk must not be told that the trunk is missing."""
    api = FakeApi()
    for n in range(20):
        api.put(branch(f"b{n}"))
    api.put(trunk())
    async with running(api) as bench:
        await bench.settle()
        writes = [b for b in bench.api.requests("patch status", "branches") if "status" in b]
        texts = [c["message"] for b in writes for c in b["status"].get("conditions", [])]
        assert not any("does not exist" in text for text in texts)
        assert all(bench.condition(Key("Branch", "", f"b{n}"))["status"] == "True"
                   for n in range(20))  # fmt: skip


@pytest.mark.looptime
async def test_it_waits_for_kinds_and_server_and_stops_while_waiting() -> None:
    class Bare(FakeApi):
        async def served(self, group: str, version: str) -> set[str]:
            await asyncio.sleep(0.01)
            return {"trunks"} if asyncio.get_running_loop().time() < 30 else {
                "trunks", "branches", "leaves",
            }  # fmt: skip

    api = Bare()
    api.put(trunk())
    async with running(api) as bench:
        await bench.settle(20)
        assert bench.core.ready() == "the store is not filled yet"
        assert WORLD.looks == []
        await bench.settle(30)
        assert bench.core.ready() is True
        assert WORLD.looks == [T1]
    async with running(Bare()) as bench:
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 1


@pytest.mark.looptime
async def test_work_under_way_is_cancelled_with_the_lease_and_done_again() -> None:
    api = FakeApi()
    async with running(api, lease_duration=15) as bench:
        WORLD.delays[T1] = 1e5
        api.put(trunk())
        await bench.settle(10)
        api.faults = [Transient("no answer")] * 22
        await bench.settle(14)
        assert not bench.core.member.alive and not WORLD.running
        WORLD.delays.clear()
        await bench.settle(60)
        assert bench.condition(T1)["status"] == "True"


@pytest.fixture
async def recorder() -> AsyncIterator[tuple[FakeApi, EventRecorder]]:
    api = FakeApi()
    recorder = EventRecorder(api, LoopClock(), "me")
    task = asyncio.create_task(recorder.run())
    yield api, recorder
    task.cancel()


def events_of(api: FakeApi) -> list[dict[str, Any]]:
    return [obj for (plural, *_), obj in api.objects.items() if plural == "events"]


@pytest.mark.looptime
async def test_equal_events_are_counted(recorder: tuple[FakeApi, EventRecorder]) -> None:
    api, events = recorder
    leaf = Leaf(metadata=ObjectMeta(name="l", namespace="ns", uid="u"))
    for _ in range(4):
        events.warning(leaf, "Failed", "the same")
        await asyncio.sleep(1)
    events.normal(leaf, "Started", "another")
    await asyncio.sleep(1)
    assert [(e["reason"], e["count"]) for e in events_of(api)] == [("Failed", 4), ("Started", 1)]
    assert all(e["metadata"]["namespace"] == "ns" for e in events_of(api))
    api.objects.clear()  # events live for an hour only
    events.warning(leaf, "Failed", "the same")
    await asyncio.sleep(1)
    assert [e["count"] for e in events_of(api)] == [1]


@pytest.mark.looptime
async def test_a_chatterbox_is_rationed_and_others_are_not(
    recorder: tuple[FakeApi, EventRecorder],
) -> None:
    api, events = recorder
    loud = Leaf(metadata=ObjectMeta(name="loud", namespace="ns", uid="u1"))
    calm = Leaf(metadata=ObjectMeta(name="calm", namespace="ns", uid="u2"))
    for n in range(200):
        events.warning(loud, "Talk", str(n))
    events.normal(calm, "Hello", "there")
    await asyncio.sleep(10)
    names = [e["involvedObject"]["name"] for e in events_of(api)]
    assert names.count("loud") == BURST and names.count("calm") == 1


@pytest.mark.looptime
async def test_events_survive_refusals_and_a_stuck_api(
    recorder: tuple[FakeApi, EventRecorder],
) -> None:
    api, events = recorder
    leaf = Leaf(metadata=ObjectMeta(name="l", namespace="ns", uid="u"))
    api.faults = [Transient("no"), NotFound("no such namespace"), ValueError("a defect")]
    for n in range(5):
        events.normal(leaf, "Note", str(n))
    await asyncio.sleep(5)
    assert [e["message"] for e in events_of(api)] == ["3", "4"]
