"""How a watcher gets the changes: at once while it can take them, else from a bounded queue.

One write to 200 watchers is 200 times whatever is done for each. A task that is woken, takes what
is there and sends it costs four times the sending; so a watcher that waits leaves a function
behind (``sink``), and all of these are called in one turn of the loop after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from controller.apiserver.store.memory import Change

Sink = Callable[[list[Change]], None]


class Subscription:
    """A watcher's changes. ``overflowed`` is set when it was too slow; it gets no more.

    ``due``: where a subscription puts itself when it has something for its sink; ``deliver`` is
    called then. ``sink`` must not raise.
    """

    def __init__(self, limit: int, size_limit: int, due: list[Subscription] | None = None) -> None:
        self._limit = limit
        self._size_limit = size_limit
        self._size = 0
        self._changes: deque[Change] = deque()
        self._wake = asyncio.Event()
        self._due = [] if due is None else due
        self._is_due = False
        self.sink: Sink | None = None
        self.overflowed = False
        self.closed = False

    def push(self, change: Change) -> None:
        if self.overflowed:
            return
        self._size += change.size
        if len(self._changes) >= self._limit or self._size > self._size_limit:
            self.overflowed = True
            self._changes.clear()
        else:
            self._changes.append(change)
        if self.sink is None or self.overflowed:
            self._wake.set()
        elif not self._is_due:
            self._is_due = True
            self._due.append(self)

    def deliver(self) -> None:
        """Give what is there to the sink, or to who waits if it is gone meanwhile."""
        self._is_due = False
        if self.sink is None:
            self._wake.set()
        elif self._changes:
            self.sink(self._taken())

    def close(self) -> None:
        """Wake the reader for the last time."""
        self.closed = True
        self._wake.set()

    def wake(self) -> None:
        """End the reader's wait, though nothing came."""
        self._wake.set()

    def take(self) -> list[Change]:
        """All that is queued, without waiting."""
        self._wake.clear()
        if self.closed or self.overflowed:
            self._wake.set()
        return self._taken()

    def _taken(self) -> list[Change]:
        found = list(self._changes)
        self._changes.clear()
        self._size = 0
        return found

    async def wait(self, seconds: float) -> bool:
        """Whether something came within ``seconds`` that no sink took."""
        if self._wake.is_set():
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        return self._wake.is_set()
