"""The database's layout: made, brought up to date, and checked before it is used."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_log = logging.getLogger(__name__)
SCHEMA_VERSION = 1
CHECK_SECONDS = 2.0
"""How long a start may be held up by the check of the file."""
_OPERATIONS = 20_000

STEPS: Mapping[int, Sequence[str]] = {
    1: (
        """CREATE TABLE IF NOT EXISTS log (
            version INTEGER PRIMARY KEY,
            type INTEGER NOT NULL,
            resource TEXT NOT NULL,
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            previous INTEGER NOT NULL,
            body BLOB NOT NULL
        )""",
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL)"
        " WITHOUT ROWID",
        "INSERT OR IGNORE INTO meta VALUES ('floor', 0)",
    ),
}
"""What leads to each version from the one before it."""


class CorruptStore(Exception):
    """The file is damaged, or of a newer Kumulus. The message says what to do."""


def version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(
    connection: sqlite3.Connection, path: Path, steps: Mapping[int, Sequence[str]] = STEPS
) -> None:
    """Bring the database to the latest version: all of it or nothing, whenever it is interrupted.

    A database of an older version is kept beside the new one. Raises CorruptStore for a newer one.
    """
    latest, found = max(steps), version_of(connection)
    if found > latest:
        raise CorruptStore(
            f"{path} was written by a newer Kumulus (schema {found}, this one knows {latest}); "
            "run that version or newer, or restore a backup that this one made"
        )
    if found == latest:
        return
    if found:
        _keep(connection, path.with_name(f"{path.name}.schema-{found}"))
        _log.info("the database is brought up to date", extra={"from": found, "to": latest})
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(found + 1, latest + 1):
            for statement in steps[version]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={latest}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _keep(connection: sqlite3.Connection, target: Path) -> None:
    scratch = target.with_name(f"{target.name}.partial")
    scratch.unlink(missing_ok=True)
    copy = sqlite3.connect(scratch)
    try:
        scratch.chmod(0o600)
        connection.backup(copy)
    finally:
        copy.close()
    scratch.replace(target)


def check(connection: sqlite3.Connection, path: Path, seconds: float | None = None) -> bool:
    """Whether the whole file could be checked within ``seconds`` (None: however long it takes).

    Raises CorruptStore where it is damaged.
    """
    end = None if seconds is None else time.monotonic() + seconds

    def late() -> bool:
        return end is not None and time.monotonic() > end

    connection.set_progress_handler(late, _OPERATIONS)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        _log.warning(
            "the database was not checked to its end: it is large",
            extra={"path": str(path), "seconds": seconds},
        )
        return False
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise damaged(path, found.replace("*** in database main ***", ""))
    return True


def damaged(path: Path, why: object) -> CorruptStore:
    return CorruptStore(
        f"{path} is damaged ({' '.join(str(why).split())}); restore a backup (kumulus restore "
        "FILE), or move it away to start empty"
    )
