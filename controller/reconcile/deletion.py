"""An object goes last: after what is deleted with it, and once nobody holds on to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller.cascade.graph import Graph, blockers, strongest
from controller.errors import Waiting
from controller.keys import Key
from controller.reconcile.actuator import Actuator
from controller.reconcile.gate import holding
from controller.rights import OnKinds
from controller.watch.store import ObjectStore

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
    """Who refers to ``key``, by what that means for its deletion. ``keep`` means nothing."""
    children, holders = [], []
    for source, references in store.dependents(key).items():
        if strongest(references) == "cascade":
            children.append(source)
        elif any(
            reference.on_delete in ("detach", "stop")
            and _holds(source, reference, key, store, actuators)
            for reference in references
        ):
            holders.append(source)
    fresh = tuple(child for child in sorted(children) if not store.deleting(child))
    return Family(tuple(sorted(children)), fresh, tuple(sorted(holders)))


def _holds(
    source: Key,
    reference: Any,
    key: Key,
    store: ObjectStore,
    actuators: Mapping[str, Actuator[Any]],
) -> bool:
    actuator = actuators.get(source.kind)
    own = actuator is not None and type(actuator).holds is not Actuator.holds
    return holding(store.share(source) if own else None, actuator, reference, key, store)


async def clear_family(
    key: Key,
    store: ObjectStore,
    actuators: Mapping[str, Actuator[Any]],
    graph: Graph,
    objects: Deleter,
) -> None:
    """Delete the children, all siblings at once; return when they are gone and nobody holds on.

    Raises Waiting until then; DeletionBlocked, before anything is deleted, when somebody who lives
    on refuses to lose the object or one of its descendants.
    """
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
