"""Several cores on one API server: who works on what, and what a new owner has seen before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.core import Core
from controller.keys import Key
from controller.reconcile.actuator import Actuator
from controller.settings import Settings
from controller.sharding.arcs import NOTHING
from crds.base import ObjectMeta
from tests.support.fakes import FakeLedger
from tests.unit.core.fakes import WORLD, FakeApi, FakeSource, Leaf, LoopClock, Trunk, toy_registry

LEAVES = [Key("Leaf", "default", f"l{number}") for number in range(40)]


@asynccontextmanager
async def core(
    api: FakeApi, identity: str, source: FakeSource | None = None
) -> AsyncIterator[Core]:
    settings = Settings(lease_duration=10)
    made = Core(settings, toy_registry(), api, identity, LoopClock())  # type: ignore[arg-type]
    made.equip(agents=None, ledger=None, flows=None)  # type: ignore[arg-type]
    stopping = asyncio.Event()
    task = asyncio.create_task(made.run(source or FakeSource(api), stopping))
    await asyncio.sleep(2.0)
    try:
        yield made
    finally:
        stopping.set()
        await asyncio.wait_for(task, 60)
    assert WORLD.overlaps == []


@pytest.fixture
def api() -> FakeApi:
    WORLD.__init__()  # type: ignore[misc]
    api = FakeApi()
    rng = random.Random(1)  # numbers in a row would lie side by side on the ring
    api._uid = iter(lambda: rng.getrandbits(128), -1)  # type: ignore[assignment]
    for key in LEAVES:
        api.put(Leaf(metadata=ObjectMeta(name=key.name, namespace=key.namespace)))
    return api


def poke(api: FakeApi, key: Key, note: str) -> None:
    def change(obj: dict[str, Any]) -> None:
        obj["metadata"].setdefault("annotations", {})["note"] = note

    api.edit(key, change)


@pytest.mark.looptime
async def test_each_object_is_looked_at_by_its_owner_alone(api: FakeApi) -> None:
    async with core(api, "one") as one, core(api, "two") as two:
        await asyncio.sleep(5)
        WORLD.looks.clear()
        for key in LEAVES:
            poke(api, key, "x")
        await asyncio.sleep(2)
        assert sorted(WORLD.looks) == sorted(LEAVES), "once each"
        for each in (one, two):
            assert all(len(queue._ready) == 0 for queue in each.queues._queues.values())
            note = each.member.journal.note
            entries = [each.store.entry(key) for key in LEAVES]
            assert note.keys == sum(bool(e) and each.member.owns(e.uid) for e in entries if e)
            assert 0 < note.keys < len(LEAVES)


@pytest.mark.looptime
async def test_foreign_keys_do_not_enter_the_queues(api: FakeApi) -> None:
    async with core(api, "one") as one, core(api, "two"):
        await asyncio.sleep(5)
        queue = one.queues._queues["Leaf"]
        queue._running = False
        for key in LEAVES:
            one.wake(key)
        mine = {key for key in LEAVES if (e := one.store.entry(key)) and one.member.owns(e.uid)}
        assert {key for key in LEAVES if key in queue._ready} == mine
        queue.start()


@pytest.mark.looptime
async def test_a_new_owner_knows_what_the_one_before_wrote_though_its_watch_lags(
    api: FakeApi,
) -> None:
    """Otherwise it would do again what is done."""
    slow = FakeSource(api, lag=lambda: 500.0)
    async with core(api, "one") as one, core(api, "two", slow) as two:
        await asyncio.sleep(5)
        for key in LEAVES:
            poke(api, key, "seen")
        await asyncio.sleep(2)
        stale = [key for key in LEAVES if b"seen" not in _raw(two, key)]
        assert stale == LEAVES, "two's watch lags"
        entries = [entry for key in stale if (entry := two.store.entry(key)) is not None]
        foreign = [entry for entry in entries if one.member.owns(entry.uid)]
        seen: list[bool] = []
        actuator: Actuator[Any] = two.registry.actuators["Leaf"]
        before = actuator.reconcile

        async def watched(obj: Any, ctx: Any) -> Any:
            seen.append(obj.metadata.annotations.get("note") == "seen")
            return await before(obj, ctx)

        actuator.reconcile = watched  # type: ignore[method-assign]
        await one.member.leave()
        await asyncio.sleep(3)
        assert len(seen) == len(foreign) > 0 and all(seen)


def _raw(core: Core, key: Key) -> bytes:
    entry = core.store.entry(key)
    assert entry is not None
    return entry.raw


@pytest.mark.looptime
async def test_work_under_way_is_ended_before_another_begins(api: FakeApi) -> None:
    rng = random.Random(3)
    for key in LEAVES:
        WORLD.delays[key] = rng.choice((0.01, 0.2, 5.0, 60.0))
    async with core(api, "one"):
        for number in range(4):
            async with core(api, f"other-{number}"):
                await asyncio.sleep(rng.uniform(0.0, 8.0))
        WORLD.delays.clear()
        await asyncio.sleep(300)
    for key in LEAVES:
        found = api.find(key)
        assert found is not None and found["status"]["conditions"]


@pytest.mark.looptime
async def test_an_object_made_anew_under_its_name_is_drained_with_the_old_one(
    api: FakeApi,
) -> None:
    key = Key("Trunk", "", "t")
    api.put(Trunk(metadata=ObjectMeta(name="t")))
    async with core(api, "one") as one:
        WORLD.delays[key] = 500.0
        poke(api, key, "again")
        await asyncio.sleep(3)
        assert one._reconcilers["Trunk"].working[key] and WORLD.running.get(key)
        uid = one._reconcilers["Trunk"].working[key]
        arcs = one.member.arcs
        one.store.forget(key)  # gone: what works on it is known all the same
        assert await one.handover.drain(arcs, 0.0) and not WORLD.running.get(key)
        assert uid and one.member.arcs != NOTHING


@pytest.mark.looptime
async def test_what_is_taken_by_force_is_fenced_in_the_ledger_before_it_is_served(
    api: FakeApi,
) -> None:
    def equipped(identity: str, ledger: FakeLedger) -> Core:
        made = Core(Settings(lease_duration=10), toy_registry(), api, identity, LoopClock())  # type: ignore[arg-type]
        made.equip(agents=None, ledger=ledger, flows=None, fence=told)  # type: ignore[arg-type]
        return made

    async def told(endpoint: Any, generation: int) -> None:
        raise AssertionError("there are no agents")

    ledgers = FakeLedger(), FakeLedger()
    first, second = (equipped(name, ledger) for name, ledger in zip("ab", ledgers, strict=True))
    task = asyncio.create_task(first.run(FakeSource(api), asyncio.Event()))
    await asyncio.sleep(2)
    stopping = asyncio.Event()
    other = asyncio.create_task(second.run(FakeSource(api), stopping))
    await asyncio.sleep(5)
    assert 0 < second.member.arcs.share < 1
    before = ledgers[1].generation
    first.member.leave = asyncio.Event().wait  # type: ignore[method-assign, assignment]
    task.cancel()
    await asyncio.sleep(60)
    assert second.member.arcs.share == 1
    assert before < ledgers[1].generation <= second.member.generation
    stopping.set()
    await asyncio.wait_for(other, 60)
    task.cancel()
    await asyncio.wait([task])
