"""The protocol, in virtual time, with replicas that are frozen, killed, cut off, and leave."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.sharding.leases import LEASES
from controller.sharding.ring_object import CONFIG_MAPS, NAME
from tests.unit.sharding import simulation
from tests.unit.sharding.simulation import DURATION, Replica, World

DISTURBANCES = int(os.environ.get("KUMULUS_TEST_DISTURBANCES", "200"))
SEEDS = int(os.environ.get("KUMULUS_TEST_SEEDS", "1"))


@asynccontextmanager
async def replicas(count: int, seed: int = 1) -> AsyncIterator[tuple[World, list[Replica]]]:
    world = World(seed)
    started = [world.start() for _ in range(count)]
    try:
        await asyncio.sleep(3)
        yield world, started
    finally:
        await world.close()
    world.check()


def now() -> float:
    return asyncio.get_running_loop().time()


async def served(world: World, seconds: float) -> float:
    """Seconds until everything is owned again."""
    began = now()
    while now() - began < seconds:
        owned = [sum(r.member.owns(u) for r in world.replicas.values()) for u in world.uids]
        if all(owned):
            return now() - began
        await asyncio.sleep(0.01)
    raise AssertionError(f"not everything is owned after {seconds} s")


@pytest.mark.looptime
async def test_one_replica_serves_everything_at_once_and_five_share_it() -> None:
    async with replicas(1) as (world, _):
        assert await served(world, 1) < 1
        for _ in range(4):
            world.start()
        await world.settle(10)
        shares = [replica.member.arcs.share for replica in world.replicas.values()]
        assert sum(shares) == pytest.approx(1) and max(shares) <= 0.2 * 1.15


@pytest.mark.looptime
async def test_a_leaving_replica_hands_over_in_about_a_second() -> None:
    async with replicas(3) as (world, started):
        await world.settle(5)
        began = now()
        leaving = asyncio.ensure_future(started[0].leave())
        await asyncio.sleep(0)
        while started[0].member.arcs:
            await asyncio.sleep(0.001)
        del world.replicas[0]
        await served(world, 2)
        assert now() - began < 1.5
        await leaving
        assert ("leases", "ns", "r0") not in world.api.objects


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(8))
async def test_a_killed_replica_is_replaced_within_15_seconds(seed: int) -> None:
    async with replicas(3, seed) as (world, started):
        await world.settle(5 + seed / 3)
        await started[1].process.kill()
        del world.replicas[1]
        assert DURATION / 2 < await served(world, 15) <= 15


@pytest.mark.looptime
@pytest.mark.parametrize("seconds", [1, 5, 8, 30])
async def test_a_stopped_replica_does_nothing_when_it_goes_on(seconds: float) -> None:
    async with replicas(3) as (world, started):
        await world.settle(5)
        started[2].process.freeze()
        await asyncio.sleep(seconds)
        others = [r.member.arcs.share for r in started[:2]]
        assert (sum(others) == pytest.approx(1)) == (seconds > 15)
        started[2].process.thaw()
        if seconds > DURATION * 2 / 3:
            assert not any(started[2].member.owns(uid) for uid in world.uids)
        await world.settle()


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(4))
async def test_who_is_cut_off_stops_before_anybody_takes_over(seed: int) -> None:
    async with replicas(2, seed) as (world, started):
        await world.settle(5)
        started[0].process.cut = True
        cut, stopped, taken = now(), 0.0, 0.0
        while not taken:
            stopped = stopped or (0.0 if started[0].member.arcs else now() - cut)
            taken = now() - cut if started[1].member.arcs.share == 1 else 0.0
            await asyncio.sleep(0.01)
        assert 0 < stopped < taken - 1 and taken <= 15
        assert not started[0].working, "and what it did was cancelled"
        started[0].process.cut = False
        await world.settle()


@pytest.mark.looptime
@pytest.mark.parametrize("leaves", [False, True])
async def test_what_was_on_its_way_when_its_sender_went_is_refused(
    leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an agent that nobody has commanded since: there are too many of them."""
    monkeypatch.setattr(simulation, "AGENTS", 10_000)
    async with replicas(2) as (world, started):
        await world.settle(5)
        sender = started[0]
        uid = next(uid for uid in world.uids if sender.member.owns(uid))
        sent = world.outside.arrive(
            7, uid, (0, sender.tenures[uid]), sender.member.generation, lag=40.0
        )
        late = asyncio.ensure_future(sent)
        if leaves:  # with the command given up, not answered
            sender.working[uid] = sender.process.run(asyncio.sleep(100))
        del world.replicas[0]
        await (sender.leave() if leaves else sender.process.kill())
        await served(world, 15)
        taken = now()
        assert not late.done()
        await late
        assert not [done for done in world.outside.done if done.tenure[0] == 0 and done.at > taken]


