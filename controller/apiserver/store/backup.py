"""Copies of the database: made while the server runs, put back while it does not."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from controller.apiserver.store import log, schema
from controller.apiserver.store.lock import StoreLock
from controller.apiserver.store.schema import CorruptStore

_BUMP = 1_000_000
"""How far versions jump at a restore: beyond all that a client can have seen since the backup."""
_SIDE_FILES = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Summary:
    """What a database holds: its latest version and how many objects."""

    version: int
    objects: int
    size: int


def backup(database: Path, target: Path) -> Summary:
    """Copy ``database`` as it is at one moment; its server goes on working.

    ``target`` appears when it is complete, checked and on disk. Raises FileNotFoundError where
    there is no database, FileExistsError, CorruptStore.
    """
    if not database.exists():
        raise FileNotFoundError(f"there is no database {database}")
    if target.exists():
        raise FileExistsError(f"{target} exists; choose another name")
    scratch = target.with_name(f".{target.name}.partial")
    scratch.unlink(missing_ok=True)
    try:
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL, 0o600))
        _copy(database, scratch)
        found = inspect(scratch)
        _settle(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
    return found


def restore(source: Path, database: Path) -> Summary:
    """Put a backup in the place of ``database``, which is kept beside it (``….before-restore``).

    Versions go on far beyond those of before, and history before the restore is gone: clients
    are told so (410) and list again, instead of taking new writes for old ones. Raises
    StoreInUse while a server runs, CorruptStore for a file that is no sound backup.
    """
    summary = inspect(source)
    lock = StoreLock(database)
    lock.take()
    scratch = database.with_name(f"{database.name}.restoring")
    try:
        scratch.unlink(missing_ok=True)
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL, 0o600))
        _copy(source, scratch)
        _jump(scratch, max(summary.version, _latest(database)) + _BUMP)
        _set_aside(database)
        _settle(scratch, database)
    finally:
        scratch.unlink(missing_ok=True)
        lock.release()
    return summary


def inspect(path: Path) -> Summary:
    """Check a database that nobody writes to, to its end. Raises CorruptStore."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with closing(_read_only(path)) as connection:
            found = schema.version_of(connection)
            if not 1 <= found <= schema.SCHEMA_VERSION:
                raise CorruptStore(
                    f"{path} is no backup that this Kumulus can read (schema {found}, this one "
                    f"knows 1 to {schema.SCHEMA_VERSION})"
                )
            schema.check(connection, path)
            return _summary(connection, path)
    except sqlite3.DatabaseError as error:
        raise CorruptStore(f"{path} is no sound backup ({error})") from None


def _summary(connection: sqlite3.Connection, path: Path) -> Summary:
    live = connection.execute(f"SELECT count(*) FROM log WHERE {log.LIVE}").fetchone()[0]  # noqa: S608 a constant
    return Summary(log.latest(connection), live, path.stat().st_size)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)


def _copy(source: Path, target: Path) -> None:
    """One read transaction: a consistent state, which keeps no writer waiting (WAL)."""
    try:
        with closing(log.open_reader(source)) as reader, closing(sqlite3.connect(target)) as copy:
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError as error:
        raise schema.damaged(source, error) from None


def _jump(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, path)
        log.raise_floor(connection, version)


def _latest(database: Path) -> int:
    """The latest version of the database that is replaced; 0 where it cannot be read."""
    try:
        with closing(log.open_reader(database)) as connection:
            return _summary(connection, database).version
    except (sqlite3.Error, OSError):
        return 0


def _set_aside(database: Path) -> None:
    kept = database.with_name(f"{database.name}.before-restore")
    for suffix in ("", *_SIDE_FILES):
        there = database.with_name(database.name + suffix)
        aside = kept.with_name(kept.name + suffix)
        if there.exists():
            there.replace(aside)
        else:
            aside.unlink(missing_ok=True)


def _settle(scratch: Path, target: Path) -> None:
    """Bytes to disk, then the name, then the directory's entry."""
    with scratch.open("rb") as handle:
        os.fsync(handle.fileno())
    scratch.replace(target)
    directory = os.open(target.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
