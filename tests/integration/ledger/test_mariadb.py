"""The ledger on a real MariaDB: the same tests, and what happens when it goes away."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from controller.errors import Transient
from controller.ledger.base import PERMIT
from controller.ledger.sql import SqlLedger
from tests.support.ledger_contract import LedgerContract
from tests.support.mariadb import MariaDb, mariadb, missing

why = missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why is not None, reason=why or ""),
]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    with mariadb() as running:
        yield running


@pytest.fixture
def url(server: MariaDb) -> str:
    return server.database(f"ledger_{next(_numbers)}")


class TestMariaDb(LedgerContract):
    examples = 10


async def test_an_outage_is_transient_and_passes(server: MariaDb, url: str) -> None:
    ledger = await SqlLedger.open(url, patience=0.5)
    await ledger.claim_value("mac", "vm", "fa:1")
    server.stop(kill=True)
    try:
        with pytest.raises(Transient, match="check that it runs"):
            await ledger.claim_value("mac", "vm-2", "fa:2")
        with pytest.raises(Transient, match="cannot be used"):
            await SqlLedger.open(url, patience=0)
    finally:
        server.start()
    await ledger.claim_value("mac", "vm-2", "fa:2")
    assert len(await ledger.claims(prefix="mac")) == 2
    await ledger.close()


async def test_who_is_stopped_within_a_transaction_does_not_hold_up_a_takeover(url: str) -> None:
    """The database ends its connection; when it goes on, it is refused."""
    old, new = [await SqlLedger.open(url, patience=60) for _ in range(2)]
    read, go_on, asked = threading.Event(), threading.Event(), list[int]()

    def permit(fenced: Callable[[], int]) -> None:
        asked.append(fenced())
        if asked[-1] > 1:
            raise Transient("the ring has changed")
        read.set()
        assert go_on.wait(60)

    async def claim() -> None:
        PERMIT.set(permit)
        await old.claim_value("mac", "vm", "a")

    stopped = asyncio.create_task(claim())
    await asyncio.to_thread(read.wait, 30)
    await new.fence(2)
    await new.claim_value("mac", "another", "a")
    go_on.set()
    with pytest.raises(Transient, match="the ring has changed"):
        await stopped
    assert asked == [0, 2]
    assert [c.owner for c in await new.claims(prefix="mac")] == ["another"]
    for ledger in (old, new):
        await ledger.close()


async def test_a_wrong_password_is_told_and_not_shown(server: MariaDb) -> None:
    url = f"mariadb://nobody:hush@127.0.0.1:{server.port}/x"
    with pytest.raises(Transient, match="Access denied") as caught:
        await SqlLedger.open(url, patience=0)
    assert "hush" not in str(caught.value)
