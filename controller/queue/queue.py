"""The work queue of one kind.

A key is in it at most once, and at most one task works on it. What is added while it is being
worked on makes it run again afterwards. A stuck or slow kind holds up nobody but itself: each has
its own queue with its own bound on concurrency.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from controller import metrics
from controller.keys import Key
from controller.queue.backoff import Backoff
from controller.queue.lane import Lanes, Priority

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What a worker says after a key. ``done``: it went well; the key's back-off starts afresh.
    ``retry``: it failed; again with back-off, or after ``after`` seconds if that is given.
    ``after`` with ``done``: seconds until the next look even if nothing wakes the key."""

    end: Literal["done", "retry"] = "done"
    after: float | None = None


Worker = Callable[[Key], Awaitable[Verdict]]


class WorkQueue:
    """Runs ``worker`` on keys, in tasks of its own. Use within one event loop.

    Nothing runs before start(). Time is the loop's.
    """

    def __init__(
        self, name: str, worker: Worker, *, concurrency: int, backoff: Backoff | None = None
    ) -> None:
        self.name = name
        self._worker = worker
        self._concurrency = concurrency
        self._backoff = backoff or Backoff()
        self._loop = asyncio.get_running_loop()
        self._ready = Lanes()
        self._active: dict[Key, asyncio.Task[None]] = {}
        self._dirty: dict[Key, Priority] = {}
        self._draining: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None
        self._running = False
        metrics.QUEUE_DEPTH.labels(name).set_function(lambda: len(self._ready))
        metrics.QUEUE_ACTIVE.labels(name).set_function(lambda: len(self._active))
        metrics.QUEUE_DELAYED.labels(name).set_function(lambda: len(self._due))
        # Looking up a metric's labels costs more than counting.
        self._age = metrics.QUEUE_AGE.labels(name)

    # -- what callers do

    def add(self, key: Key, priority: Priority = Priority.CHANGE) -> None:
        """Have ``key`` worked on soon."""
        if key in self._active:
            self._dirty[key] = min(priority, self._dirty.get(key, priority))
            return
        self._ready.push(key, priority, self._loop.time())
        self._dispatch()

    def add_after(self, key: Key, delay: float) -> None:
        """Have ``key`` worked on in ``delay`` seconds at the latest. Starting to work on it for
        another reason before then serves that purpose, too."""
        due = self._loop.time() + max(0.0, delay)
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._count), key))
        self._set_alarm()

    def forget(self, key: Key) -> None:
        """The object is gone: drop its back-off and its appointment."""
        self._backoff.reset(key)
        self._due.pop(key, None)

    def start(self) -> None:
        self._running = True
        self._dispatch()

    async def drain(self, concerned: Callable[[Key], bool], grace: float) -> None:
        """End all work on some keys, and drop their appointments: let what runs end for ``grace``
        seconds, then cancel it. To keep new work out is the caller's affair."""
        for key in [key for key in self._due if concerned(key)]:
            self.forget(key)
        running = {key: task for key, task in self._active.items() if concerned(key)}
        self._draining.update(running)
        if running and grace:
            await asyncio.wait(running.values(), timeout=grace)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        for key, task in running.items():
            if self._active.get(key) is task:  # cancelled before it had begun
                self._finish(key, Verdict("retry"))

    async def stop(self, grace: float) -> None:
        """Start nothing more; what still runs after ``grace`` seconds is cancelled."""
        self._running = False
        if self._alarm is not None:
            self._alarm.cancel()
        if self._active:
            await asyncio.wait(self._active.values(), timeout=grace)
        await self._cancel_active()

    @property
    def idle(self) -> bool:
        """Nothing is ready or being worked on (appointments do not count)."""
        return not self._ready and not self._active

    # -- inside

    def _dispatch(self) -> None:
        while self._running and len(self._active) < self._concurrency:
            following = self._ready.pop()
            if following is None:
                break
            key, since = following
            self._due.pop(key, None)
            self._age.observe(self._loop.time() - since)
            self._active[key] = self._loop.create_task(self._work(key), name=f"work {key}")

    async def _work(self, key: Key) -> None:
        verdict = Verdict("retry")
        try:
            verdict = await self._worker(key)
        except asyncio.CancelledError:
            self._dirty.setdefault(key, Priority.CHANGE)
            raise
        except Exception:
            log.exception("worker failed", extra={"key": str(key)})
        finally:
            self._finish(key, verdict)

    def _finish(self, key: Key, verdict: Verdict) -> None:
        del self._active[key]
        if key in self._draining:
            self._draining.discard(key)
            self._dirty.pop(key, None)
            self.forget(key)
            self._dispatch()
            return
        if verdict.end == "done":
            self._backoff.reset(key)
        after = verdict.after
        if verdict.end == "retry":
            metrics.QUEUE_RETRIES.labels(self.name).inc()
            delay = self._backoff.next(key)
            after = delay if after is None else after
        if after is not None:
            self.add_after(key, after)
        dirty = self._dirty.pop(key, None)
        if dirty is not None:
            self._ready.push(key, dirty, self._loop.time())
        self._dispatch()

    async def _cancel_active(self) -> None:
        tasks = list(self._active.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _set_alarm(self) -> None:
        """Wake when the earliest appointment is due; skip those that were dropped or moved."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._heap:
            self._alarm = self._loop.call_at(self._heap[0][0], self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._set_alarm()


class Queues:
    """The queues of all kinds. ``admits``: the door; a key that it does not admit is dropped."""

    def __init__(self, admits: Callable[[Key], bool] = lambda _: True) -> None:
        self._queues: dict[str, WorkQueue] = {}
        self._admits = admits

    def open(self, queue: WorkQueue) -> WorkQueue:
        self._queues[queue.name] = queue
        return queue

    def add(self, key: Key, priority: Priority = Priority.CHANGE) -> None:
        """Keys of kinds without a queue are ignored: nobody works on them."""
        queue = self._queues.get(key.kind)
        if queue is not None and self._admits(key):
            queue.add(key, priority)

    def add_after(self, key: Key, delay: float) -> None:
        queue = self._queues.get(key.kind)
        if queue is not None and self._admits(key):
            queue.add_after(key, delay)

    def start(self) -> None:
        for queue in self._queues.values():
            queue.start()

    async def drain(self, concerned: Callable[[Key], bool], grace: float) -> None:
        await asyncio.gather(*(each.drain(concerned, grace) for each in self._queues.values()))

    async def stop(self, grace: float) -> None:
        await asyncio.gather(*(queue.stop(grace) for queue in self._queues.values()))

    @property
    def idle(self) -> bool:
        return all(queue.idle for queue in self._queues.values())
