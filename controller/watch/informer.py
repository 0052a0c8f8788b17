"""The source of the kinds that replicas divide among themselves: one feed for each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from controller.objects import resource_of
from controller.sharding.arcs import EVERYTHING, Arcs
from controller.watch.base import Sink, Source
from controller.watch.feed import Feed, FeedApi
from controller.watch.store import ObjectStore
from crds.base import Resource


class Informer:
    """Implements watch.base.Source. ``arcs``: those of the beginning. ``linked``: kinds that refer
    to others or that others refer to; of these all objects reach the sink, wherever they lie, for
    the sake of their references."""

    def __init__(
        self,
        api: FeedApi,
        models: Mapping[str, type[Resource]],
        store: ObjectStore,
        *,
        arcs: Arcs = EVERYTHING,
        linked: frozenset[str] = frozenset(),
        dice: random.Random | None = None,
    ) -> None:
        self._arcs, self._linked = arcs, linked
        self._feeds = [
            Feed(
                api, kind, resource_of(model), store, store.apply,
                dice or random.Random(),  # noqa: S311 - jitter
            )
            for kind, model in models.items()
        ]  # fmt: skip
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, sink: Sink) -> None:
        for feed in self._feeds:
            feed.sink = sink
            feed.gain(EVERYTHING if feed.kind in self._linked else self._arcs)
            self._tasks.append(asyncio.create_task(feed.run(), name=f"feed {feed.kind}"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    async def settled(self) -> None:
        await asyncio.gather(*(feed.settled() for feed in self._feeds))

    async def gain(self, arcs: Arcs) -> None:
        """Look at these arcs too, from now on; returns when all that lies there has been read."""
        for feed in self._feeds:
            feed.gain(arcs)
        await self.settled()

    def lose(self, arcs: Arcs) -> None:
        """Look at these arcs no longer, and forget what lies there."""
        for feed in self._feeds:
            if feed.kind not in self._linked:
                feed.lose(arcs)


class Sources:
    """Several sources as one; each has kinds of its own."""

    def __init__(self, *sources: Source) -> None:
        self._sources = sources

    async def start(self, sink: Sink) -> None:
        for source in self._sources:
            await source.start(sink)

    async def stop(self) -> None:
        await asyncio.gather(*(source.stop() for source in self._sources))

    async def settled(self) -> None:
        await asyncio.gather(*(source.settled() for source in self._sources))
