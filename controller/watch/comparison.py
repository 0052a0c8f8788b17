"""Comparing the store's keys with the API server's: what the watch has lost is found here.

At the start it fills the store, so that nobody mistakes an object that has not been listed yet for
a missing one. Afterwards it lists only metadata, and reads what it has to.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller import metrics
from controller.client import Api, Expired, NotFound, Resource
from controller.errors import KumulusError
from controller.keys import Key
from controller.objects import resource_of
from controller.rights import OnKinds
from controller.sharding.arcs import EVERYTHING, Arcs
from controller.watch.base import Change, ghost
from controller.watch.entry import version_of
from controller.watch.store import ObjectStore
from crds.base import Resource as Model

log = logging.getLogger(__name__)

RIGHTS = (OnKinds(("get", "list")),)
LIST_TRIES = 5
READS_AT_ONCE = 8


@dataclass
class Comparison:
    """Compares every ``interval`` seconds, and soon after poke(). ``fed``: kinds of which a source
    of their own brings everything, and compares by itself."""

    api: Api
    store: ObjectStore
    models: Mapping[str, type[Model]]
    interval: float
    fed: frozenset[str] = frozenset()
    _poked: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def fill(self) -> None:
        """Put everything that exists into the store. Raises KumulusError."""
        await asyncio.gather(*(self._fill(kind) for kind in self._own()))

    def _own(self) -> Iterator[str]:
        return (kind for kind in self.models if kind not in self.fed)

    def poke(self) -> None:
        """The watch was interrupted: compare soon."""
        self._poked.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                # Jitter: replicas must not list all at once.
                pause = self.interval * (1 - random.random() / 4)  # noqa: S311
                await asyncio.wait_for(self._poked.wait(), pause)
                self._poked.clear()
                await asyncio.sleep(1.0)
            except TimeoutError:
                pass
            for kind in self._own():
                try:
                    await self.compare(kind)
                except KumulusError as error:
                    log.warning("keys not compared", extra={"kind": kind, "why": error.message})
                except Exception:  # one bad answer must not end the watch over the other kinds
                    log.exception("keys not compared", extra={"kind": kind})

    async def freshen(self, arcs: Arcs) -> int:
        """Bring what lies in these arcs up to date, of all kinds but the fed ones; how many objects
        the watch had not brought yet. Raises KumulusError."""
        return sum(await asyncio.gather(*(self._compare(kind, arcs) for kind in self._own())))

    async def compare(self, kind: str) -> int:
        """Bring one kind up to date; returns how many objects differed. Raises KumulusError."""
        wrong = await self._compare(kind, EVERYTHING)
        if wrong:
            metrics.LOST_EVENTS.labels(kind).inc(wrong)
            log.info("the watch had missed changes", extra={"kind": kind, "objects": wrong})
        return wrong

    async def _compare(self, kind: str, arcs: Arcs) -> int:
        resource = resource_of(self.models[kind])
        listed, version = await self._listed(kind, resource, arcs)
        wrong = 0
        for key in self.store.keys(kind):
            entry = self.store.entry(key)
            # What is newer than the list was created after it was made.
            missing = entry is not None and key not in listed and entry.version <= version
            if entry is not None and missing and arcs.covers(entry.uid):
                wrong += self.store.apply(Change.GONE, kind, ghost(key, entry.uid))
        wrong += await self._read(resource, [k for k, meta in listed.items() if self._old(k, meta)])
        return wrong

    async def _fill(self, kind: str) -> None:
        resource = resource_of(self.models[kind])
        for attempt in range(LIST_TRIES):
            try:
                async for page in self.api.pages(resource):
                    for item in page.get("items") or ():
                        self.store.apply(Change.PRESENT, kind, item)
            except Expired:
                if attempt == LIST_TRIES - 1:
                    raise
            else:
                return

    async def _listed(
        self, kind: str, resource: Resource, arcs: Arcs
    ) -> tuple[dict[Key, Mapping[str, Any]], int]:
        """Metadata by key, and the version that the list was made at. The server may or may not
        know how to send only what lies in ``arcs``."""
        shards = arcs.selector() if arcs != EVERYTHING else ""
        listed: dict[Key, Mapping[str, Any]] = {}
        version = 0
        async for page in self.api.pages(resource, metadata_only=True, shards=shards):
            version = version or version_of(page["metadata"])
            for item in page.get("items") or ():
                meta = item["metadata"]
                if arcs.covers(str(meta["uid"])):
                    listed[Key(kind, meta.get("namespace") or "", meta["name"])] = meta
        return listed, version

    def _old(self, key: Key, meta: Mapping[str, Any]) -> bool:
        entry = self.store.entry(key)
        if entry is None:
            return True
        return entry.version < version_of(meta) or (
            entry.uid != meta["uid"] and entry.version <= version_of(meta)
        )

    async def _read(self, resource: Resource, keys: list[Key]) -> int:
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def read(key: Key) -> int:
            async with limit:
                try:
                    raw = await self.api.get(resource, key.namespace, key.name)
                except NotFound:
                    return 0
                return int(self.store.apply(Change.PRESENT, key.kind, raw))

        return sum(await asyncio.gather(*(read(key) for key in keys)))
