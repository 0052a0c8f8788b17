"""Which key is next: fair between namespaces, changes before resyncs. No time, no tasks."""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from controller.keys import Key

RESYNC_SHARE = 16
"""One key in so many comes from the resyncs even while changes wait: they are not starved."""


class Priority(IntEnum):
    CHANGE = 0
    RESYNC = 1


class Lane:
    """Keys of one priority: first come first served in a namespace, round robin between them."""

    def __init__(self) -> None:
        self._spaces: dict[str, deque[Key]] = {}
        self._turn: deque[str] = deque()

    def push(self, key: Key) -> None:
        space = self._spaces.get(key.namespace)
        if space is None:
            space = self._spaces[key.namespace] = deque()
            self._turn.append(key.namespace)
        space.append(key)

    def pop(self) -> Key | None:
        if not self._turn:
            return None
        namespace = self._turn.popleft()
        space = self._spaces[namespace]
        key = space.popleft()
        if space:
            self._turn.append(namespace)
        else:
            del self._spaces[namespace]
        return key


class Lanes:
    """A set of keys with an order. Adding a key again keeps its place, or moves it up."""

    def __init__(self) -> None:
        self._lanes = (Lane(), Lane())
        self._wanted: dict[Key, tuple[Priority, float]] = {}
        self._popped = 0

    def __len__(self) -> int:
        return len(self._wanted)

    def __contains__(self, key: Key) -> bool:
        return key in self._wanted

    def push(self, key: Key, priority: Priority, now: float) -> None:
        """``now``: since when it waits, to measure its age. A key moved up keeps its age."""
        old = self._wanted.get(key)
        if old is not None and old[0] <= priority:
            return
        self._wanted[key] = (priority, old[1] if old else now)
        self._lanes[priority].push(key)

    def pop(self) -> tuple[Key, float] | None:
        """The next key, and since when it waits."""
        self._popped += 1
        first = Priority.RESYNC if self._popped % RESYNC_SHARE == 0 else Priority.CHANGE
        for priority in (first, Priority(1 - first)):
            # A key that was moved up left its old place behind: it no longer counts.
            while (key := self._lanes[priority].pop()) is not None:
                wanted = self._wanted.get(key)
                if wanted is not None and wanted[0] == priority:
                    del self._wanted[key]
                    return key, wanted[1]
        return None

    def discard(self, key: Key) -> None:
        self._wanted.pop(key, None)
