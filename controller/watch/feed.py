"""One partitioned kind: what is on this replica's arcs of the ring, kept up to date.

As ``client-go``'s reflectors do it: list once, note the version of the list, watch from there, go
on from the last version that an event or a bookmark named whenever the watch ends, list again
when the server no longer knows that version (410). Beyond that:

- Arcs come and go. What is gained is listed by itself, and the watch goes on, with the new arcs,
  from the version where it stood: events that the list has overtaken are old news to the store.
  What is lost is forgotten.
- A list is compared with the store, so that deletions are found that happened in between.
- DELETED means that an object has left the view. The object is read before it counts as gone,
  unless the event shows that its deletion is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from controller import metrics
from controller.client import Ahead, ApiUnavailable, Expired, Rejected, Resource
from controller.errors import KumulusError
from controller.keys import Key
from controller.sharding.arcs import EVERYTHING, NOTHING, Arcs
from controller.watch.base import Change, Raw, Sink, ghost
from controller.watch.doubts import Doubts
from controller.watch.entry import vanishing, version_of
from controller.watch.lines import Lines, parse
from controller.watch.store import ObjectStore

log = logging.getLogger(__name__)

CHUNK = 500
"""Objects in a page of a list."""
WATCH_SECONDS = (240.0, 480.0)
"""How long a watch is asked to last: drawn anew each time, so that not all end at once."""
SILENCE = 100.0
"""Seconds without a byte after which a watch is taken for dead. Servers send a bookmark each
minute."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
LONGEST_SELECTOR = 8000
"""Bytes; what is longer may not fit a request line, and the server then sends everything."""
REFUSAL = "invalid shard selector"
PATIENCE = 5
"""How often a server may say that it does not know our version yet. Then it is not the server
that lags: it has lost it, as one does that was restored from a backup."""
CUT_LISTS = 3
"""Lists in a row whose pages expired before the last one; then a list is one page."""


