"""The log on disk: one SQLite table that is only appended to.

The row id is the resourceVersion. A row holds the whole object after the write, and the id of
the row it replaces, so that the state at any version since the last compaction can be told.
Compaction drops rows that were replaced (or say "deleted") before a version, the floor.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from controller.apiserver.store.memory import ChangeType

Synchronous = Literal["FULL", "NORMAL", "OFF"]
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    version INTEGER PRIMARY KEY,
    type INTEGER NOT NULL,
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    previous INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('floor', 0);
"""


class CorruptStore(Exception):
    """The file is damaged, or of a newer Kumulus. The message says what to do."""


class Row(NamedTuple):
    """A row of the log; ``previous`` is the version it replaces, or 0."""

    version: int
    type: int
    resource: str
    namespace: str
    name: str
    previous: int
    body: bytes


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
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        _check(connection, path)
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except sqlite3.DatabaseError as error:
        raise CorruptStore(
            f"{path} is no usable database ({error}); restore it from a backup, or move it away "
            "to start empty"
        ) from None
    path.chmod(0o600)
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection for reading beside the writer's (WAL: neither waits for the other)."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only=1")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise CorruptStore(
            f"{path} was written by a newer Kumulus (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); run that version or newer"
        )
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise CorruptStore(
            f"{path} is damaged ({found}); restore it from a backup, or move it away to start empty"
        )


def floor(connection: sqlite3.Connection) -> int:
    """The version up to which history is gone."""
    return int(connection.execute("SELECT value FROM meta WHERE key='floor'").fetchone()[0])


def rows(connection: sqlite3.Connection) -> Iterator[Row]:
    """The whole log, oldest first."""
    cursor = connection.execute(
        "SELECT version, type, resource, namespace, name, previous, body FROM log ORDER BY version"
    )
    return (Row(*found) for found in cursor)


def append(connection: sqlite3.Connection, batch: Sequence[Row]) -> None:
    """All of ``batch`` or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany("INSERT INTO log VALUES (?,?,?,?,?,?,?)", _reordered(batch))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _reordered(batch: Sequence[Row]) -> Iterable[tuple[object, ...]]:
    return ((r.version, r.type, r.resource, r.namespace, r.name, r.previous, r.body) for r in batch)


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


def is_deletion(row: Row) -> bool:
    return row.type == ChangeType.DELETED
