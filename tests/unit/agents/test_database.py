"""Group commit: what is answered is committed, one failure is one's own, one process at a time."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from agents.database import Database, InUse

SCHEMA = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)"


def insert(n: int):  # type: ignore[no-untyped-def]
    return lambda db: db.execute("INSERT INTO t VALUES (?)", (n,)).rowcount


async def numbers(db: Database) -> list[int]:
    return await db.do(lambda c: [row[0] for row in c.execute("SELECT n FROM t ORDER BY n")])


async def test_many_at_once_all_committed(tmp_path: Path) -> None:
    db = Database(tmp_path / "d", SCHEMA)
    await db.open()
    await asyncio.gather(*(db.do(insert(n)) for n in range(2000)))
    await db.close()
    again = Database(tmp_path / "d", SCHEMA)
    await again.open()
    assert await numbers(again) == list(range(2000))
    await again.close()


async def test_a_failing_work_undoes_itself_alone(tmp_path: Path) -> None:
    db = Database(tmp_path / "d", SCHEMA)
    await db.open()

    def half(connection: sqlite3.Connection) -> None:
        insert(10)(connection)
        raise ValueError("half way")

    outcomes = await asyncio.gather(
        db.do(insert(1)), db.do(half), db.do(insert(1)), db.do(insert(2)), return_exceptions=True
    )
    assert [type(o) for o in outcomes] == [int, ValueError, sqlite3.IntegrityError, int]
    assert await numbers(db) == [1, 2]
    await db.close()


async def test_a_cancelled_caller_does_not_stop_the_others(tmp_path: Path) -> None:
    db = Database(tmp_path / "d", SCHEMA)
    await db.open()
    asked = [asyncio.create_task(db.do(insert(n))) for n in range(10)]
    await asyncio.sleep(0)
    asked[3].cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert len(await numbers(db)) == 10
    await db.close()


async def test_only_one_process_has_it(tmp_path: Path) -> None:
    first, second = Database(tmp_path / "d", SCHEMA), Database(tmp_path / "d", SCHEMA)
    await first.open()
    with pytest.raises(InUse, match="--data-dir"):
        await second.open()
    await first.close()
    await second.close()
    third = Database(tmp_path / "d", SCHEMA)
    await third.open()
    await third.close()


async def test_closed_is_said(tmp_path: Path) -> None:
    db = Database(tmp_path / "d", SCHEMA)
    with pytest.raises(RuntimeError, match="not open"):
        await db.do(insert(1))
    await db.close()
