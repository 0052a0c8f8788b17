"""Callbacks: delivered when they can be, given up when not, harmless either way. Virtual time."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.callbacks import PERMANENT, CallbackPolicy, retry_delay
from agents.drivers.base import DriverError
from tests.unit.agents.fakes import HOST, FakePost, bench, operation

pytestmark = pytest.mark.looptime
URL = "https://controller/callbacks/x?token=hunter2"
DOWN = aiohttp.ClientConnectionError("refused")


def called(id: str = "a"):  # type: ignore[no-untyped-def]
    return operation(id, callback=URL)


async def test_told_once_with_the_result(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(called())
        await asyncio.sleep(600)
        [(when, url, reply)] = b.post.told
        assert 1.0 <= when < 1.1 and url == URL
        assert reply.state == "Succeeded" and reply.result["total"] == 1
        assert b.callbacks.waiting == 0


async def test_failures_are_told_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.driver.failures = [DriverError("conflict", "in use")]
        await b.send(called())
        await asyncio.sleep(10)
        [(_, _, reply)] = b.post.told
        assert reply.error is not None and reply.error.code == "conflict"


async def test_tried_again_ever_more_slowly(tmp_path: Path) -> None:
    async with bench(tmp_path, post=FakePost([DOWN, 503, TimeoutError(), 429, 200])) as b:
        await b.send(called())
        await asyncio.sleep(60)
        times = [when for when, _, _ in b.post.told]
        gaps = [after - before for before, after in pairwise(times)]
        assert len(times) == 5 and gaps == sorted(gaps)
        assert await b.journal.untold() == []


@pytest.mark.parametrize("status", sorted(PERMANENT))
async def test_a_final_no_is_final(tmp_path: Path, status: int) -> None:
    async with bench(tmp_path, post=FakePost([status])) as b:
        await b.send(called())
        await asyncio.sleep(600)
        assert len(b.post.told) == 1
        assert await b.journal.untold() == []


async def test_given_up_after_the_window_and_still_readable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path, post=FakePost([DOWN] * 1000)) as b:
        with caplog.at_level(logging.DEBUG):
            await b.send(called())
            await asyncio.sleep(400)
        assert 10 < len(b.post.told) < 40
        assert b.post.told[-1][0] < 302
        assert await b.journal.untold() == []
        assert (await b.ended("a")).state == "Succeeded"
        assert "given up" in caplog.text and "hunter2" not in caplog.text


async def test_one_that_hangs_is_cut_off(tmp_path: Path) -> None:
    async with bench(tmp_path, policy=CallbackPolicy(timeout=5, window=60)) as b:
        answer = b.post.__call__

        async def hang(*args):  # type: ignore[no-untyped-def]
            if not b.post.told:
                await answer(*args)
                await asyncio.sleep(1e6)
            return await answer(*args)

        b.callbacks._post = hang
        await b.send(called())
        await asyncio.sleep(20)
        assert len(b.post.told) == 2
        assert 6 < b.post.told[1][0] < 7


async def test_a_restarted_agent_tells_what_its_predecessor_did_not(tmp_path: Path) -> None:
    async with bench(tmp_path, post=FakePost([DOWN] * 1000)) as b:
        await b.send(called())
        await asyncio.sleep(30)
    async with bench(tmp_path) as b:
        await asyncio.sleep(1)
        assert [reply.id for _, _, reply in b.post.told] == ["a"]
        assert b.driver.runs == []
    async with bench(tmp_path) as b:
        await asyncio.sleep(1)
        assert b.post.told == []


async def test_whoever_asked_last_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(called())
        await asyncio.sleep(0.5)
        await b.send(operation("a", callback="https://another/"))
        await asyncio.sleep(10)
        assert [url for _, url, _ in b.post.told] == ["https://another/"]


async def test_work_done_anew_silences_the_former_callback(tmp_path: Path) -> None:
    async with bench(tmp_path, post=FakePost([DOWN] * 3)) as b:
        b.driver.failures = [DriverError("no-space", "full")]
        await b.send(called())
        await b.ended("a")
        await asyncio.sleep(0.1)
        tries = len(b.post.told)
        b.driver.seconds = lambda resource: 50.0
        await b.send(called())
        await asyncio.sleep(200)
        assert all(reply.state == "Failed" for _, _, reply in b.post.told[:tries])
        assert all(reply.state == "Succeeded" for _, _, reply in b.post.told[tries:])
        assert len(b.post.told) > tries


async def test_only_so_many_wait(tmp_path: Path) -> None:
    policy = CallbackPolicy(waiting=2)
    async with bench(tmp_path, post=FakePost([DOWN] * 1000), policy=policy) as b:
        await b.send(*(operation(f"{n}", f"r{n}", callback=URL) for n in range(5)))
        await asyncio.sleep(50)
        assert b.callbacks.waiting == 2
        assert (await b.operations.read(HOST, "4")) is not None


async def test_only_so_many_at_once(tmp_path: Path) -> None:
    most = now = 0
    async with bench(tmp_path, policy=CallbackPolicy(at_once=3)) as b:

        async def slow(*args):  # type: ignore[no-untyped-def]
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(1)
            now -= 1
            return 200

        b.callbacks._post = slow
        await b.send(*(operation(f"{n}", f"r{n}", callback=URL) for n in range(12)))
        await asyncio.sleep(30)
        assert most == 3 and b.callbacks.waiting == 0


@pytest.mark.parametrize("copies", [0, 2])
async def test_a_simulator_may_lose_it_or_send_it_twice(tmp_path: Path, copies: int) -> None:
    async with bench(tmp_path, copies=lambda agent, id: copies) as b:
        await b.send(called())
        await asyncio.sleep(10)
        assert len(b.post.told) == copies
        assert (await b.ended("a")).state == "Succeeded"


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_delays_are_bounded(attempt: int, chance: float) -> None:
    policy = CallbackPolicy()
    assert policy.first_delay / 2 <= retry_delay(policy, attempt, chance) <= policy.max_delay
