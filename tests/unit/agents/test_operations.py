"""The operation table: durable, idempotent, ordered, bounded, fenced. In virtual time."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.drivers.base import AgentId, DriverError
from agents.operations import Limits, Refused
from agents.wire import ACTIONS
from tests.unit.agents.fakes import HOST, OTHER, FakeDriver, Run, bench, operation

pytestmark = pytest.mark.looptime


async def test_accepted_at_once_done_later(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        [reply] = await b.send(operation("a"))
        assert reply.state in ("Pending", "Running") and asyncio.get_running_loop().time() < 0.1
        await asyncio.sleep(0.5)
        running = await b.operations.read(HOST, "a")
        assert running is not None and running.state == "Running"
        done = await b.ended("a")
        assert done.state == "Succeeded" and done.result == {"total": 1, "available": 1}


async def test_unknown_id_reads_as_none(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(operation("a"))
        assert await b.operations.read(OTHER, "a") is None
        assert await b.operations.read(HOST, "b") is None


async def test_the_same_id_runs_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(operation("a"))
        await b.send(operation("a"), operation("a"))
        await b.ended("a")
        [again] = await b.send(operation("a"))
        assert again.state == "Succeeded" and again.result["total"] == 1
        await asyncio.sleep(10)
        assert len(b.driver.runs) == 1


async def test_agents_do_not_share_ids(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(operation("a"))
        await b.send(operation("a"), agent=OTHER)
        await b.ended("a")
        await b.ended("a", OTHER)
        assert len(b.driver.runs) == 2


async def test_a_failed_one_runs_again_with_its_new_arguments(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.driver.failures = [DriverError("no-space", "full")]
        await b.send(operation("a"))
        failed = await b.ended("a")
        assert failed.error is not None and failed.error.code == "no-space"
        [again] = await b.send(operation("a", args={"path": "/q"}))
        assert again.state == "Pending" and again.error is None
        assert (await b.ended("a")).state == "Succeeded"
        assert len(b.driver.runs) == 2


async def test_an_id_names_one_piece_of_work(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(operation("a", "r1"))
        [reply] = await b.send(operation("a", "r2"))
        assert reply.error is not None and reply.error.code == "conflict"
        await b.ended("a")
        assert [run.resource for run in b.driver.runs] == ["r1"]


async def test_a_driver_bug_is_internal_and_says_nothing_more(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.driver.failures = [RuntimeError("secret")]
        await b.send(operation("a"))
        reply = await b.ended("a")
        assert reply.error is not None and reply.error.code == "internal"
        assert "secret" not in reply.error.message


async def test_a_drivers_own_timeout_is_not_ours(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.driver.failures = [TimeoutError()]
        await b.send(operation("a"))
        reply = await b.ended("a")
        assert reply.error is not None and reply.error.code == "internal"


async def test_a_hanging_action_times_out_and_frees_its_lane(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.driver.seconds = lambda resource: 1e6 if len(b.driver.runs) == 1 else 1.0
        await b.send(operation("a"), operation("b"))
        reply = await b.ended("a")
        assert reply.error is not None and reply.error.code == "timeout"
        assert "60 s" in reply.error.message
        assert (await b.ended("b")).state == "Succeeded"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"action": "vm.fly"}, "operations[0].action: 'vm.fly' is none of"),
    ({"action": "image.add", "args": {}}, "is for agents of role store"),
    ({"args": {}}, "operations[0].args.path: "),
    ({"args": {"path": "relative"}}, "operations[0].args.path: "),
    ({"args": {"path": "/p", "more": 1}}, "operations[0].args.more: "),
    ({"callback": "http://plain/"}, "operations[0].callback: "),
]


@pytest.mark.parametrize(("change", "says"), BAD)
async def test_what_cannot_be_is_refused_naming_the_field(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    async with bench(tmp_path) as b:
        with pytest.raises(Refused) as refused:
            await b.send(operation("a", **change))
        assert refused.value.status == 422
        assert says in refused.value.error.message
        assert await b.operations.read(HOST, "a") is None


async def test_one_bad_operation_does_not_spoil_the_batch(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        replies = await b.send(operation("a"), operation("b", args={}), operation("c"))
        assert [r.id for r in replies] == ["a", "b", "c"]
        assert replies[1].error is not None and replies[1].error.code == "invalid"
        assert "operations[1].args.path" in replies[1].error.message
        assert (await b.ended("a")).state == (await b.ended("c")).state == "Succeeded"


async def test_errors_do_not_repeat_values(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        with pytest.raises(Refused) as refused:
            await b.send(operation("a", args={"path": "hunter2", "userData": "hunter2"}))
        assert "hunter2" not in refused.value.error.message


async def test_an_older_ring_generation_is_fenced_off_for_ever(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(operation("a"), generation=5)
        await b.send(operation("b"), generation=5)
        await b.send(operation("x"), generation=1, agent=OTHER)
        with pytest.raises(Refused) as refused:
            await b.send(operation("c"), generation=4)
        assert (refused.value.status, refused.value.error.code) == (409, "fenced")
    async with bench(tmp_path) as b:
        with pytest.raises(Refused):
            await b.send(operation("c"), generation=4)
        await b.send(operation("c"), generation=6)
        with pytest.raises(Refused):
            await b.send(operation("d"), generation=5)


async def test_even_an_empty_batch_raises_the_fence(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert await b.send(generation=7) == []
    async with bench(tmp_path) as b:
        with pytest.raises(Refused):
            await b.send(generation=6)


async def test_an_agents_queue_is_bounded(tmp_path: Path) -> None:
    async with bench(tmp_path, limits=Limits(queue_agent=3)) as b:
        await b.send(*(operation(str(n)) for n in range(3)))
        with pytest.raises(Refused) as refused:
            await b.send(operation("4"))
        assert (refused.value.status, refused.value.error.code) == (429, "busy")
        await b.send(operation("0"))  # known: needs no room
        await b.send(operation("4"), agent=OTHER)
        await b.ended("2")
        await b.send(operation("4"))


async def test_the_process_queue_is_bounded(tmp_path: Path) -> None:
    async with bench(tmp_path, limits=Limits(queue_overall=3)) as b:
        await b.send(operation("1"), operation("2"))
        with pytest.raises(Refused) as refused:
            await b.send(operation("1"), operation("2"), agent=OTHER)
        assert (refused.value.status, refused.value.error.code) == (503, "busy")
        assert b.operations.depth == 2
        await b.ended("2")
        assert b.operations.depth == 0


async def test_what_a_killed_process_left_is_run_again_in_order(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.driver.seconds = lambda resource: 100.0
        await b.send(*(operation(f"{n}", f"r{n % 2}") for n in range(6)))
        await asyncio.sleep(1)
        assert len(b.driver.runs) == 2
    async with bench(tmp_path) as b:
        for n in range(6):
            assert (await b.ended(f"{n}")).state == "Succeeded"
        assert len(b.driver.runs) == 6


async def test_what_is_not_served_any_more_is_left_alone(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.driver.seconds = lambda resource: 100.0
        await b.send(operation("a"))
    async with bench(tmp_path, serves=lambda agent: agent != HOST) as b:
        await asyncio.sleep(1000)
        assert b.driver.runs == []
    async with bench(tmp_path) as b:
        assert (await b.ended("a")).state == "Succeeded"


async def test_close_lets_work_end_within_its_grace(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(operation("a"))
        await b.operations.close(grace=5.0)
        reply = await b.journal.read(HOST, "a")
        assert reply is not None and reply.state == "Succeeded"
        with pytest.raises(Refused) as refused:
            await b.send(operation("b"))
        assert refused.value.status == 503


async def test_a_client_that_goes_away_leaves_no_half_accepted_batch(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        asking = asyncio.ensure_future(b.send(operation("a")))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await b.ended("a")).state == "Succeeded"
        assert b.operations.depth == 0


async def test_results_are_forgotten_after_a_while(tmp_path: Path) -> None:
    async with bench(tmp_path, limits=Limits(keep_seconds=100, prune_every=10)) as b:
        await b.send(operation("a"))
        await b.ended("a")
        await asyncio.sleep(95)
        assert await b.operations.read(HOST, "a") is not None
        await asyncio.sleep(20)
        assert await b.operations.read(HOST, "a") is None


async def test_only_so_many_results_are_kept(tmp_path: Path) -> None:
    async with bench(tmp_path, limits=Limits(keep=5, prune_every=1000)) as b:
        await b.send(*(operation(str(n)) for n in range(8)))
        await asyncio.sleep(1100)
        known = [n for n in range(8) if await b.operations.read(HOST, str(n)) is not None]
        assert known == [3, 4, 5, 6, 7]


async def test_a_full_disk_delays_the_end_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as b:
        finish, failures = b.journal.finish, [1, 2, 3]

        async def failing(*args: Any) -> None:
            if failures:
                failures.pop()
                raise sqlite3.OperationalError("database or disk is full")
            await finish(*args)

        monkeypatch.setattr(b.journal, "finish", failing)
        await b.send(operation("a"))
        assert (await b.ended("a")).state == "Succeeded"
        assert len(b.driver.runs) == 1


async def test_user_data_does_not_stay_in_the_table(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(operation("a", args={"path": "/hunter2"}))
        await b.ended("a")
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    rows = sqlite3.connect(tmp_path / "operations.db").execute("SELECT args FROM operations")
    assert rows.fetchall() == [(None,)] and content
    assert (tmp_path / "operations.db").stat().st_mode & 0o077 == 0


plans = st.lists(
    st.tuples(st.sampled_from(["r1", "r2", "r3", "r4"]), st.sampled_from([HOST, OTHER])),
    min_size=1,
    max_size=40,
)


@given(plan=plans, seed=st.integers(0, 10_000), per_agent=st.integers(1, 4), data=st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_once_one_at_a_time_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    plan: list[tuple[str, AgentId]],
    seed: int,
    per_agent: int,
    data: st.DataObject,
) -> None:
    """Whatever is asked, in whatever batches, repeated, failing and interrupted by a restart."""
    import looptime

    rng = random.Random(seed)
    directory = tmp_path_factory.mktemp("ops")
    cut = data.draw(st.floats(0, 20))
    wanted = [(agent, operation(f"op{n}", resource)) for n, (resource, agent) in enumerate(plan)]

    async def scenario() -> None:
        driver = FakeDriver()
        driver.seconds = lambda resource: rng.random() * 3
        limits = Limits(per_agent=per_agent, overall=3)
        async with bench(directory, driver=driver, limits=limits) as b:
            for agent, op in wanted:
                await b.send(op, *([op] if rng.random() < 0.3 else []), agent=agent)
                await asyncio.sleep(rng.random())
            await asyncio.sleep(cut)
        async with bench(directory, driver=driver, limits=limits) as b:
            for agent, op in wanted:
                assert (await b.ended(op.id, agent)).state == "Succeeded"
        assert driver.most_at_once <= min(3, per_agent * 2)
        # Nothing but what the restart cut short ran twice.
        assert len(driver.runs) <= len(plan) + 3
        for agent in (HOST, OTHER):
            for resource in {resource for resource, _ in plan}:
                check_lane(
                    driver.runs, [o.id for a, o in wanted if (a, o.resource) == (agent, resource)]
                )

    with closing(looptime.new_event_loop(noop_cycles=0)) as loop:
        loop.run_until_complete(scenario())


def check_lane(runs: list[Run], ids: list[str]) -> None:
    """Of one agent's resource: in order, none before its predecessor has ended."""
    lane = [run for run in runs if run.operation in ids]
    assert [id for id, _ in groupby(run.operation for run in lane)] == ids
    for before, after in pairwise(lane):
        assert before.ended is not None and before.ended <= after.began


def test_every_action_has_a_timeout() -> None:
    from agents.drivers.base import TIMEOUTS

    assert set(TIMEOUTS) == set(ACTIONS)
