"""What an audit compares, from what the API, the ledger and the agents say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

from agents.wire import Inventory
from controller.audit.compare import Finding, Item, Owners
from controller.keys import Key
from controller.ledger.base import Claim, Pool
from controller.reconcile.actuator import Actuator
from controller.reconcile.holdings import LEDGER, POOLS, Holding
from controller.watch.store import ObjectStore

API = "api"


def claimed(claims: Iterable[Claim], pools: Iterable[Pool]) -> Iterator[Item]:
    """What the ledger has."""
    for claim in claims:
        amounts = ", ".join(f"{n} {r}" for r, n in sorted((claim.amounts or {}).items()))
        yield Item(LEDGER, claim.scope, claim.owner, _readable(claim) or amounts)
    for pool in pools:
        yield Item(LEDGER, POOLS, pool.scope)


def _readable(claim: Claim) -> str:
    """Addresses are numbers in the ledger."""
    value = claim.value or ""
    if claim.scope.startswith("ip/") and value.isdecimal() and int(value) < 2**32:
        return str(IPv4Address(int(value)))
    return value


def listed(place: str, inventory: Inventory) -> Iterator[Item]:
    """What an agent has."""
    for area in type(inventory).model_fields:
        for item in getattr(inventory, area):
            yield Item(place, area, item)


def owners(
    store: ObjectStore, actuators: Mapping[str, Actuator[Any]], kinds: Iterable[str]
) -> Owners:
    """What the objects of ``store`` say they have."""
    uids: dict[str, Key] = {}
    free: set[str] = set()
    holdings: list[tuple[Key, Holding]] = []
    for kind in kinds:
        for key in store.keys(kind):
            entry, obj = store.entry(key), store.share(key)
            assert entry is not None
            uids[entry.uid] = key
            actuator = actuators.get(kind)
            # What cannot be parsed tells nothing: it may have whatever carries its uid.
            mine = actuator.holdings(obj, store) if actuator and obj is not None else None
            if mine is None:
                free.add(entry.uid)
            else:
                holdings += [(key, holding) for holding in mine]
    return Owners(uids, frozenset(free), holdings, tuple(_abandoned(store, uids)))


def _abandoned(store: ObjectStore, uids: Mapping[str, Key]) -> Iterator[Finding]:
    """Objects whose owner references name an object of ours that does not exist any more."""
    kinds = {key.kind for key in uids.values()}
    for key in uids.values():
        obj = store.share(key)
        for owner in obj.metadata.owner_references if obj is not None else ():
            if owner.kind in kinds and owner.uid not in uids:
                item = Item(API, key.kind, f"{key.namespace}/{key.name}".strip("/"), obj.uid)
                yield Finding(item, f"its owner, {owner.kind} {owner.name}, is gone")