@pytest.mark.looptime
async def test_the_api_server_goes_away_and_comes_back() -> None:
    async with replicas(3) as (world, started):
        await world.settle(5)
        for replica in started:
            replica.process.cut = True
        await asyncio.sleep(60)
        assert not any(replica.member.arcs for replica in started)
        for replica in started:
            replica.process.cut = False
        await world.settle()


@pytest.mark.looptime
@pytest.mark.parametrize("leases_too", [False, True])
async def test_a_deleted_ring_is_made_anew_with_a_higher_generation(leases_too: bool) -> None:
    async with replicas(3) as (world, started):
        await world.settle(5)
        before = max(replica.member.generation for replica in started)
        del world.api.objects[CONFIG_MAPS.plural, "ns", NAME]
        if leases_too:
            for key in [key for key in world.api.objects if key[0] == LEASES.plural]:
                del world.api.objects[key]
        world.start()
        await world.settle(30)
        assert min(replica.member.generation for replica in started) > before


@pytest.mark.looptime
async def test_a_ring_that_cannot_be_read_stops_nothing_and_is_repaired_by_deleting_it() -> None:
    async with replicas(2) as (world, _):
        await world.settle(5)
        world.api.objects[CONFIG_MAPS.plural, "ns", NAME]["data"]["ring"] = "{"
        await world.settle(30)
        del world.api.objects[CONFIG_MAPS.plural, "ns", NAME]
        await world.settle(30)


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_two_hundred_disturbances(seed: int) -> None:
    """Joins, leaves, kills, pauses, cuts, all at random and on top of each other."""
    async with replicas(5, seed) as (world, _):
        for _ in range(DISTURBANCES):
            await disturb(world)
            await asyncio.sleep(world.rng.choice((0.0, 0.1, 1.0, 5.0, 12.0)))
        for replica in world.replicas.values():
            replica.process.thaw()
            replica.process.cut = False
        await world.settle(60)
    assert len(world.outside.done) > 5 * DISTURBANCES and world.outside.refused


async def disturb(world: World) -> None:
    rng, now_there = world.rng, list(world.replicas.values())
    what = rng.choice(("join", "leave", "kill", "pause", "cut", "restart"))
    if what == "join" or len(now_there) < 3:
        if len(now_there) < 9:
            world.start()
        return
    victim = rng.choice(now_there)
    if what in ("leave", "kill"):
        del world.replicas[victim.number]
        await (victim.leave() if what == "leave" else victim.process.kill())
    elif what == "restart":
        await victim.process.kill()
        world.replicas[victim.number] = Replica(victim.number, world, tenures=victim.tenures)
    elif what == "pause":
        victim.process.freeze()
        asyncio.get_running_loop().call_later(rng.uniform(0.1, 40), victim.process.thaw)
    else:
        victim.process.cut = True
        asyncio.get_running_loop().call_later(
            rng.uniform(0.1, 40), setattr, victim.process, "cut", False
        )
