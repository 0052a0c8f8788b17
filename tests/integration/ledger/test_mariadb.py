"""The ledger on a real MariaDB: the same tests, and what happens when it goes away."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from controller.errors import Transient
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


async def test_a_wrong_password_is_told_and_not_shown(server: MariaDb) -> None:
    url = f"mariadb://nobody:hush@127.0.0.1:{server.port}/x"
    with pytest.raises(Transient, match="Access denied") as caught:
        await SqlLedger.open(url, patience=0)
    assert "hush" not in str(caught.value)
