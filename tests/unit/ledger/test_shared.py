"""Reads that are made once for many: none is older than the question."""

from __future__ import annotations

import asyncio

import pytest

from controller.errors import Transient
from controller.ledger.shared import Shared

pytestmark = pytest.mark.looptime


class Source:
    """Counts up; a read takes a second and sees the number that was current when it began."""

    def __init__(self) -> None:
        self.reads = 0
        self.number = 0
        self.broken = False

    async def read(self, key: str) -> int:
        self.reads += 1
        seen, broken = self.number, self.broken
        await asyncio.sleep(1)
        if broken:
            raise Transient("it is away")
        return seen


async def test_who_asks_while_a_read_is_under_way_shares_the_next_one() -> None:
    source = Source()
    shared = Shared(source.read)
    first = asyncio.create_task(shared.get("a"))
    await asyncio.sleep(0.5)
    source.number = 7
    others = [asyncio.create_task(shared.get("a")) for _ in range(10)]
    assert await first == 0
    assert await asyncio.gather(*others) == [7] * 10
    assert source.reads == 2
    assert await shared.get("a") == 7
    assert source.reads == 3


async def test_keys_do_not_wait_for_each_other() -> None:
    source = Source()
    shared = Shared(source.read)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(shared.get("a"), shared.get("b"))
    assert asyncio.get_running_loop().time() - began == pytest.approx(1)


async def test_all_hear_of_a_failure_and_the_next_read_is_another() -> None:
    source = Source()
    source.broken = True
    shared = Shared(source.read)
    results = await asyncio.gather(*(shared.get("a") for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Transient] * 3
    source.broken = False
    assert await shared.get("a") == 0


async def test_a_caller_that_is_cancelled_leaves_the_read_to_the_others() -> None:
    source = Source()
    shared = Shared(source.read)
    gone = asyncio.create_task(shared.get("a"))
    stays = asyncio.create_task(shared.get("a"))
    await asyncio.sleep(0.5)
    gone.cancel()
    assert await stays == 0
    assert source.reads == 1
