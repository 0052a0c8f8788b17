"""Writes to SQLite that are committed together."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from sqlalchemy import Connection, event, text

from controller.errors import Exhausted
from controller.ledger.database import GROUP, Database


async def test_one_that_fails_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    database = Database(f"sqlite:///{path}")
    commits: list[int] = []
    event.listen(database._engine, "commit", lambda connection: commits.append(1))
    gate = threading.Event()

    def add(number: int) -> int | BaseException:
        def work(connection: Connection) -> int:
            connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
            if number in failing:
                raise Exhausted(f"no {number}")
            return number

        return database.write(work)  # type: ignore[return-value]

    failing: set[int] = set()
    try:
        await database.write(lambda c: c.execute(text("CREATE TABLE numbers (n INTEGER)")).close())
        for failing in (set(), {3}, {0, GROUP}):
            await database.write(lambda c: c.execute(text("DELETE FROM numbers")).close())
            commits.clear()
            gate.clear()
            held = asyncio.ensure_future(database.write(lambda c: gate.wait(10)))
            await asyncio.sleep(0.05)
            adding = [asyncio.ensure_future(add(n)) for n in range(GROUP + 10)]  # type: ignore[call-overload]
            await asyncio.sleep(0)
            gate.set()
            await held
            results = await asyncio.gather(*adding, return_exceptions=True)
            for number, result in enumerate(results):
                if number in failing:
                    assert isinstance(result, Exhausted)
                    assert result.message == f"no {number}"
                else:
                    assert result == number
            kept = await database.read(lambda c: set(c.scalars(text("SELECT n FROM numbers"))))
            assert kept == set(range(GROUP + 10)) - failing
            if not failing:
                assert len(commits) <= 4
    finally:
        await database.close()
