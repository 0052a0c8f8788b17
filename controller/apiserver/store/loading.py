"""The start: one thread checks the file while another reads which objects there are."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from controller.apiserver.store import log, schema
from controller.apiserver.store.bodies import Bodies, Entry
from controller.apiserver.store.log import Head, Synchronous
from controller.apiserver.store.memory import ChangeType, Shelves

_DELETED = int(ChangeType.DELETED)


@dataclass
class Loaded:
    """What a database holds. ``garbage``: (version, the row that is history after it)."""

    version: int
    floor: int
    shelves: Shelves = field(default_factory=Shelves)
    garbage: deque[tuple[int, int]] = field(default_factory=deque)


async def load(path: Path, synchronous: Synchronous, bodies: Bodies) -> Loaded:
    """Raises CorruptStore: what the check found, if it found something."""
    await asyncio.to_thread(_prepare, path, synchronous)
    checked, loaded = await asyncio.gather(
        asyncio.to_thread(_check, path), asyncio.to_thread(_load, path, bodies),
        return_exceptions=True,
    )  # fmt: skip
    if isinstance(checked, BaseException):
        raise checked
    if isinstance(loaded, BaseException):
        raise loaded
    return loaded


def _prepare(path: Path, synchronous: Synchronous) -> None:
    log.open_log(path, synchronous).close()


def _check(path: Path) -> None:
    try:
        with closing(log.open_reader(path)) as connection:
            schema.check(connection, path, schema.CHECK_SECONDS)
    except sqlite3.DatabaseError as error:
        raise schema.damaged(path, error) from None


def _load(path: Path, bodies: Bodies) -> Loaded:
    try:
        with closing(log.open_reader(path)) as connection:
            found = Loaded(log.latest(connection), log.floor(connection))
            _fill(found, log.heads(connection), bodies)
            return found
    except sqlite3.DatabaseError as error:
        raise schema.damaged(path, error) from None


def _fill(found: Loaded, heads: Iterable[Head], bodies: Bodies) -> None:
    """One pass, as little as can be for each row: they are most of a large cloud's start."""
    last: tuple[str, str] | None = None
    entries: dict[str, Entry] = {}
    for version, type_, resource, namespace, name, previous in heads:
        if previous:
            found.garbage.append((version, previous))
        if type_ == _DELETED:
            found.garbage.append((version, version))
            found.shelves.of(resource).remove(namespace, name)
            last = None  # that may have been the last one there
            continue
        if last != (resource, namespace):
            last = (resource, namespace)
            entries = found.shelves.of(resource).load(sys.intern(namespace))
        entries[name] = Entry(version, bodies)
