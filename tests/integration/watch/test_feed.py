"""The informer on real API servers, with faults in between: in the end it knows what they know."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from controller import metrics
from controller.client import Api, NotFound
from controller.objects import resource_of
from controller.sharding.arcs import EVERYTHING, SPACE, Arcs
from controller.watch.informer import Informer
from controller.watch.store import ObjectStore
from crds.base import ObjectMeta
from tests.support.faulty_api import Faults
from tests.support.faulty_passage import FaultyPassage
from tests.unit.core.fakes import MODELS, Leaf

LEAVES = resource_of(Leaf)
HALF, REST = Arcs.of([(0, SPACE // 2)]), Arcs.of([(SPACE // 2, SPACE)])


async def put(api: Api, name: str) -> dict[str, Any]:
    body = Leaf(metadata=ObjectMeta(name=name, namespace="default")).wire()
    body.pop("status", None)
    return await api.create(LEAVES, "default", body)


async def real(api: Api, arcs: Arcs) -> dict[str, str]:
    """Name to version of what is on the server."""
    return {
        item["metadata"]["name"]: item["metadata"]["resourceVersion"]
        async for page in api.pages(LEAVES)
        for item in page["items"]
        if arcs.covers(item["metadata"]["uid"])
    }


def known(store: ObjectStore) -> dict[str, str]:
    keys = store.keys("Leaf")
    return {key.name: str(entry.version) for key in keys if (entry := store.entry(key))}


async def agrees(api: Api, store: ObjectStore, arcs: Arcs, seconds: float = 60) -> None:
    """Wait until the store is as the server."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while known(store) != await real(api, arcs):
                await asyncio.sleep(0.1)
    assert known(store) == await real(api, arcs)


@asynccontextmanager
async def informer(
    api: Api, arcs: Arcs = EVERYTHING, seed: int = 1, **faults: float
) -> AsyncIterator[tuple[Informer, ObjectStore, FaultyPassage]]:
    store = ObjectStore({model.__name__: model for model in MODELS})
    passage = FaultyPassage(api, seed, Faults(**faults))  # type: ignore[arg-type]
    found = Informer(passage, {"Leaf": Leaf}, store, arcs=arcs, dice=random.Random(seed))
    await found.start(store.apply)
    try:
        yield found, store, passage
    finally:
        await found.stop()


async def test_the_store_ends_as_the_server_whatever_lies_between(api: Api) -> None:
    dice = random.Random(7)
    faults = {"answers": 0.25, "cuts": 0.15, "repeats": 0.3, "lag": 0.01}
    async with informer(api, HALF, seed=7, **faults) as (found, store, passage):
        arcs, there = HALF, {}
        for step in range(300):
            name = f"l{dice.randrange(40)}"
            if name not in there:
                there[name] = (await put(api, name))["metadata"]["uid"]
            elif dice.random() < 0.3:
                await api.delete(LEAVES, "default", name, there.pop(name))
            else:
                patch = {"metadata": {"annotations": {"step": str(step)}}}
                await api.patch(LEAVES, "default", name, patch)
            if step % 60 == 30:
                arcs = EVERYTHING if arcs == HALF else HALF
                if arcs == HALF:
                    found.lose(REST)
                else:
                    async with asyncio.timeout(60):
                        await found.gain(REST)
        passage.faults.answers = passage.faults.cuts = 0.0
        await agrees(api, store, arcs)
        assert len([verb for verb, _ in passage.requests if verb == "watch"]) > 2, "it was cut"


async def test_the_server_filters_and_only_what_changed_hands_is_listed(api: Api) -> None:
    for n in range(30):
        await put(api, f"l{n}")
    foreign = metrics.FOREIGN_EVENTS.labels("Leaf")
    async with informer(api, HALF) as (found, store, passage):
        await found.settled()
        before = foreign._value.get()
        for n in range(30):
            await api.patch(LEAVES, "default", f"l{n}", {"metadata": {"annotations": {"a": "b"}}})
        await agrees(api, store, HALF)
        assert 5 < len(known(store)) < 25
        assert foreign._value.get() == before, "the server sends what is ours alone"
        passage.requests.clear()
        await found.gain(REST)
        await agrees(api, store, EVERYTHING)
        lists = [query for verb, query in passage.requests if verb == "list"]
        assert [query["shardSelector"] for query in lists] == [REST.selector()]
        found.lose(HALF)
        await agrees(api, store, REST)


async def test_what_was_deleted_while_nobody_watched_is_found(api: Api) -> None:
    made = [await put(api, f"l{n}") for n in range(6)]
    store = ObjectStore({model.__name__: model for model in MODELS})
    for seed in (1, 2):  # the second one begins with what the first one left
        found = Informer(api, {"Leaf": Leaf}, store, arcs=HALF | REST, dice=random.Random(seed))
        await found.start(store.apply)
        await found.settled()
        await agrees(api, store, EVERYTHING)
        await found.stop()
        for obj in made[:3]:
            with suppress(NotFound):
                await api.delete(LEAVES, "default", obj["metadata"]["name"], obj["metadata"]["uid"])
    assert {f"l{n}" for n in (3, 4, 5)} == set(known(store))
