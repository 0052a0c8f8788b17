"""An API server in memory that does everything a watch must survive, drawn from a seed.

It keeps objects of one kind and a history of changes, forgets the older part of it, cuts streams
within a line, repeats and delays events, and answers 410, 429, 500 and 504. What it never does is
to leave out an event of a watch that goes on, or to change the order of one object's: no API
server does.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from controller.client import Ahead, ApiUnavailable, Expired, NotFound, Rejected, Resource
from controller.sharding.arcs import position

Object = dict[str, Any]
Place = tuple[str, str]


@dataclass
class Faults:
    """How often, from 0 to 1. ``lag``: the longest delay of an event, in seconds. ``memory``: how
    many changes the server still knows. ``shards``: does it know shardSelector? ``leaky``: it
    does, and sends foreign objects all the same, now and then."""

    answers: float = 0.0
    cuts: float = 0.0
    repeats: float = 0.0
    lag: float = 0.0
    memory: int = 1000
    shards: bool = True
    leaky: float = 0.0


@dataclass
class FaultyApi:
    """Implements watch.feed.FeedApi."""

    seed: int = 0
    faults: Faults = field(default_factory=Faults)
    objects: dict[Place, Object] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    page_size: int = 7

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.version = 100
        self._history: list[tuple[int, str, Object]] = []
        self._floor = 100
        self._snapshots: dict[str, tuple[int, list[Object]]] = {}
        self._uids = 0

    # what happens to the objects

    def put(self, name: str, namespace: str = "default", **spec: Any) -> Object:
        """Create it, or change its spec."""
        old = self.objects.get((namespace, name))
        if old is None:
            self._uids += 1
            meta = {"name": name, "namespace": namespace, "uid": f"{self.seed}-{self._uids}"}
            obj: Object = {"kind": "Leaf", "metadata": {**meta, "generation": 1}, "spec": spec}
            return self._record("ADDED", obj)
        return self._record("MODIFIED", {**copy.deepcopy(old), "spec": spec})

    def remove(self, name: str, namespace: str = "default", *, finalized: bool = False) -> None:
        """Delete it. ``finalized``: as the removal of its last finalizer does it."""
        obj = copy.deepcopy(self.objects[namespace, name])
        if finalized:
            obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self._record("DELETED", obj)

    def compact(self) -> None:
        """Forget all history: whoever stands at an older version gets 410."""
        self._floor, self._history, self._snapshots = self.version, [], {}

    def go_back(self, version: int, objects: dict[Place, Object]) -> None:
        """Restore a backup."""
        self.objects, self.version = copy.deepcopy(objects), version
        self._history, self._floor, self._snapshots = [], version, {}

    def _record(self, what: str, obj: Object) -> Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        place = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if what == "DELETED":
            del self.objects[place]
        else:
            self.objects[place] = obj
        self._history.append((self.version, what, copy.deepcopy(obj)))
        if len(self._history) > self.faults.memory:
            self._floor = self._history[-self.faults.memory - 1][0]
            self._history = self._history[-self.faults.memory :]
        return obj

    # what client.Api has

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        await self._arrive("get", {})
        if (namespace, name) not in self.objects:
            raise NotFound(name)
        return copy.deepcopy(self.objects[namespace, name])

    async def page(self, resource: Resource, query: Mapping[str, str]) -> Object:
        await self._arrive("list", dict(query))
        chosen = self._chosen(query)
        start, token = 0, query.get("continue", "")
        if token:
            name, _, at = token.partition("@")
            if name not in self._snapshots or self._luck(self.faults.answers):
                raise Expired("the continue token is too old")
            (version, items), start = self._snapshots[name], int(at)
        else:
            name = str(self.dice.random())
            version, items = self.version, [copy.deepcopy(o) for o in self.objects.values()]
            self._snapshots[name] = (version, items)
        limit = min(int(query.get("limit", 10**6)), self.page_size)
        end = start + limit if "limit" in query else len(items)
        found = [item for item in items[start:end] if chosen(item)]
        meta = {"resourceVersion": str(version)}
        if end < len(items):
            meta["continue"] = f"{name}@{end}"
        self.sent += len(found)
        return {"metadata": meta, "items": found}

    @asynccontextmanager
    async def stream(
        self, resource: Resource, query: Mapping[str, str], silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        await self._arrive("watch", dict(query))
        yield self._pieces(query)

    async def _pieces(self, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Some bytes at a time, cut where it falls."""
        end = asyncio.get_running_loop().time() + float(query["timeoutSeconds"])
        async for line in self._lines(query, end):
            if self._luck(self.faults.cuts):
                yield line[: self.dice.randrange(len(line))]
                if self._luck(0.5):
                    raise ApiUnavailable("the connection broke")
                return
            middle = self.dice.randrange(len(line))
            yield line[:middle]
            yield line[middle:]

    async def _lines(self, query: Mapping[str, str], end: float) -> AsyncIterator[bytes]:
        at, chosen = int(query["resourceVersion"]), self._chosen(query)
        if at > self.version:
            yield _line("ERROR", _status(504, f"Too large resource version: {at}"))
            return
        while asyncio.get_running_loop().time() < end:
            if at < self._floor:
                yield _line("ERROR", _status(410, "too old resource version"))
                return
            for version, what, obj in [each for each in self._history if each[0] > at]:
                at = version
                if not chosen(obj):
                    continue
                for _ in range(2 if self._luck(self.faults.repeats) else 1):
                    self.sent += 1
                    yield _line(what, obj)
                await asyncio.sleep(self.dice.random() * self.faults.lag)
            if self._luck(self.faults.answers):
                yield _line("ERROR", _status(500, "etcdserver: leader changed"))
                return
            yield _line("BOOKMARK", {"kind": "Leaf", "metadata": {"resourceVersion": str(at)}})
            await asyncio.sleep(1.0)

    def _chosen(self, query: Mapping[str, str]) -> Any:
        """The server's filter. Raises Rejected, as upstream does."""
        text = query.get("shardSelector")
        if text is None or not self.faults.shards:
            return lambda _: True
        ranges = []
        for part in text.split("||"):
            pieces = part.strip().removeprefix("shardRange(").removesuffix(")").split(",")
            if len(pieces) != 3 or pieces[0] != "object.metadata.uid":
                # As upstream answers: 400, or 500 for custom resources.
                raise self.dice.choice([Rejected, ApiUnavailable])(
                    "invalid shard selector: no call"
                )
            ranges.append(tuple(int(piece.strip().strip("'"), 16) for piece in pieces[1:]))

        def chosen(obj: Object) -> bool:
            at = position(obj["metadata"]["uid"])
            return self._luck(self.faults.leaky) or any(a <= at < b for a, b in ranges)

        return chosen

    async def _arrive(self, verb: str, query: dict[str, str]) -> None:
        self.requests.append((verb, query))
        await asyncio.sleep(0.001 + self.dice.random() * self.faults.lag)
        if self._luck(self.faults.answers):
            raise self.dice.choice(
                [
                    ApiUnavailable("internal error"),
                    ApiUnavailable("too many requests", retry_after=2.0),
                    Ahead("Too large resource version"),
                    *([Expired("expired")] if verb != "get" else []),
                ]
            )

    def _luck(self, odds: float) -> bool:
        return self.dice.random() < odds


def _line(what: str, obj: Object) -> bytes:
    return orjson.dumps({"type": what, "object": obj}) + b"\n"


def _status(code: int, message: str) -> Object:
    return {"kind": "Status", "metadata": {}, "code": code, "message": message}
