"""Where simulated machines are kept: one small database for all of them.

A machine's records survive the process as a real machine's disks and domains do. Every executed
action is appended to a log, so that a test can prove that nothing was done twice.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from agents.database import Database
from agents.drivers.base import AgentId
from agents.drivers.simulated.records import Change

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    role TEXT NOT NULL, agent TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (role, agent, kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS executions (
    seq INTEGER PRIMARY KEY, role TEXT NOT NULL, agent TEXT NOT NULL, operation TEXT NOT NULL,
    action TEXT NOT NULL, resource TEXT NOT NULL, outcome TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS chaos (
    role TEXT NOT NULL, agent TEXT NOT NULL, config TEXT NOT NULL, PRIMARY KEY (role, agent));
CREATE TABLE IF NOT EXISTS struck (
    role TEXT NOT NULL, agent TEXT NOT NULL, fault TEXT NOT NULL, seen INTEGER NOT NULL,
    fired INTEGER NOT NULL, PRIMARY KEY (role, agent, fault));
"""
KEEP_EXECUTIONS = 500_000
"""Entries of the log: at least these many of the latest are kept."""
_PRUNE_EVERY = 50_000


@dataclass(frozen=True)
class Execution:
    """An executed action. outcome: ``done`` or an error code. at: seconds since the epoch."""

    operation: str
    action: str
    resource: str
    outcome: str
    at: float


class World:
    """The database, shared by all drivers of a process."""

    def __init__(
        self,
        path: Path,
        *,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = Database(path, SCHEMA, executor=executor)
        self._clock = clock
        self._users = 0
        self._opening = asyncio.Lock()
        self._logged = 0

    async def open(self) -> None:
        """Once per user; each closes once. Raises database.InUse."""
        async with self._opening:  # the second user must not go on before the first is done
            if self._users == 0:
                await self._db.open()
            self._users += 1

    async def close(self) -> None:
        self._users -= 1
        if self._users == 0:
            await self._db.close()

    async def load(self, agent: AgentId) -> list[tuple[str, str, bytes]]:
        """(kind, key, record) of everything that the machine holds."""
        return await self._db.do(
            lambda db: db.execute(
                "SELECT kind, key, record FROM records WHERE role = ? AND agent = ?", _id(agent)
            ).fetchall()
        )

    async def save(self, agent: AgentId, changes: Sequence[Change]) -> None:
        """Keep what changed, outside of any action."""
        await self._db.do(lambda db: _save(db, agent, changes))

    async def executed(
        self,
        agent: AgentId,
        changes: Sequence[Change],
        *,
        operation: str,
        action: str,
        resource: str,
        outcome: str,
    ) -> None:
        """Keep what an action changed and log it, both or neither."""
        entry = (*_id(agent), operation, action, resource, outcome, self._clock())
        self._logged += 1
        prune = self._logged % _PRUNE_EVERY == 0

        def work(db: sqlite3.Connection) -> None:
            _save(db, agent, changes)
            cursor = db.execute(
                "INSERT INTO executions (role, agent, operation, action, resource, outcome, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                entry,
            )
            if prune:
                oldest = int(cursor.lastrowid or 0) - KEEP_EXECUTIONS
                db.execute("DELETE FROM executions WHERE seq < ?", (oldest,))

        await self._db.do(work)

    async def executions(
        self, agent: AgentId, resource: str | None = None, limit: int = 1000
    ) -> list[Execution]:
        """The latest ``limit`` of an agent's log, oldest first."""
        where, values = "role = ? AND agent = ?", list(_id(agent))
        if resource is not None:
            where, values = f"{where} AND resource = ?", [*values, resource]
        query = (
            "SELECT operation, action, resource, outcome, at FROM executions"  # noqa: S608
            f" WHERE {where} ORDER BY seq DESC LIMIT ?"
        )
        rows = await self._db.do(lambda db: db.execute(query, (*values, limit)).fetchall())
        return [Execution(*row) for row in reversed(rows)]

    async def counts(self, agent: AgentId) -> dict[str, dict[str, int]]:
        """action → outcome → how often, of an agent's whole log."""
        rows = await self._db.do(
            lambda db: db.execute(
                "SELECT action, outcome, count(*) FROM executions WHERE role = ? AND agent = ?"
                " GROUP BY action, outcome",
                _id(agent),
            ).fetchall()
        )
        counts: dict[str, dict[str, int]] = {}
        for action, outcome, count in rows:
            counts.setdefault(action, {})[outcome] = count
        return counts

    async def chaos(self, agent: AgentId) -> str | None:
        """The agent's own fault configuration (JSON) if it was given one at run time."""
        row = await self._db.do(
            lambda db: db.execute(
                "SELECT config FROM chaos WHERE role = ? AND agent = ?", _id(agent)
            ).fetchone()
        )
        return None if row is None else str(row[0])

    async def set_chaos(self, agent: AgentId, config: str | None) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM chaos WHERE role = ? AND agent = ?", _id(agent))
            db.execute("DELETE FROM struck WHERE role = ? AND agent = ?", _id(agent))
            if config is not None:
                db.execute("INSERT INTO chaos VALUES (?, ?, ?)", (*_id(agent), config))

        await self._db.do(work)

    async def tallies(self, agent: AgentId) -> list[tuple[str, int, int]]:
        """(fault, seen, fired) as last kept."""
        return await self._db.do(
            lambda db: db.execute(
                "SELECT fault, seen, fired FROM struck WHERE role = ? AND agent = ?", _id(agent)
            ).fetchall()
        )

    async def set_tallies(self, agent: AgentId, tallies: Iterable[tuple[str, int, int]]) -> None:
        rows = [(*_id(agent), *tally) for tally in tallies]
        await self._db.do(
            lambda db: db.executemany("INSERT OR REPLACE INTO struck VALUES (?, ?, ?, ?, ?)", rows)
        )


def _id(agent: AgentId) -> tuple[str, str]:
    return agent.role, agent.name


def _save(db: sqlite3.Connection, agent: AgentId, changes: Sequence[Change]) -> None:
    for kind, key, record in changes:
        if record is None:
            db.execute(
                "DELETE FROM records WHERE role = ? AND agent = ? AND kind = ? AND key = ?",
                (*_id(agent), kind, key),
            )
        else:
            db.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
                (*_id(agent), kind, key, record),
            )
