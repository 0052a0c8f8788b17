"""The durable table of operations: what was asked, what came of it, who was told.

A row is written before 202 is answered and rewritten when the work ends. An operation that runs
is ``Pending`` here: after a crash it runs again, which is what idempotence is for. Arguments go
when the work has ended (they may hold user data); results stay for a while.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import orjson

from agents.database import Database
from agents.drivers.base import AgentId
from agents.wire import Error, Operation, OperationReply

SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    role TEXT NOT NULL, agent TEXT NOT NULL, id TEXT NOT NULL,
    action TEXT NOT NULL, resource TEXT NOT NULL, args BLOB, callback TEXT,
    state TEXT NOT NULL, result BLOB, code TEXT, message TEXT, finished REAL,
    UNIQUE (role, agent, id));
CREATE INDEX IF NOT EXISTS unfinished ON operations (seq) WHERE finished IS NULL;
CREATE INDEX IF NOT EXISTS untold ON operations (seq)
    WHERE finished IS NOT NULL AND callback IS NOT NULL;
CREATE INDEX IF NOT EXISTS age ON operations (finished) WHERE finished IS NOT NULL;
CREATE TABLE IF NOT EXISTS fences (
    role TEXT NOT NULL, agent TEXT NOT NULL, generation INTEGER NOT NULL,
    PRIMARY KEY (role, agent));
"""
_REPLY = "id, state, result, code, message"


@dataclass(frozen=True)
class Entry:
    """An operation in the table. ``seq`` grows with each time that it is asked for anew.
    ``generation``: of the ring, when it was asked for; 0 for what a former process left."""

    seq: int
    agent: AgentId
    operation: Operation
    generation: int = 0


@dataclass(frozen=True)
class Admission:
    """What became of one operation of a batch: to be run (``entry``), or known already."""

    entry: Entry | None
    reply: OperationReply


@dataclass(frozen=True)
class Untold:
    """A finished operation whose callback has not been delivered."""

    seq: int
    agent: AgentId
    callback: str
    finished: float
    reply: OperationReply


class Journal:
    def __init__(self, path: Path, *, executor: Executor | None = None) -> None:
        self._db = Database(path, SCHEMA, executor=executor)

    async def open(self) -> None:
        """Raises database.InUse."""
        await self._db.open()

    async def close(self) -> None:
        await self._db.close()

    async def admit(
        self, agent: AgentId, generation: int, operations: Sequence[Operation]
    ) -> list[Admission]:
        """Record what is new or failed before, raise the fence; one Admission each, in order."""

        def work(db: sqlite3.Connection) -> list[Admission]:
            db.execute(
                "INSERT INTO fences VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET generation ="
                " max(generation, excluded.generation)",
                (agent.role, agent.name, generation),
            )
            return [_admit(db, agent, operation, generation) for operation in operations]

        return await self._db.do(work)

    async def finish(self, entry: Entry, reply: OperationReply, now: float) -> None:
        """Record how the work ended, at ``now`` (seconds since the epoch)."""
        error = reply.error or Error(code="", message="")
        values = (reply.state, orjson.dumps(reply.result), error.code, error.message, now)
        await self._db.do(
            lambda db: db.execute(
                "UPDATE operations SET state = ?, result = ?, code = ?, message = ?,"
                " finished = ?, args = NULL WHERE seq = ?",
                (*values, entry.seq),
            )
        )

    async def told(self, seq: int) -> None:
        """The callback was delivered, or given up."""
        await self._db.do(
            lambda db: db.execute("UPDATE operations SET callback = NULL WHERE seq = ?", (seq,))
        )

    async def read(self, agent: AgentId, id: str) -> OperationReply | None:
        """State of one operation; None if it was never asked for, or long ago."""
        return await self._db.do(lambda db: _find(db, agent, id))

    async def unfinished(self) -> list[Entry]:
        """What a former process left, in the order it was asked for."""
        columns = "seq, role, agent, id, action, resource, args, callback"
        return await self._db.do(
            lambda db: [
                _entry(row)
                for row in db.execute(
                    f"SELECT {columns} FROM operations WHERE finished IS NULL ORDER BY seq"  # noqa: S608
                )
            ]
        )

    async def untold(self) -> list[Untold]:
        """Finished operations whose callback a former process did not deliver."""
        return await self._db.do(
            lambda db: [
                Untold(row[0], AgentId(row[2], row[1]), row[3], row[4], _reply(row[5:]))
                for row in db.execute(
                    f"SELECT seq, role, agent, callback, finished, {_REPLY} FROM operations"  # noqa: S608
                    " WHERE finished IS NOT NULL AND callback IS NOT NULL ORDER BY seq"
                )
            ]
        )

    async def fences(self) -> dict[AgentId, int]:
        """agent → highest ring generation that it has seen."""
        return await self._db.do(
            lambda db: {
                AgentId(agent, role): generation
                for role, agent, generation in db.execute("SELECT * FROM fences")
            }
        )

    async def prune(self, before: float, keep: int) -> int:
        """Forget what ended before ``before``, and all but the ``keep`` latest; how many."""

        def work(db: sqlite3.Connection) -> int:
            old = db.execute("DELETE FROM operations WHERE finished < ?", (before,)).rowcount
            many = db.execute(
                "DELETE FROM operations WHERE finished IS NOT NULL AND seq <= (SELECT seq FROM"
                " operations WHERE finished IS NOT NULL ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (keep,),
            ).rowcount
            return old + many

        return await self._db.do(work)