class FeedApi(Protocol):
    """The part of client.Api that is needed here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]: ...
    async def page(self, resource: Resource, query: Mapping[str, str]) -> dict[str, Any]: ...
    def stream(
        self, resource: Resource, query: Mapping[str, str], silence: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


@dataclass
class Feed:
    """Give it arcs with ``want``; ``run`` it. ``held``: the arcs that the store is complete for."""

    api: FeedApi
    kind: str
    resource: Resource
    store: ObjectStore
    sink: Sink
    dice: random.Random = field(default_factory=random.Random)
    held: Arcs = field(default=NOTHING, init=False)
    wanted: Arcs = field(default=NOTHING, init=False)
    _version: str = field(default="", init=False)
    _newest: int = field(default=0, init=False)
    _filtered: bool | None = field(default=None, init=False)
    _listed: Arcs = field(default=NOTHING, init=False)
    _failures: int = field(default=0, init=False)
    _lost_versions: int = field(default=0, init=False)
    _cut_lists: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._turned = asyncio.Event()
        self._settled = asyncio.Event()
        self._foreign = metrics.FOREIGN_EVENTS.labels(self.kind)
        self._relists = metrics.WATCH_RELISTS.labels(self.kind)
        self._doubts = Doubts(self.api, self.resource, self.store, self._tell, self._owned)

    # -- arcs

    def gain(self, arcs: Arcs) -> None:
        """Look at these arcs too. All on them is read anew, even what is known already."""
        self._turn(self.wanted | arcs, anew=arcs)

    def lose(self, arcs: Arcs) -> None:
        """Look at these arcs no longer, and forget what lies there."""
        self._turn(self.wanted - arcs, anew=arcs)
        for key in self.store.keys(self.kind):
            entry = self.store.entry(key)
            if entry is not None and entry.place in arcs:
                self.store.forget(key)

    def _turn(self, wanted: Arcs, anew: Arcs) -> None:
        self.wanted = wanted
        self.held -= anew
        self._listed -= anew
        self._settled.clear()
        self._turned.set()

    async def settled(self) -> None:
        """Until the store has everything on the arcs that are wanted."""
        await self._settled.wait()

    # -- running

    async def run(self) -> None:
        """For ever. Raises nothing but CancelledError."""
        async with _alongside(self._doubts.run(), f"doubts {self.kind}"):
            while True:
                await self._attempt()

    async def _attempt(self) -> None:
        try:
            await self._align()
            await self._follow()
        except (Expired, Ahead) as error:
            self._lost_versions += 1
            if isinstance(error, Expired) or self._lost_versions > PATIENCE:
                log.info("listing again", extra={"kind": self.kind, "why": error.message})
                self._restart()
            await self._pause(error)
        except KumulusError as error:
            log.warning("watch interrupted", extra={"kind": self.kind, "why": error.message})
            await self._pause(error)
        except Exception as error:  # one senseless answer must not end the watch
            log.exception("watch interrupted", extra={"kind": self.kind})
            await self._pause(error)

    def _restart(self) -> None:
        """The version is lost: everything is listed again."""
        self._version, self.held, self._filtered = "", NOTHING, None
        self._settled.clear()
        self._relists.inc()

    async def _pause(self, error: Exception) -> None:
        self._failures += 1
        own = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10))
        asked = getattr(error, "retry_after", None) or 0.0
        # Less than our own at random, more than what the server asks for.
        share = self.dice.random() / 2
        await asyncio.sleep(max(own * (1 - share), asked * (1 + share)))

    # -- listing

    async def _align(self) -> None:
        """Bring the store to the arcs that are wanted; they may turn meanwhile."""
        self._turned.clear()
        while self.wanted and not (self._version and self.held == self.wanted):
            self._listed = self.wanted - self.held
            version = await self._list(self._listed)
            self._version = self._version or version
            self.held |= self._listed
        self._turned.clear()
        self._settled.set()

    async def _list(self, arcs: Arcs) -> str:
        """Take in all that is on ``arcs``; returns the version of the list."""
        query = await self._selection(arcs)
        if self._cut_lists < CUT_LISTS:
            query["limit"] = str(CHUNK)
        seen: set[str] = set()
        page = await self._page(query)
        version = str(page["metadata"]["resourceVersion"])
        self._heed_history(version_of(page["metadata"]))
        while True:
            for item in page.get("items") or ():
                self._present(item)
                seen.add(item["metadata"]["uid"])
            following = page["metadata"].get("continue")
            if not following:
                break
            page = await self._page({**query, "continue": following})
        self._compare(seen, self._newest)
        self._failures = self._cut_lists = 0
        return version

    async def _page(self, query: Mapping[str, str]) -> dict[str, Any]:
        try:
            return await self.api.page(self.resource, query)
        except Expired:
            self._cut_lists += 1
            raise

    def _heed_history(self, version: int) -> None:
        """A list that is older than what was seen before: the server's past has changed."""
        if version < self._newest:
            log.warning("the API server went back in time", extra={"kind": self.kind})
            for key in self.store.keys(self.kind):
                self.store.forget(key)
            self._version, self.held = "", NOTHING
        self._newest = version

    def _compare(self, seen: set[str], version: int) -> None:
        """What was not listed is gone, unless it is newer than the list."""
        lost = 0
        for key in self.store.keys(self.kind):
            entry = self.store.entry(key)
            if entry is None or entry.uid in seen or entry.version > version:
                continue
            if entry.place in self._listed:
                lost += 1
                self._missing(key, entry.uid)
        if lost:
            metrics.LOST_EVENTS.labels(self.kind).inc(lost)
            log.info("deleted unseen", extra={"kind": self.kind, "objects": lost})

    def _missing(self, key: Key, uid: str) -> None:
        """Gone, if the list was of everything; else it may have been filtered wrongly."""
        if self._filtered:
            self._doubts.add(key, uid)
        else:
            self._tell(Change.GONE, ghost(key, uid))

    async def _selection(self, arcs: Arcs) -> dict[str, str]:
        """The parameter that has the server send what is on ``arcs`` alone, if it can."""
        selector = "" if arcs == EVERYTHING else arcs.selector()
        if not selector or len(selector) > LONGEST_SELECTOR:
            return {}
        if self._filtered is None:
            self._filtered = await self._supported()
        return {"shardSelector": selector} if self._filtered else {}

    async def _supported(self) -> bool:
        """Does the server know shardSelector? One that does not, ignores what is malformed. One
        that does, refuses it: with 400, or with 500 for custom resources in Kubernetes 1.36."""
        try:
            await self.api.page(self.resource, {"limit": "1", "shardSelector": "malformed"})
        except Rejected:
            return True
        except ApiUnavailable as error:
            if REFUSAL in error.message:
                return True
            raise
        return False

    # -- watching

    async def _follow(self) -> None:
        """Watch until the watch ends, breaks, or the arcs turn."""
        if not self.held:
            self._version = ""
            await self._turned.wait()
            return
        async with _alongside(self._read(), f"watch {self.kind}") as reading:
            async with _alongside(self._turned.wait(), f"turn {self.kind}") as turning:
                await asyncio.wait((reading, turning), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()

    async def _read(self) -> None:
        query = {
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(round(self.dice.uniform(*WATCH_SECONDS))),
            **await self._selection(self.held),
        }
        lines, began = Lines(), asyncio.get_running_loop().time()
        async with self.api.stream(self.resource, query, SILENCE) as pieces:
            async for piece in pieces:
                for line in lines.feed(piece):
                    self._take(line)
        if asyncio.get_running_loop().time() - began < 1.0:
            # A server that ends every watch at once must not be asked without end.
            await asyncio.sleep(FIRST_PAUSE * (0.5 + self.dice.random()))

    def _take(self, line: bytes) -> None:
        event = parse(line)
        obj = event["object"]
        if event["type"] != "BOOKMARK" and not named(obj):
            log.warning("an event without a name is ignored", extra={"kind": self.kind})
        elif event["type"] == "DELETED":
            self._left(obj)
        elif event["type"] != "BOOKMARK":
            self._present(obj)
        self._advance(obj["metadata"])
        self._failures = self._lost_versions = 0

    def _advance(self, meta: Mapping[str, Any]) -> None:
        """Go on from here; never from before, though servers may repeat themselves."""
        version = version_of(meta)
        if version >= self._newest:
            self._newest, self._version = version, str(meta["resourceVersion"])

    def _present(self, obj: Raw) -> None:
        if self._owned(obj["metadata"]["uid"]):
            self._tell(Change.PRESENT, obj)
        else:
            self._foreign.inc()

    def _left(self, obj: Raw) -> None:
        meta = obj["metadata"]
        if not self._owned(meta["uid"]):
            self._foreign.inc()
        elif vanishing(meta):
            self._tell(Change.GONE, obj)
        else:
            self._doubts.add(self._key(meta), meta["uid"])

    def _owned(self, uid: str) -> bool:
        """Is it on the arcs that are wanted? Asked of every event, whatever the server filters."""
        return self.wanted == EVERYTHING or self.wanted.covers(uid)

    def _key(self, meta: Mapping[str, Any]) -> Key:
        return Key(self.kind, meta.get("namespace") or "", meta["name"])

    def _tell(self, change: Change, obj: Raw) -> None:
        try:
            self.sink(change, self.kind, obj)
        except Exception:  # a strange object must not hide the others
            log.exception("event not taken in", extra={"kind": self.kind})


def named(obj: Raw) -> bool:
    """Does it say which object it is?"""
    return bool(obj["metadata"].get("uid") and obj["metadata"].get("name"))


@contextlib.asynccontextmanager
async def _alongside(work: Coroutine[Any, Any, Any], name: str) -> AsyncIterator[asyncio.Task[Any]]:
    """Have ``work`` done in the background of the block, and ended with it."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
