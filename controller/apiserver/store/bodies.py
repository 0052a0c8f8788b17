"""Reads objects back from the log: memory holds the JSON of what was written lately alone.

Look-ups are by row id, in pages that the system caches (about 10 µs one by one, 6 µs in bulk), so
they are done on the event loop; whoever wants many asks for a slice at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from controller.apiserver.store import log

CACHE_BYTES = 4 * 2**20
SLICE = 250
"""Entries in one look-up; about a millisecond."""


class Forgotten(Exception):
    """The version was compacted away meanwhile: whoever wants it is too slow."""


class Entry:
    """An object as it is stored: its resourceVersion and its JSON. Identity is that of a write."""

    __slots__ = ("_held", "version")

    def __init__(self, version: int, held: bytes | Bodies) -> None:
        self.version = version
        self._held = held

    @property
    def body(self) -> bytes:
        """Raises Forgotten for a version that is no longer current (a current one is there)."""
        held = self._held
        return held if isinstance(held, bytes) else held.read(self.version)

    @property
    def held(self) -> bytes | None:
        """The JSON if it is in memory."""
        return self._held if isinstance(self._held, bytes) else None

    def let_go(self, bodies: Bodies) -> None:
        """Read it from the log from now on: it is committed."""
        self._held = bodies

    def object(self) -> dict[str, Any]:
        """Parsed anew at each call: the caller may change it."""
        parsed: dict[str, Any] = orjson.loads(self.body)
        return parsed


class Bodies:
    """A connection for look-ups, and what was read last."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._connection: sqlite3.Connection | None = None
        self._cache: dict[int, bytes] = {}
        self._room = cache_bytes

    def open(self, path: Path) -> None:
        self._connection = log.open_reader(path)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def read(self, version: int) -> bytes:
        """Raises Forgotten."""
        body = self._cache.get(version)
        if body is None:
            body = self._look_up([version]).get(version)
            if body is None:
                raise Forgotten(version)
            self._remember(version, body)
        return body

    def of(self, entries: Sequence[Entry]) -> list[bytes]:
        """The JSON of many (SLICE at most). Raises Forgotten."""
        found = self._look_up([entry.version for entry in entries if entry.held is None])
        try:
            return [entry.held or found[entry.version] for entry in entries]
        except KeyError as error:
            raise Forgotten(error.args[0]) from None

    def _look_up(self, versions: Sequence[int]) -> dict[int, bytes]:
        assert self._connection is not None
        return log.bodies(self._connection, versions) if versions else {}

    def _remember(self, version: int, body: bytes) -> None:
        self._cache[version] = body
        self._room -= len(body)
        while self._room < 0:
            self._room += len(self._cache.pop(next(iter(self._cache))))
