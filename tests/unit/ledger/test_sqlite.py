"""The ledger on SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import insert

from controller.errors import Terminal, Transient
from controller.ledger.schema import versions
from controller.ledger.sql import SqlLedger
from tests.support.ledger_contract import LedgerContract


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


class TestSqlite(LedgerContract):
    pass


async def test_claims_outlive_the_process(url: str) -> None:
    first = await SqlLedger.open(url)
    await first.claim_value("mac", "vm", "fa:1")
    await first.close()
    second = await SqlLedger.open(url)
    assert [c.value for c in await second.claims()] == ["fa:1"]
    await second.close()


async def test_a_locked_database_is_tried_again_later(url: str, tmp_path: Path) -> None:
    ledger = await SqlLedger.open(url, patience=0.05)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Transient, match="database is locked"):
        await ledger.claim_value("mac", "vm", "fa:1")
    assert list(await ledger.claims()) == [], "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    await ledger.claim_value("mac", "vm", "fa:1")
    await ledger.close()


async def test_a_newer_schema_is_left_alone(url: str) -> None:
    ledger = await SqlLedger.open(url)
    await ledger._database.write(lambda c: c.execute(insert(versions).values(version=99)))
    await ledger.close()
    with pytest.raises(Terminal, match="schema version 99, this Kumulus knows"):
        await SqlLedger.open(url)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("nonsense", "malformed"),
        ("sqlite://", "cannot be kept in sqlite://"),
        ("postgresql://u:hidden@h/d", r"cannot be kept in postgresql://u:\*\*\*@h/d"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused(bad: str, words: str) -> None:
    with pytest.raises(Terminal, match=words):
        await SqlLedger.open(bad)


async def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="unable to open database file"):
        await SqlLedger.open(f"sqlite:///{tmp_path}/none/ledger.db", patience=0)


async def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(
        Terminal, match=r"there is no ledger at .*none\.db; name it with --database"
    ):
        SqlLedger.inspect(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []
