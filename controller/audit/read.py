"""Reads everything that an audit compares, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from agents.wire import Inventory
from controller.agentlink.client import Endpoint
from controller.audit.compare import Item, Report, compare
from controller.audit.gather import claimed, listed, owners
from controller.errors import KumulusError
from controller.kinds.support import agent_endpoint
from controller.ledger.base import Ledger
from controller.reconcile.holdings import host_place, store_place
from controller.registry import Registry
from controller.watch.base import Change
from controller.watch.store import ObjectStore

AT_A_TIME = 32
"""Agents that are asked at the same time."""

PLACES = {"Host": host_place, "BackupStorage": store_place}
"""The kinds that have an agent."""


class Inventories(Protocol):
    async def inventory(self, endpoint: Endpoint) -> Inventory: ...


@dataclass(frozen=True)
class Sources:
    """Where to read. ``objects``: all of the API's objects of our kinds, with their kind."""

    registry: Registry
    objects: Callable[[], Awaitable[list[dict[str, Any]]]]
    ledger: Ledger
    agents: Inventories
    agent_port: int


async def audit(sources: Sources, wait: float) -> Report:
    """What two looks, ``wait`` seconds apart, both find; one look is enough if it finds nothing.

    Raises Transient when the ledger, and ApiError when the API cannot be read.
    """
    report = await look(sources)
    if report.clean:
        return report
    await asyncio.sleep(wait)
    return report.confirmed_by(await look(sources))


async def look(sources: Sources) -> Report:
    """Reads what is there first and who owns it last: what was made meanwhile has an owner."""
    store = await _store(sources)
    items: list[Item] = list(claimed(await sources.ledger.claims(), await sources.ledger.pools("")))
    unasked: dict[str, str] = {}
    found = await _ask(store, sources, unasked)
    store = await _store(sources)
    known = owners(store, sources.registry.actuators, sources.registry.models)
    return compare([*items, *found], known, unasked)


async def _store(sources: Sources) -> ObjectStore:
    store = ObjectStore(sources.registry.models)
    for raw in await sources.objects():
        store.apply(Change.PRESENT, raw["kind"], raw)
    return store


async def _ask(store: ObjectStore, sources: Sources, unasked: dict[str, str]) -> list[Item]:
    """What all agents have. Those that cannot be asked go into ``unasked``."""
    room = asyncio.Semaphore(AT_A_TIME)

    async def ask(place: str, endpoint: Endpoint) -> list[Item]:
        async with room:
            try:
                return list(listed(place, await sources.agents.inventory(endpoint)))
            except KumulusError as error:
                unasked[place] = error.message
                return []

    agents = [
        (place(obj.name), agent_endpoint(obj, sources.agent_port))
        for kind, place in PLACES.items()
        for obj in store.list(kind)
    ]
    found = await asyncio.gather(*(ask(place, endpoint) for place, endpoint in agents))
    return [item for items in found for item in items]
