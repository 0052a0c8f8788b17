"""The one thread that writes the log. Writes that come together share a transaction."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.apiserver.store import log
from controller.apiserver.store.log import Row, Synchronous
from controller.apiserver.store.memory import Change


@dataclass(frozen=True)
class Append:
    """A write to commit. ``epoch`` changes when a commit failed (see ``Writer``)."""

    change: Change
    row: Row
    epoch: int


@dataclass(frozen=True)
class Compact:
    """Raise the floor, drop these rows."""

    floor: int
    versions: Sequence[int]


Done = Callable[[Sequence[Append], Exception | None], None]
_STOP = None


class Writer:
    """Commits in the order of ``submit``.

    ``done`` is called in this thread once for each batch, with the error if it failed. After a
    failure everything of the same epoch is refused: it was computed on top of what is not there.
    """

    def __init__(self, path: Path, synchronous: Synchronous, done: Done) -> None:
        self._path = path
        self._synchronous = synchronous
        self._done = done
        self._queue: queue.SimpleQueue[Sequence[Append] | Compact | None] = queue.SimpleQueue()
        self._broken_epoch = -1
        self._thread = threading.Thread(target=self._run, name="apiserver-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, item: Sequence[Append] | Compact) -> None:
        """Writes that are to be committed together, or a compaction."""
        self._queue.put(item)

    def stop(self) -> None:
        """Commit what is queued, then end. Blocks (seconds at most)."""
        self._queue.put(_STOP)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        connection = log.open_log(self._path, self._synchronous)
        try:
            while self._round(connection):
                pass
        finally:
            connection.close()

    def _round(self, connection: sqlite3.Connection) -> bool:
        item = self._queue.get()
        if item is _STOP:
            return False
        if isinstance(item, Compact):
            _compact(connection, item)
        else:
            self._commit(connection, item)
        return True

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[Append]) -> None:
        good = [item for item in batch if item.epoch > self._broken_epoch]
        stale = [item for item in batch if item.epoch <= self._broken_epoch]
        if stale:
            self._done(stale, RuntimeError("an earlier write failed"))
        if not good:
            return
        try:
            log.append(connection, [item.row for item in good])
        except sqlite3.Error as error:
            self._broken_epoch = good[-1].epoch
            self._done(good, error)
        else:
            self._done(good, None)


def _compact(connection: sqlite3.Connection, item: Compact) -> None:
    # A compaction that fails (a full disk) is tried again with the next: the rows stay.
    try:
        log.raise_floor(connection, item.floor)
        log.drop(connection, item.versions)
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
