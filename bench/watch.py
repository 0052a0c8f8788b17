"""What an event costs before its reconcile, and what an object keeps in memory.

``python -m bench.watch [machines]``: a feed, the store, the wakes and the queues of the real
kinds, on a server in memory that sends made-up machines. CPU time is the process's own, over the
whole way from the bytes of the answer to the key in the queue.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import resource
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from bench.machines import machine, volume
from controller.client import Resource
from controller.keys import Key
from controller.objects import resource_of
from controller.queue.queue import Queues, Verdict, WorkQueue
from controller.registry import discover
from controller.sharding.arcs import EVERYTHING, SPACE, Arcs
from controller.watch.feed import Feed
from controller.watch.store import ObjectStore
from controller.watch.wakes import Waker

Feeds = dict[str, tuple[Feed, "Sender"]]
PIECE = 2**16
PAGE = 500


class Sender:
    """Implements watch.feed.FeedApi: a list of made-up objects, then one event for each."""

    def __init__(self, kind: str, count: int) -> None:
        make = machine if kind == "VirtualMachine" else volume
        self._make, self._count = make, count
        self.done = asyncio.Event()
        self.go = asyncio.Event()
        self.events = b""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        raise NotImplementedError

    async def page(self, resource: Resource, query: Mapping[str, str]) -> dict[str, Any]:
        first = int(query.get("continue", 0))
        following = first + PAGE
        meta = {"resourceVersion": "1"}
        if following < self._count:
            meta["continue"] = str(following)
        items = [self._make(number) for number in range(first, min(following, self._count))]
        # As it comes over the wire: every string is a new one.
        found: dict[str, Any] = orjson.loads(orjson.dumps({"metadata": meta, "items": items}))
        return found

    def prepare(self, what: str, first: int) -> None:
        """One event of each of the first thousand, ready to be sent."""
        lines = []
        for number in range(1000):
            obj = self._make(number, 1 if what == "old" else first + number)
            if what == "progress":
                obj["status"]["lastOperationTime"] = f"2026-01-01T00:00:{first % 60:02}Z"
            elif what == "state":
                obj["status"]["state"] = ("Error", obj["status"]["state"])[first % 2]
            lines.append(orjson.dumps({"type": "MODIFIED", "object": obj}) + b"\n")
        self.events = b"".join(lines)

    @asynccontextmanager
    async def stream(
        self, resource: Resource, query: Mapping[str, str], silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            await self.go.wait()
            self.go.clear()
            for start in range(0, len(self.events), PIECE):
                yield self.events[start : start + PIECE]
            self.done.set()


async def measure(count: int) -> None:
    registry = discover()
    store = ObjectStore(registry.models, registry.quiet, registry.divided)
    queues = Queues()

    async def idle(_: Key) -> Verdict:
        return Verdict()

    for kind in registry.models:
        queues.open(WorkQueue(kind, idle, concurrency=1))
    store.subscribe(Waker(store, queues, registry.actuators))
    gc.collect()
    before = resident()
    feeds: Feeds = {}
    for kind in ("Volume", "VirtualMachine"):
        sender = Sender(kind, count)
        feed = Feed(sender, kind, resource_of(registry.models[kind]), store, store.apply)
        feeds[kind] = feed, sender
        feed.gain(EVERYTHING)
        began = time.process_time()
        task = asyncio.create_task(feed.run())
        await feed.settled()
        spent = time.process_time() - began
        gc.collect()
        now = resident()
        print(f"{kind}: listed {count:,}, {1000 * spent / count:.3f} CPU-ms each, making them "
              f"included; {(now - before) / count / 1024:.1f} KB resident each")  # fmt: skip
        before = now
        for what in ("old", "progress", "state"):
            await events(kind, sender, what)
        task.cancel()
        await asyncio.wait([task])
    await others(feeds, store, count, before)


async def others(feeds: Feeds, store: ObjectStore, count: int, full: int) -> None:
    """The same once nearly all is another replica's, known by reference; then with a watch that
    drops what is foreign, as of kinds that nobody refers to."""
    few = Arcs.of([(0, SPACE // 1000)])
    store.hold(few)
    gc.collect()
    trim()
    print(f"others' machines and volumes: {(full - resident()) / count / 1024:.1f} KB less of each")
    for kind, (feed, sender) in feeds.items():
        for what in ("another's", "dropped"):
            if what == "dropped":
                feed.lose(EVERYTHING - few)
            task = asyncio.create_task(feed.run())
            await feed.settled()
            for change in ("progress", "state") if what == "another's" else ("state",):
                await events(kind, sender, change, what)
            task.cancel()
            await asyncio.wait([task])


def trim() -> None:
    """Give back to the system what is free, so that it does not count as resident."""
    ctypes.CDLL(None).malloc_trim(0)


async def events(kind: str, sender: Sender, what: str, whose: str = "own") -> None:
    best = float("inf")
    for _ in range(5):
        VERSIONS[kind] = VERSIONS.get(kind, 1) + 1001
        sender.prepare(what, VERSIONS[kind])
        sender.done.clear()
        began = time.process_time()
        sender.go.set()
        await sender.done.wait()
        best = min(best, time.process_time() - began)
    began = time.process_time()
    for line in sender.events.splitlines():
        orjson.loads(line)
    floor = time.process_time() - began
    print(f"{kind}: {best:.3f} CPU-ms for an event, {whose}, {what}; {floor:.3f} of it the JSON of "
          f"{len(sender.events) // 1000} bytes")  # fmt: skip


VERSIONS: dict[str, int] = {}


def resident() -> int:
    """Bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    random.seed(4)
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
