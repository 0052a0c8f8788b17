"""An object goes last: after what is deleted with it, and once nobody holds on to it.

Three phases, each a question that every look asks anew, so that a crash leaves nothing half done:

check    May it go, and all that goes with it? Nobody who lives on needs any of that
         (``on_delete="block"``) and none of it is protected. If not, nothing is deleted at all.
         Admission asks the same before it lets a deletion begin; here it is asked again, for
         deletions that came past admission. (A deletion cannot be taken back: the object then
         waits until it may go.)
delete   All children are deleted at once, and each goes through the same phases itself. Those who
         live on let go: a VM leaves its host, a NIC its network.
clean up Once they are gone and have let go: the actuator cleans the outside world, and the
         finalizer is taken off.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller.cascade.graph import Graph, Holds, blockers, protected_with, users
from controller.errors import Waiting
from controller.keys import Key
from controller.reconcile.actuator import Actuator
from controller.reconcile.gate import holding
from controller.rights import OnKinds
from controller.watch.store import ObjectStore
from crds.refs import Reference

RIGHTS = (
    OnKinds(
        ("delete",),
        of=lambda registry: {
            kind for one in registry.models for kind in registry.graph.children(one)
        },
    ),
)
NAMED = 3
AT_ONCE = 16


class Deleter(Protocol):
    async def delete_key(self, key: Key, uid: str) -> None: ...


@dataclass(frozen=True)
class Family:
    """What stands between an object and its end. ``children``: deleted with it; ``fresh``: those
    of them nobody has deleted yet; ``holders``: live on, but have not let go."""

    children: tuple[Key, ...] = ()
    fresh: tuple[Key, ...] = ()
    holders: tuple[Key, ...] = ()


def family(key: Key, store: ObjectStore, actuators: Mapping[str, Actuator[Any]]) -> Family:
    """Who is to go before ``key``, or to let go of it."""
    found = users(store, key, holds_in(store, actuators))
    fresh = tuple(child for child in found.children if not store.deleting(child))
    return Family(found.children, fresh, tuple(found.holders))


def holds_in(store: ObjectStore, actuators: Mapping[str, Actuator[Any]]) -> Holds:
    """Who holds on to what, as their actuators see it."""

    def holds(source: Key, reference: Reference, target: Key) -> bool:
        actuator = actuators.get(source.kind)
        own = actuator is not None and type(actuator).holds is not Actuator.holds
        return holding(store.share(source) if own else None, actuator, reference, target, store)

    return holds


async def clear_family(
    key: Key,
    store: ObjectStore,
    actuators: Mapping[str, Actuator[Any]],
    graph: Graph,
    objects: Deleter,
) -> None:
    """Check, then delete the children, all siblings at once; return when they are gone and nobody
    holds on.

    Raises Waiting until then; DeletionBlocked, before anything is deleted, when somebody who lives
    on refuses to lose the object or one of its descendants, or one of these is protected.
    """
    if store.protects():
        _spare(key, store)
    if graph.blocks():
        _refuse(key, store)
    found = family(key, store, actuators)
    if found.fresh:
        await _delete_all(found.fresh, store, objects)
        found = family(key, store, actuators)
    waits = []
    if found.children:
        waits.append(f"{summary(found.children)} to be deleted")
    if found.holders:
        waits.append(f"{summary(found.holders)} to let go of it")
    if waits:
        reason = "WaitingForChildren" if found.children else "WaitingForUsers"
        raise Waiting("waiting for " + " and ".join(waits), reason=reason)


async def _delete_all(keys: Iterable[Key], store: ObjectStore, objects: Deleter) -> None:
    limit = asyncio.Semaphore(AT_ONCE)

    async def delete(key: Key) -> None:
        async with limit:
            entry = store.entry(key)
            if entry is not None:
                await objects.delete_key(key, entry.uid)

    results = await asyncio.gather(*(delete(key) for key in keys), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _spare(key: Key, store: ObjectStore) -> None:
    """What is protected stays. (A protected descendant that is being deleted holds out itself.)"""
    found = [one for one in protected_with(store, key) if one == key or not store.deleting(one)]
    if found:
        what = ", ".join(map(str, found[:NAMED]))
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise Waiting(
            f"protected: {what}{more}; set spec.deletionPolicy to Direct there to let it go",
            reason="DeletionBlocked",
        )


def _refuse(key: Key, store: ObjectStore) -> None:
    found = blockers(store, key)
    living = [(user, used) for user, used in found if not store.doomed_key(user)]
    if living:
        users = ", ".join(f"{user} needs {used}" for user, used in living[:NAMED])
        more = f" and {len(living) - NAMED} more" if len(living) > NAMED else ""
        raise Waiting(
            f"still in use: {users}{more}; delete these first or make them use another",
            reason="DeletionBlocked",
        )
    if found:
        raise Waiting(f"waiting for {summary(user for user, _ in found)} to be deleted")


def summary(keys: Iterable[Key]) -> str:
    """``2 VirtualMachines (default/web-1, default/web-2)``; of many, the first few are named."""
    keys = sorted(set(keys))
    counts = Counter(key.kind for key in keys)
    parts = []
    for kind, count in counts.items():
        names = ["/".join(part for part in key[1:] if part) for key in keys if key.kind == kind]
        shown = ", ".join(names[:NAMED]) + (", …" if count > NAMED else "")
        parts.append(f"{count} {kind}{'s' if count > 1 else ''} ({shown})")
    return " and ".join(parts)
