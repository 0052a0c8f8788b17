"""SQLite off the event loop, with group commit.

Work is a function of the connection. What is asked for while a transaction runs goes into the
next one together, so a commit's cost is shared when there is much to do and nobody waits when
there is little. A process killed at any moment loses nothing that was committed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_GROUP = 512
"""Works per transaction."""
LINGER = 0.002
"""Seconds between transactions while there is much to do: what comes meanwhile shares one."""


class InUse(Exception):
    """Another process has the database open."""


class InlineExecutor(Executor):
    """Runs work at once, in the caller's thread. For tests with virtual time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # as an executor must: the waiter gets it
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class _Work:
    run: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]


class Database:
    """One SQLite file, used by this process alone."""

    def __init__(self, path: Path, schema: str, *, executor: Executor | None = None) -> None:
        """schema: statements that make what is not there yet. The parent directory exists."""
        self._path = path
        self._schema = schema
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="database")
        self._waiting: list[_Work] = []
        self._flusher: asyncio.Task[None] | None = None
        self._connection: sqlite3.Connection | None = None
        self._flushed = -LINGER

    async def open(self) -> None:
        """Raises InUse."""
        loop = asyncio.get_running_loop()
        self._connection = await loop.run_in_executor(self._executor, self._connect)

    async def close(self) -> None:
        """Ends when everything asked for before is committed."""
        while self._flusher is not None:
            await asyncio.shield(self._flusher)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await asyncio.get_running_loop().run_in_executor(self._executor, connection.close)
        self._executor.shutdown(wait=False)

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a transaction; returns once it is committed.

        An exception of ``work`` undoes that work alone. Works run in the order they were asked
        for; a caller that is cancelled does not take its work back.
        """
        if self._connection is None:
            raise RuntimeError(f"{self._path} is not open")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Work(work, done))
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush_all(), name="database")
        return await done

    async def _flush_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if loop.time() < self._flushed + LINGER:
                    await asyncio.sleep(LINGER)
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                outcomes = await loop.run_in_executor(self._executor, self._transact, group)
                for work, outcome in zip(group, outcomes, strict=True):
                    _settle(work.done, outcome)
                self._flushed = loop.time()
        finally:
            self._flusher = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=1.0
        )
        try:
            # Exclusive: two agents with one table of operations would each do everything.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(self._schema)
        except sqlite3.OperationalError as error:
            connection.close()
            if "locked" in str(error):
                raise InUse(
                    f"{self._path} is in use by another agent process; stop it, or give this one "
                    "a --data-dir of its own"
                ) from None
            raise
        if self._path.exists():  # Arguments may hold user data: nobody else reads them.
            self._path.chmod(0o600)
        return connection

    def _transact(self, group: list[_Work]) -> list[Any]:
        connection = self._connection
        if connection is None:
            return [RuntimeError("closed")] * len(group)
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_attempt(connection, work) for work in group]
            connection.execute("COMMIT")
        except sqlite3.Error as error:  # the disk is full or gone: none of it happened
            log.exception("database transaction failed")
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return [error] * len(group)
        return outcomes


def _attempt(connection: sqlite3.Connection, work: _Work) -> Any:
    connection.execute("SAVEPOINT work")
    try:
        outcome = work.run(connection)
    except Exception as error:  # handed to whoever asked
        if connection.in_transaction:
            connection.execute("ROLLBACK TO work")
        outcome = error
    connection.execute("RELEASE work")
    return outcome


def _settle(done: asyncio.Future[Any], outcome: Any) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
