"""Between a feed and a real API server: cuts, repeats, delays and refuses, drawn from a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from controller.client import Api, ApiUnavailable, Expired, Resource
from controller.watch.lines import Lines
from tests.support.faulty_api import Faults


@dataclass
class FaultyPassage:
    """Implements watch.feed.FeedApi. Of ``faults``, answers, cuts, repeats and lag count."""

    api: Api
    seed: int = 0
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        await self._pass("get", {})
        return await self.api.get(resource, namespace, name)

    async def page(self, resource: Resource, query: Mapping[str, str]) -> dict[str, Any]:
        await self._pass("list", dict(query))
        return await self.api.page(resource, query)

    @asynccontextmanager
    async def stream(
        self, resource: Resource, query: Mapping[str, str], silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        await self._pass("watch", dict(query))
        async with self.api.stream(resource, query, silence) as pieces:
            yield self._forward(pieces)

    async def _forward(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        lines = Lines()
        async for piece in pieces:
            for line in lines.feed(piece):
                await asyncio.sleep(self.dice.random() * self.faults.lag)
                if self._luck(self.faults.cuts):
                    yield line[: self.dice.randrange(len(line))]
                    if self._luck(0.5):
                        return
                    raise ApiUnavailable("the connection broke")
                for _ in range(2 if self._luck(self.faults.repeats) else 1):
                    yield line + b"\n"

    async def _pass(self, verb: str, query: dict[str, str]) -> None:
        self.requests.append((verb, query))
        if self._luck(self.faults.answers):
            busy = ApiUnavailable("too many requests", retry_after=0.1)
            broken = ApiUnavailable("internal error")
            raise self.dice.choice([broken, busy, broken if verb == "get" else Expired("expired")])

    def _luck(self, odds: float) -> bool:
        return self.dice.random() < odds
