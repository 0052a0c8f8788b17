"""What the store keeps in memory: which objects there are, and the latest changes in full."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from controller.apiserver.store.bodies import Bodies, Entry

_FRESH = 256
"""How many of the latest changes keep what watchers derive from them."""


class ChangeType(IntEnum):
    """As the log stores it; the names are the watch's."""

    ADDED = 1
    MODIFIED = 2
    DELETED = 3


class ObjectKey(NamedTuple):
    """Which object. ``resource`` is ``group/plural``, the group empty for core kinds."""

    resource: str
    namespace: str
    name: str


class Change:
    """One committed write. Shared by all watchers, so what they derive from it is kept here."""

    __slots__ = ("_object", "_old", "entry", "key", "lines", "previous", "size", "type")

    def __init__(
        self, type_: ChangeType, key: ObjectKey, entry: Entry, previous: Entry | None
    ) -> None:
        self.type = type_
        self.key = key
        self.entry = entry
        self.previous = previous
        self.size = len(entry.body)
        self.lines: dict[object, bytes] = {}
        self._object: dict[str, Any] | None = None
        self._old: dict[str, Any] | None = None

    @property
    def version(self) -> int:
        return self.entry.version

    @property
    def object(self) -> dict[str, Any]:
        """The object after the change (its last state if deleted). Not to be changed."""
        if self._object is None:
            self._object = self.entry.object()
        return self._object

    @property
    def old(self) -> dict[str, Any] | None:
        """The object before the change. Not to be changed."""
        if self._old is None and self.previous is not None:
            self._old = self.previous.object()
        return self._old

    def rest(self) -> None:
        """Drop what was derived: most watchers have seen it. It is made again if need be."""
        self.lines.clear()
        self._object = self._old = None


class Shelf:
    """The current objects of one resource, in key order.

    By namespace, then by name: 50,000 keys that are tuples would take four megabytes.
    """

    __slots__ = ("_entries", "_order")

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}
        self._order: dict[str, list[str]] = {}
        """Names in order; of a namespace that was loaded, from the first time they are wanted."""

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def get(self, namespace: str, name: str) -> Entry | None:
        entries = self._entries.get(namespace)
        return None if entries is None else entries.get(name)

    def put(self, namespace: str, name: str, entry: Entry) -> None:
        entries = self._entries.setdefault(namespace, {})
        if name not in entries and (order := self._order.get(namespace)) is not None:
            insort(order, name)
        entries[name] = entry

    def load(self, namespace: str) -> dict[str, Entry]:
        """Where a start puts the objects of a namespace, by name."""
        return self._entries.setdefault(namespace, {})

    def remove(self, namespace: str, name: str) -> None:
        entries = self._entries.get(namespace, {})
        if entries.pop(name, None) is None:
            return
        if (order := self._order.get(namespace)) is not None:
            del order[bisect_left(order, name)]
        if not entries:
            del self._entries[namespace]
            self._order.pop(namespace, None)

    def _names(self, namespace: str) -> list[str]:
        order = self._order.get(namespace)
        if order is None:
            order = self._order[namespace] = sorted(self._entries[namespace])
        return order

    def keys(
        self, namespace: str = "", after: tuple[str, str] | None = None
    ) -> list[tuple[str, str]]:
        """Keys in order: of one namespace if given, beyond ``after`` if given."""
        wanted = [namespace] if namespace else sorted(self._entries)
        found: list[tuple[str, str]] = []
        for each in wanted:
            if each not in self._entries or (after is not None and each < after[0]):
                continue
            names = self._names(each)
            start = bisect_right(names, after[1]) if after and each == after[0] else 0
            found += [(each, name) for name in names[start:]]
        return found

    def entries(self, keys: list[tuple[str, str]]) -> list[Entry]:
        found = self._entries
        return [found[namespace][name] for namespace, name in keys]


class Ring:
    """The latest changes, bounded in number and bytes.

    Every change later than ``floor`` is here. Their objects are in memory as long as they are;
    ``bodies`` has them afterwards.
    """

    def __init__(self, capacity: int, capacity_bytes: int, floor: int, bodies: Bodies) -> None:
        self._bodies = bodies
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._changes: deque[Change] = deque()
        self.floor = floor

    def append(self, change: Change) -> None:
        self._changes.append(change)
        self._bytes += change.size
        if len(self._changes) > _FRESH:
            self._changes[-1 - _FRESH].rest()
        while len(self._changes) > self._capacity or self._bytes > self._capacity_bytes:
            oldest = self._changes.popleft()
            self._bytes -= oldest.size
            self.floor = oldest.version
            oldest.rest()
            oldest.entry.let_go(self._bodies)

    def since(self, version: int) -> list[Change]:
        """Changes later than ``version``, oldest first. ``version`` must not be below floor."""
        found: list[Change] = []
        for change in reversed(self._changes):
            if change.version <= version:
                break
            found.append(change)
        found.reverse()
        return found


class Shelves:
    """All current objects, by resource."""

    def __init__(self) -> None:
        self._by_resource: dict[str, Shelf] = {}

    def of(self, resource: str) -> Shelf:
        shelf = self._by_resource.get(resource)
        if shelf is None:
            shelf = self._by_resource[resource] = Shelf()
        return shelf

    def get(self, key: ObjectKey) -> Entry | None:
        return self.of(key.resource).get(key.namespace, key.name)

    def apply(self, change: Change) -> None:
        shelf = self.of(change.key.resource)
        if change.type is ChangeType.DELETED:
            shelf.remove(change.key.namespace, change.key.name)
        else:
            shelf.put(change.key.namespace, change.key.name, change.entry)

    def __iter__(self) -> Iterator[tuple[str, Shelf]]:
        return iter(list(self._by_resource.items()))
