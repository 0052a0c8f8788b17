"""The database under the ledger: threads, transactions, and what its errors mean.

Every call is one short transaction on a worker thread: one writer thread for SQLite (it has one
writer anyway), a small pool for MariaDB. A transaction that lost a race (unique key, deadlock,
lock wait) runs again, from its start, with jitter, for PATIENCE seconds; so it must have no effect
but its own writes.

SQLite's writes wait for the disk at each commit. So what has come meanwhile is committed together,
and nobody hears of success before that. If one of a group fails, each runs again on its own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from controller.errors import Terminal, Transient
from controller.ledger.base import PERMIT
from controller.ledger.fence import fenced

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for which a transaction that loses races, or meets a busy database, is tried again."""

CONNECT_SECONDS = 3
STATEMENT_SECONDS = 15
LOCK_SECONDS = 3
IDLE_SECONDS = 2
"""Within a transaction; MariaDB then ends the connection, and undoes what it did."""
THREADS = 8
MAX_WAITING = 1024
"""Calls that may queue for a thread; beyond that the caller waits before it queues."""
GROUP = 64
"""Writes to SQLite that are committed together at most."""

_RACES = {1020, 1062, 1205, 1213}
"""MariaDB: changed since read, duplicate key, lock wait timeout, deadlock."""
_BUSY = {1040, 1047, 1053}
"""MariaDB: too many connections, Galera node not ready, shutting down."""


class Database:
    """An open database. ``close`` it."""

    def __init__(self, url: str, *, patience: float = PATIENCE, read_only: bool = False) -> None:
        parsed = _parse(url)
        self.shown = parsed.render_as_string(hide_password=True)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self._patience = patience
        if self.sqlite:
            self._engine = _sqlite(_unwritable(parsed) if read_only else parsed, patience)
        else:
            self._engine = _mariadb(parsed, read_only)
        self._reading = self._engine.execution_options(ledger_read=True)
        self._writers = ThreadPoolExecutor(1 if self.sqlite else THREADS, "ledger-write")
        self._readers = ThreadPoolExecutor(2, "ledger-read") if self.sqlite else self._writers
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._group: deque[tuple[Callable[[Connection], Any], Future[Any]]] = deque()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """One transaction. Raises what ``work`` or the caller's PERMIT raises (it is then undone),
        or Transient."""
        permit = PERMIT.get()

        def permitted(connection: Connection) -> T:
            permit(partial(fenced, connection))
            return work(connection)

        async with self._room:
            if not self.sqlite:
                done = self._writers.submit(self._transact, self._engine, permitted)
                return await _to_its_end(done)
            future: Future[T] = Future()
            self._group.append((permitted, future))
            self._writers.submit(self._write_group)
            return await _to_its_end(future)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """One transaction that changes nothing."""
        async with self._room:
            return await _to_its_end(self._readers.submit(self._transact, self._reading, work))

    async def close(self) -> None:
        """Finish what is queued and disconnect."""
        for executor in {self._writers, self._readers}:
            await asyncio.to_thread(executor.shutdown)
        self._engine.dispose()

    def _write_group(self) -> None:
        """Take and do what waits: perhaps nothing, when the one before has taken it all."""
        group: list[tuple[Callable[[Connection], Any], Future[Any]]] = []
        while self._group and len(group) < GROUP:
            work, future = self._group.popleft()
            if future.set_running_or_notify_cancel():
                group.append((work, future))
        if not group:
            return
        try:
            with self._engine.begin() as connection:
                results = [work(connection) for work, _ in group]
        except Exception:
            for work, future in group:
                self._write_alone(work, future)
        else:
            for (_, future), result in zip(group, results, strict=True):
                future.set_result(result)

    def _write_alone(self, work: Callable[[Connection], T], future: Future[T]) -> None:
        try:
            future.set_result(self._transact(self._engine, work))
        except BaseException as error:
            future.set_exception(error)

    def _transact(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + self._patience
        pause = 0.002
        while True:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not _worth_retrying(error) or time.monotonic() > deadline:
                    raise self._explain(error) from None
            except SQLAlchemyError as error:
                raise Transient(
                    f"the ledger's database {self.shown} failed: {error}", reason="LedgerFailed"
                ) from None
            # Full jitter: competitors that lost the same race do not meet again.
            time.sleep(random.uniform(0, pause))  # noqa: S311
            pause = min(pause * 2, 0.25)

    def _explain(self, error: DBAPIError) -> Transient:
        """The driver's own words; never the statement or its parameters."""
        cause = _words(error)
        if isinstance(error, IntegrityError) or _code(error) in _RACES:
            return Transient(
                f"the ledger {self.shown} is contended: {cause}; it is tried again",
                reason="LedgerBusy",
            )
        return Transient(
            f"the ledger's database {self.shown} cannot be used: {cause}; check that it runs, "
            "and its address, user and free space",
            reason="LedgerUnavailable",
        )


async def _to_its_end(future: Future[T]) -> T:
    """The thread's result. A cancelled caller waits for a transaction that has begun, so that
    none of its effects can come after what the caller does next (as a rollback's release)."""
    wrapped = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(wrapped)
    except asyncio.CancelledError:
        if not future.cancel():
            await asyncio.wait([wrapped])
            if not wrapped.cancelled():
                wrapped.exception()
        raise


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise Terminal(
            "the ledger's URL is malformed; write sqlite:////path/to/file or "
            "mariadb://user:password@host:3306/database",
            reason="LedgerMisconfigured",
        ) from None
    if parsed.get_backend_name() in ("mysql", "mariadb"):
        return parsed.set(drivername="mysql+pymysql")
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    raise Terminal(
        f"the ledger cannot be kept in {parsed.render_as_string()}; "
        "use sqlite:////path/to/file or mariadb://user:password@host:3306/database",
        reason="LedgerMisconfigured",
    )


def _unwritable(url: URL) -> URL:
    """The same file, opened so that nothing can be written. Raises Terminal if there is none."""
    path = Path(url.database or "").absolute()
    if not path.exists():
        raise Terminal(f"there is no ledger at {path}; name it with --database")
    return url.set(database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})


def _mariadb(url: URL, read_only: bool = False) -> Engine:
    session = "" if not read_only else ", SESSION tx_read_only=1"
    return create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=THREADS,
        max_overflow=0,
        pool_recycle=1800,
        pool_reset_on_return=None,  # every transaction ends with its block: saves a round trip
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": STATEMENT_SECONDS,
            "write_timeout": STATEMENT_SECONDS,
            # A process that is stopped within a transaction must not hold others up for long.
            "init_command": f"SET SESSION innodb_lock_wait_timeout={LOCK_SECONDS}, "
            f"SESSION idle_transaction_timeout={IDLE_SECONDS}{session}",
        },
    )


def _sqlite(url: URL, patience: float) -> Engine:
    wait = min(LOCK_SECONDS, patience)
    engine = create_engine(
        url, connect_args={"timeout": wait}, pool_size=3, pool_reset_on_return=None
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours: the driver would send it too late
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get("ledger_read", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _worth_retrying(error: DBAPIError) -> bool:
    if isinstance(error, IntegrityError) or error.connection_invalidated:
        return True
    if "database is locked" in str(error.orig) or "database table is locked" in str(error.orig):
        return True
    return _code(error) in _RACES | _BUSY


def _code(error: DBAPIError) -> int:
    first = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return first if isinstance(first, int) else 0


def _words(error: DBAPIError) -> str:
    arguments = error.orig.args if error.orig is not None else ()
    return str(arguments[-1]) if arguments else type(error).__name__
