"""The log on disk: one SQLite table that is only appended to.

The row id is the resourceVersion. A row holds the whole object after the write, and the id of
the row it replaces, so that the state at any version since the last compaction can be told.
Compaction drops rows that were replaced (or say "deleted") before a version, the floor.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from controller.apiserver.store import schema
from controller.apiserver.store.schema import CorruptStore

Synchronous = Literal["FULL", "NORMAL", "OFF"]


class Row(NamedTuple):
    """A row of the log; ``previous`` is the version it replaces, or 0."""

    version: int
    type: int
    resource: str
    namespace: str
    name: str
    previous: int
    body: bytes


LIVE = "type != 3 AND version NOT IN (SELECT previous FROM log WHERE previous != 0)"
"""Which rows are objects that there are: not deletions, and not replaced."""
Head = tuple[int, int, str, str, str, int]
"""A row without its body."""
_TOGETHER = 64
_WRITER_CACHE, _READER_CACHE = 1024, 256
"""KiB of pages that SQLite keeps itself; the system has them all. Rows are read by their id and
written at the end, so the inner nodes of one tree are what comes again."""
PAGE_BYTES = 8192
"""A usual object takes two kilobytes: of the usual pages of four it would fill half of one."""


class HistoryRow(NamedTuple):
    """A row together with the body it replaced."""

    row: Row
    old_body: bytes | None


def open_log(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """A connection for writing, with the schema in place. Raises CorruptStore.

    synchronous FULL: every commit reaches the disk before it is acknowledged (survives power
    loss). NORMAL: survives kill -9, may lose the last moments at power loss. OFF: for tests.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        connection = _connect(path)
    except sqlite3.Error as error:
        raise _unusable(path, error) from None
    try:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new file
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute(f"PRAGMA cache_size=-{_WRITER_CACHE}")
        schema.migrate(connection, path)
    except sqlite3.OperationalError as error:
        connection.close()
        raise _unusable(path, error) from None
    except sqlite3.DatabaseError as error:
        connection.close()
        raise schema.damaged(path, error) from None
    except CorruptStore:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


def _unusable(path: Path, why: sqlite3.Error) -> CorruptStore:
    return CorruptStore(
        f"{path} cannot be used ({why}); see to the disk's room and to the file's permissions"
    )


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection for reading beside the writer's (WAL: neither waits for the other)."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only=1")
    connection.execute(f"PRAGMA cache_size=-{_READER_CACHE}")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)


def floor(connection: sqlite3.Connection) -> int:
    """The version up to which history is gone."""
    return int(connection.execute("SELECT value FROM meta WHERE key='floor'").fetchone()[0])


def heads(connection: sqlite3.Connection) -> Iterator[Head]:
    """The whole log without its objects, oldest first."""
    return connection.execute(
        "SELECT version, type, resource, namespace, name, previous FROM log ORDER BY version"
    )


def latest(connection: sqlite3.Connection) -> int:
    """The latest version ever given."""
    found = connection.execute("SELECT coalesce(max(version), 0) FROM log").fetchone()[0]
    return max(int(found), floor(connection))


def bodies(connection: sqlite3.Connection, versions: Sequence[int]) -> dict[int, bytes]:
    """The objects of these rows, as far as they are there."""
    marks = ",".join("?" * len(versions))
    return dict(
        connection.execute(f"SELECT version, body FROM log WHERE version IN ({marks})", versions)  # noqa: S608 marks are marks
    )


def append(connection: sqlite3.Connection, batch: Sequence[Row]) -> None:
    """All of ``batch`` or nothing.

    One statement for many rows: each statement gives the interpreter to the event loop, which
    returns it in its own time.
    """
    if len(batch) <= _TOGETHER:
        _insert(connection, batch)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for start in range(0, len(batch), _TOGETHER):
            _insert(connection, batch[start : start + _TOGETHER])
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    values = ",".join(["(?,?,?,?,?,?,?)"] * len(rows))
    connection.execute(f"INSERT INTO log VALUES {values}", list(chain.from_iterable(rows)))  # noqa: S608 marks alone


def raise_floor(connection: sqlite3.Connection, version: int) -> None:
    """Declare history up to ``version`` gone; comes before the rows are dropped."""
    connection.execute("UPDATE meta SET value=? WHERE key='floor' AND value<?", (version, version))


def drop(connection: sqlite3.Connection, versions: Sequence[int]) -> None:
    """Drop rows that nobody can ask for any more."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("DELETE FROM log WHERE version=?", ((v,) for v in versions))
    connection.execute("COMMIT")


def history(
    connection: sqlite3.Connection, resource: str, after: int, limit: int, upto: int
) -> list[HistoryRow]:
    """Rows of a resource with ``after`` < version ≤ ``upto``, oldest first."""
    cursor = connection.execute(
        "SELECT l.version, l.type, l.resource, l.namespace, l.name, l.previous, l.body, p.body"
        " FROM log l LEFT JOIN log p ON p.version = l.previous"
        " WHERE l.version > ? AND l.version <= ? AND l.resource = ? ORDER BY l.version LIMIT ?",
        (after, upto, resource, limit),
    )
    return [HistoryRow(Row(*found[:7]), found[7]) for found in cursor]
