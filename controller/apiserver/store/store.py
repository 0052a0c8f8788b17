"""The store's face: reads from memory, writes through the log, subscriptions to changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.apiserver.store import log
from controller.apiserver.store.bodies import SLICE, Bodies, Entry
from controller.apiserver.store.loading import load
from controller.apiserver.store.lock import StoreLock
from controller.apiserver.store.log import Row, Synchronous
from controller.apiserver.store.memory import (
    Change,
    ChangeType,
    ObjectKey,
    Ring,
    Shelf,
    Shelves,
)
from controller.apiserver.store.subscription import Subscription
from controller.apiserver.store.writer import Append, Compact, Writer

_log = logging.getLogger(__name__)
_CHUNK = 1000
_DROP_CHUNK = 2000


class StoreFailure(Exception):
    """A write could not be committed (a full disk, say). Nothing of it is stored."""


@dataclass
class Limits:
    """Bounds of what is kept. History: changes kept for watches that resume."""

    ring_changes: int = 4096
    ring_bytes: int = 4 * 2**20
    watcher_queue: int = 4096
    watcher_bytes: int = 16 * 2**20
    history_seconds: float = 300.0
    history_changes: int = 200_000


class Store:
    """Everything is called from one event loop; only the writer thread is beside it.

    Reads see what is committed. ``head`` also sees writes that are under way, which is what the
    next write of the same object must build on.
    """

    def __init__(
        self, path: Path, synchronous: Synchronous = "FULL", limits: Limits | None = None
    ) -> None:
        self._path = path
        self._limits = limits or Limits()
        self._shelves = Shelves()
        self._bodies = Bodies()
        self._pending: dict[ObjectKey, Change] = {}
        self._waiting: list[Append] = []
        self._committing = False
        self._futures: dict[int, asyncio.Future[Entry]] = {}
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._due: list[Subscription] = []
        self._listeners: list[Callable[[Change], None]] = []
        self._garbage: deque[tuple[int, int]] = deque()
        self._marks: deque[tuple[float, int]] = deque()
        self._epoch = 0
        self._writer = Writer(path, synchronous, self._done)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = StoreLock(path)
        self._reader: sqlite3.Connection | None = None
        self._reading = asyncio.Lock()
        self._ring = Ring(0, 0, 0, self._bodies)
        self._synchronous = synchronous
        self._last = 0
        self.version = 0
        """The latest committed version."""
        self.floor = 0
        """History up to this version is gone."""

    async def start(self) -> None:
        """Read the log. Raises CorruptStore and StoreInUse."""
        self._loop = asyncio.get_running_loop()
        self._lock.take()
        try:
            found = await load(self._path, self._synchronous, self._bodies)
        except BaseException:
            self._lock.release()
            raise
        self.version = self._last = found.version
        self.floor, self._shelves, self._garbage = found.floor, found.shelves, found.garbage
        limits = self._limits
        self._ring = Ring(limits.ring_changes, limits.ring_bytes, self.version, self._bodies)
        self._marks.append((time.monotonic(), self.version))
        self._reader = log.open_reader(self._path)
        self._bodies.open(self._path)
        self._writer.start()

    async def close(self) -> None:
        """Commit what is under way and end. Subscriptions are woken and closed."""
        self.end_subscriptions()
        self._commit()
        await asyncio.to_thread(self._writer.stop)
        if self._reader is not None:
            self._reader.close()
        self._bodies.close()
        self._lock.release()

    def end_subscriptions(self) -> None:
        """Wake every watcher for the last time."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.close()

    # Reading

    def get(self, key: ObjectKey) -> Entry | None:
        """The committed object."""
        return self._shelves.get(key)

    def head(self, key: ObjectKey) -> Entry | None:
        """The object as the latest write, committed or under way, leaves it."""
        change = self._pending.get(key)
        if change is None:
            return self._shelves.get(key)
        return None if change.type is ChangeType.DELETED else change.entry

    def shelf(self, resource: str) -> Shelf:
        return self._shelves.of(resource)

    async def bodies(self, entries: Sequence[Entry]) -> AsyncIterator[list[bytes]]:
        """The JSON of many entries, slice by slice; others get their turn between.

        Raises Forgotten if they are no longer current and were compacted away meanwhile.
        """
        for start in range(0, len(entries), SLICE):
            if start:
                await asyncio.sleep(0)
            yield self.read(entries[start : start + SLICE])

    def read(self, entries: Sequence[Entry]) -> list[bytes]:
        """As ``bodies``, at once: SLICE entries at most."""
        return self._bodies.of(entries)

    def resources(self) -> list[str]:
        """Resources of which there is or was an object."""
        return [resource for resource, _ in self._shelves]

    async def undo(self, resource: str, version: int) -> dict[tuple[str, str], Entry | None]:
        """What every object changed since ``version`` was at ``version`` (None: not there).

        Up to the moment of returning: nothing is published between that and the caller's next step.
        Raises KeyError if history does not reach back so far.
        """
        found: dict[tuple[str, str], Entry | None] = {}
        async for change in self._changes(resource, version):
            key = (change.key.namespace, change.key.name)
            found.setdefault(key, change.previous)
        return found

    # Writing

    def write(
        self, type_: ChangeType, key: ObjectKey, build: Callable[[int], bytes]
    ) -> asyncio.Future[Entry]:
        """Queue a write; ``build`` makes the body for the version that it gets.

        The caller has checked ``head`` in the same step of the loop. The future ends when the
        write is on disk; it raises StoreFailure.
        """
        assert self._loop is not None
        self._last += 1
        entry = Entry(self._last, build(self._last))
        previous = self.head(key)
        change = Change(type_, key, entry, previous)
        row = Row(entry.version, type_, *key, previous.version if previous else 0, entry.body)
        future: asyncio.Future[Entry] = self._loop.create_future()
        self._futures[entry.version] = future
        self._pending[key] = change
        self._waiting.append(Append(change, row, self._epoch))
        if not self._committing:
            self._committing = True
            self._loop.call_soon(self._commit)
        return future

    def _commit(self) -> None:
        """Hand over what waits. What comes until that is on disk waits together for the next."""
        batch, self._waiting = self._waiting, []
        self._committing = bool(batch)
        if batch:
            self._writer.submit(batch)

    def _done(self, batch: Sequence[Append], error: Exception | None) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, batch, error)

    def _settle(self, batch: Sequence[Append], error: Exception | None) -> None:
        assert self._loop is not None
        self._commit()
        if error is not None:
            self._fail(batch, error)
            return
        for item in batch:
            self._publish(item.change)
        if self._due:
            self._loop.call_soon(self._deliver)
        for item in batch:
            future = self._futures.pop(item.change.version)
            if not future.done():
                future.set_result(item.change.entry)

    def _publish(self, change: Change) -> None:
        if self._pending.get(change.key) is change:
            del self._pending[change.key]
        self._shelves.apply(change)
        self.version = change.version
        if change.previous is not None:
            self._garbage.append((change.version, change.previous.version))
        if change.type is ChangeType.DELETED:
            self._garbage.append((change.version, change.version))
        self._ring.append(change)
        for listener in self._listeners:
            listener(change)
        for subscription in self._subscriptions.get(change.key.resource, ()):
            subscription.push(change)

    def _deliver(self) -> None:
        due, self._due[:] = self._due[:], ()
        for subscription in due:
            subscription.deliver()

    def _fail(self, batch: Sequence[Append], error: Exception) -> None:
        _log.error("a write failed", extra={"error": str(error), "writes": len(batch)})
        if any(item.epoch == self._epoch for item in batch):
            # Whatever is under way was computed on top of this batch: the writer refuses it too.
            self._epoch += 1
            self._pending.clear()
        for item in batch:
            future = self._futures.pop(item.change.version)
            if not future.done():
                future.set_exception(StoreFailure(f"the write could not be stored: {error}"))

    # Watching

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call ``listener`` for every committed change, before the writer is answered."""
        self._listeners.append(listener)

    def subscribe(self, resource: str) -> Subscription:
        """Changes of a resource committed from now on. ``unsubscribe`` when done."""
        limits = self._limits
        subscription = Subscription(limits.watcher_queue, limits.watcher_bytes, self._due)
        self._subscriptions.setdefault(resource, set()).add(subscription)
        return subscription

    def unsubscribe(self, resource: str, subscription: Subscription) -> None:
        self._subscriptions.get(resource, set()).discard(subscription)

    async def resume(
        self, resource: str, version: int
    ) -> AsyncIterator[tuple[list[Change], Subscription | None]]:
        """Changes later than ``version`` in pieces; the last comes with the live subscription.

        Raises KeyError if history does not reach back so far.
        """
        if version < self.floor:
            raise KeyError(version)
        while version < (floor := self._ring.floor):
            piece = await self._read(resource, version, floor)
            version = piece[-1].version if len(piece) == _CHUNK else floor
            yield piece, None
        recent = [c for c in self._ring.since(version) if c.key.resource == resource]
        yield recent, self.subscribe(resource)

    async def _changes(self, resource: str, after: int) -> AsyncIterator[Change]:
        while after < self._ring.floor:
            floor = self._ring.floor
            piece = await self._read(resource, after, floor)
            for change in piece:
                yield change
            after = piece[-1].version if len(piece) == _CHUNK else floor
        for change in self._ring.since(after):
            if change.key.resource == resource:
                yield change

    async def _read(self, resource: str, after: int, upto: int) -> list[Change]:
        if after < self.floor:
            raise KeyError(after)
        async with self._reading:
            found = await asyncio.to_thread(self._history, resource, after, upto)
        if after < self.floor:  # compacted meanwhile
            raise KeyError(after)
        return found

    def _history(self, resource: str, after: int, upto: int) -> list[Change]:
        assert self._reader is not None
        return [
            Change(
                ChangeType(row.type),
                ObjectKey(row.resource, row.namespace, row.name),
                Entry(row.version, row.body),
                Entry(row.previous, old) if old is not None else None,
            )
            for row, old in log.history(self._reader, resource, after, _CHUNK, upto)
        ]

    # Compacting

    def compact(self, now: float | None = None) -> None:
        """Forget history beyond the limits. Call now and then (a minute apart)."""
        now = time.monotonic() if now is None else now
        self._marks.append((now, self.version))
        target = self.floor
        while self._marks and self._marks[0][0] <= now - self._limits.history_seconds:
            target = self._marks.popleft()[1]
        target = max(target, self.version - self._limits.history_changes)
        self.compact_to(target)

    def compact_to(self, version: int) -> None:
        """Forget history up to ``version``."""
        version = min(version, self.version)
        if version <= self.floor:
            return
        self.floor = version
        dropped: list[int] = []
        while self._garbage and self._garbage[0][0] <= version:
            dropped.append(self._garbage.popleft()[1])
        for start in range(0, max(len(dropped), 1), _DROP_CHUNK):
            self._writer.submit(Compact(version, dropped[start : start + _DROP_CHUNK]))
