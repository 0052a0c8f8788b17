"""A plugin's room: what blocks, hangs, raises or leaks in it is the plugin's affair alone.

Threads have no virtual time: these tests run in real time and wait for what must come, with
generous limits; how long it takes is not judged.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from controller.errors import Terminal, Waiting
from controller.plugins import room as rooms
from controller.plugins.room import Limits, PluginBusy, PluginFailed, Room
from tests.support.waiting import until

LONG = 60.0


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setattr(rooms, "POLL", 0.05)
    monkeypatch.setattr(rooms, "TICK", 0.01)
    monkeypatch.setattr(rooms, "FIRST_PAUSE", 0.05)
    found = Room("toy", Limits(stall=0.5, width=2))
    found._pause = 0.05
    yield found
    found.close()


def failures(what: str) -> float:
    labels = {"plugin": "toy", "what": what}
    return REGISTRY.get_sample_value("kumulus_plugin_failures_total", labels) or 0.0


async def test_work_is_done_in_a_thread_of_its_own(room: Room) -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    one, two = await room.run(work, LONG), await room.run(work, LONG)
    assert one == two != threading.get_ident()


@pytest.mark.parametrize("error", [Waiting("for it"), Terminal("never")])
async def test_what_a_plugin_says_is_passed_on(room: Room, error: Exception) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await room.run(work, LONG)
    assert caught.value is error


async def test_a_plugin_that_raises_fails_alone(room: Room) -> None:
    async def work() -> None:
        raise ZeroDivisionError("no good")

    before = failures("raised")
    with pytest.raises(PluginFailed, match="plugin toy: ZeroDivisionError: no good"):
        await room.run(work, LONG)
    assert failures("raised") == before + 1


async def test_what_waits_for_ever_is_cut_off_and_ended(room: Room) -> None:
    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(PluginFailed, match=r"0\.2 s"):
        await room.run(work, 0.2)
    await until(ended.is_set)


@pytest.mark.parametrize("how", ["sleep", "spin"])
async def test_what_blocks_is_noticed_evicted_and_replaced(room: Room, how: str) -> None:
    release = threading.Event()

    async def work() -> None:
        if how == "sleep":
            while not release.is_set():
                time.sleep(0.01)
        while not release.is_set():
            pass

    async def fine() -> str:
        return "fine"

    before = failures("blocked")
    try:
        with pytest.raises(PluginFailed, match="blocked its thread"):
            await room.run(work, LONG)
        lost = room._lost[0].thread
        assert lost is not None
        await until(lambda: not lost.is_alive())
        assert not release.is_set(), "it was evicted, not released"
    finally:
        release.set()
    assert failures("blocked") == before + 1
    await until(lambda: time.monotonic() > room._until)
    assert await room.run(fine, LONG) == "fine"
    assert room.broken == ""


async def test_while_a_room_recovers_it_refuses_at_once(room: Room) -> None:
    async def block() -> None:
        while True:
            time.sleep(0.01)

    async def fine() -> str:
        return "fine"

    room._pause = LONG
    with pytest.raises(PluginFailed):
        await room.run(block, LONG)
    with pytest.raises(PluginFailed, match="tried again") as caught:
        await room.run(fine, LONG)
    assert caught.value.retry_after is not None and caught.value.retry_after > 0


async def test_threads_that_cannot_be_ended_are_few(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "MOST_LOST", 2)
    monkeypatch.setattr(rooms, "LONGEST_PAUSE", 0.05)
    release = threading.Event()

    async def work() -> None:
        release.wait(LONG)  # a C call: no exception reaches it

    try:
        for _ in range(2):
            with pytest.raises(PluginFailed, match="blocked"):
                await room.run(work, LONG)
            await until(lambda: time.monotonic() > room._until)
        with pytest.raises(PluginFailed, match="restart the controller"):
            await room.run(work, LONG)
    finally:
        release.set()
    await until(lambda: not any(thread.alive for thread in room._lost))


async def test_tasks_that_are_left_behind_are_ended_and_counted(room: Room) -> None:
    ended = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def work() -> str:
        task = asyncio.get_running_loop().create_task(forever())
        await asyncio.sleep(0)
        return task.get_name()

    before = failures("leaked")
    await room.run(work, LONG)
    await until(ended.is_set)
    assert failures("leaked") == before + 1


async def test_guests_wait_for_one_plugin_in_small_numbers(room: Room) -> None:
    release = asyncio.Event()
    here = asyncio.get_running_loop()

    async def slow() -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(release.wait(), here))

    guests = [asyncio.create_task(room.run(slow, LONG, guest=True)) for _ in range(2)]
    await until(lambda: room._guests == 2)
    with pytest.raises(PluginBusy):
        await room.run(slow, LONG, guest=True)
    own = asyncio.create_task(room.run(slow, LONG))  # its own queue's workers are nobody else's
    await asyncio.sleep(0)
    assert not own.done()
    release.set()
    await asyncio.gather(*guests, own)
    assert room._guests == 0


async def test_posted_work_is_done_in_order_and_its_errors_are_counted(room: Room) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 1:
            raise ValueError("one")
        done.append(number)

    before = failures("raised")
    for number in range(4):
        room.post(lambda number=number: work(number))  # type: ignore[misc]
    await until(lambda: len(done) == 3 and room._posted == 0)
    assert done == [0, 2, 3]
    assert failures("raised") == before + 1


async def test_an_observer_that_blocks_costs_nothing_but_events(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "POSTED", 10)
    release = threading.Event()
    before = failures("dropped")
    try:
        room.post(lambda: release.wait(LONG))
        for _ in range(30):
            room.post(lambda: None)  # returns at once: else this test would hang
        assert failures("dropped") == before + 21
    finally:
        release.set()


async def test_a_worker_that_is_cancelled_takes_its_work_along(room: Room) -> None:
    began, ended = threading.Event(), threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(room.run(work, LONG))
    await until(began.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(ended.is_set)
