"""Reads that many want at the same time are made once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Shared(Generic[K, T]):
    """``get(key)``: what ``read(key)`` returns or raises, begun after ``get`` was called.

    One read of a key is under way at a time; whoever asks meanwhile shares the next one. So the
    answer is never older than the question, and must not be changed: others have it too.
    """

    def __init__(self, read: Callable[[K], Awaitable[T]]) -> None:
        self._read = read
        self._running: dict[K, asyncio.Task[T]] = {}
        self._following: dict[K, asyncio.Task[T]] = {}

    async def get(self, key: K) -> T:
        task = self._following.get(key)
        if task is None:
            task = asyncio.create_task(self._run(key, self._running.get(key)))
            task.add_done_callback(_heard)
            self._following[key] = task
        # A caller that is cancelled leaves the read to the others.
        return await asyncio.shield(task)

    async def _run(self, key: K, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait([before])
        task = self._following.pop(key)
        self._running[key] = task
        try:
            return await self._read(key)
        finally:
            if self._running.get(key) is task:
                del self._running[key]


def _heard(task: asyncio.Task[T]) -> None:
    """A failure is the callers' to handle, and there may be none left."""
    if not task.cancelled():
        task.exception()