def _admit(
    db: sqlite3.Connection, agent: AgentId, operation: Operation, generation: int
) -> Admission:
    key = (agent.role, agent.name, operation.id)
    row = db.execute(
        f"SELECT action, resource, {_REPLY} FROM operations"  # noqa: S608
        " WHERE role = ? AND agent = ? AND id = ?",
        key,
    ).fetchone()
    if row is not None:
        if row[:2] != (operation.action, operation.resource):
            return Admission(None, _reused(operation, *row[:2]))
        reply = _reply(row[2:])
        if reply.state == "Pending":
            # The one who asks now is the one to tell.
            db.execute(
                "UPDATE operations SET callback = ? WHERE role = ? AND agent = ? AND id = ?",
                (operation.callback, *key),
            )
        if reply.state != "Failed":
            return Admission(None, reply)
    # A failed one gets a new seq: it queues behind what came in between.
    cursor = db.execute(
        "INSERT OR REPLACE INTO operations (role, agent, id, action, resource, args, callback,"
        " state) VALUES (?, ?, ?, ?, ?, ?, ?, 'Pending')",
        (
            *key,
            operation.action,
            operation.resource,
            orjson.dumps(operation.args),
            operation.callback,
        ),
    )
    entry = Entry(int(cursor.lastrowid or 0), agent, operation, generation)
    return Admission(entry, OperationReply(id=operation.id, state="Pending"))


def _reused(operation: Operation, action: str, resource: str) -> OperationReply:
    message = (
        f"operation id {operation.id} was used for {action} on {resource}; "
        f"give {operation.action} on {operation.resource} an id of its own"
    )
    error = Error(code="conflict", message=message)
    return OperationReply(id=operation.id, state="Failed", error=error)


def _find(db: sqlite3.Connection, agent: AgentId, id: str) -> OperationReply | None:
    row = db.execute(
        f"SELECT {_REPLY} FROM operations WHERE role = ? AND agent = ? AND id = ?",  # noqa: S608
        (agent.role, agent.name, id),
    ).fetchone()
    return None if row is None else _reply(row)


def _reply(row: Iterable[object]) -> OperationReply:
    id, state, result, code, message = row
    return OperationReply.model_validate(
        {
            "id": id,
            "state": state,
            "result": orjson.loads(result) if isinstance(result, bytes) else {},
            "error": {"code": code, "message": message} if code else None,
        }
    )


def _entry(row: tuple[object, ...]) -> Entry:
    seq, role, agent, id, action, resource, args, callback = row
    operation = Operation.model_validate(
        {
            "id": id,
            "action": action,
            "resource": resource,
            "args": orjson.loads(args) if isinstance(args, bytes) else {},
            "callback": callback,
        }
    )
    return Entry(
        int(str(seq)), AgentId(str(agent), "host" if role == "host" else "store"), operation
    )
