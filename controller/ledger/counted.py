"""Counted claims and their pools, inside one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from sqlalchemy import Connection, delete, insert, select, update

from controller.errors import Exhausted
from controller.ledger.base import Pool
from controller.ledger.schema import amounts, pools


def set_pool(c: Connection, scope: str, capacity: Mapping[str, int]) -> None:
    """See ``Ledger.set_pool``. A resource that is no longer named has no capacity left."""
    found = _resources(c, scope)
    for resource in sorted({*found, *capacity}):
        row = (pools.c.scope == scope) & (pools.c.resource == resource)
        if resource not in found:
            size = capacity[resource]
            c.execute(insert(pools).values(scope=scope, resource=resource, capacity=size, used=0))
        elif resource in capacity:
            c.execute(update(pools).where(row).values(capacity=capacity[resource]))
        else:
            c.execute(update(pools).where(row).values(capacity=0))
            c.execute(delete(pools).where(row, pools.c.used == 0))


def drop_pool(c: Connection, scope: str) -> None:
    c.execute(delete(amounts).where(amounts.c.scope == scope))
    c.execute(delete(pools).where(pools.c.scope == scope))


def list_pools(c: Connection, low: str, high: str) -> list[Pool]:
    """Pools with low <= scope < high, by scope."""
    rows = c.execute(
        select(pools.c.scope, pools.c.resource, pools.c.capacity, pools.c.used)
        .where(pools.c.scope >= low, pools.c.scope < high)
        .order_by(pools.c.scope, pools.c.resource)
    ).all()
    found = []
    for scope, group in groupby(rows, key=lambda row: str(row[0])):
        members = list(group)
        found.append(
            Pool(scope, {r: size for _, r, size, _ in members}, {r: n for _, r, _, n in members})
        )
    return found


def claim_amounts(c: Connection, scope: str, owner: str, wanted: Mapping[str, int]) -> None:
    """See ``Ledger.claim_amounts``. A resource that is no longer named is given back."""
    held = _held(c, scope, owner)
    changes = {r: wanted.get(r, 0) - held.get(r, 0) for r in sorted({*held, *wanted})}
    for resource, change in changes.items():
        if not _take(c, scope, resource, change):
            raise _short(c, scope, changes)
    for resource, change in changes.items():
        row = (
            (amounts.c.scope == scope)
            & (amounts.c.owner == owner)
            & (amounts.c.resource == resource)
        )
        if resource not in wanted:
            c.execute(delete(amounts).where(row))
        elif resource not in held:
            values = {"scope": scope, "owner": owner, "resource": resource}
            c.execute(insert(amounts).values(**values, amount=wanted[resource]))
        elif change:
            c.execute(update(amounts).where(row).values(amount=wanted[resource]))


def release_amounts(c: Connection, scope: str, owner: str) -> None:
    held = _held(c, scope, owner)
    c.execute(delete(amounts).where(amounts.c.scope == scope, amounts.c.owner == owner))
    for resource, amount in sorted(held.items()):
        _take(c, scope, resource, -amount)


def _held(c: Connection, scope: str, owner: str) -> dict[str, int]:
    """The owner's amounts in the scope, locked: two changes of one claim follow each other."""
    rows = c.execute(
        select(amounts.c.resource, amounts.c.amount)
        .where(amounts.c.scope == scope, amounts.c.owner == owner)
        .with_for_update()
    )
    return {row.resource: row.amount for row in rows}


def _take(c: Connection, scope: str, resource: str, change: int) -> bool:
    """Add to the pool's use if there is room for it. Giving back always works."""
    if change == 0:
        return True
    take = update(pools).where(pools.c.scope == scope, pools.c.resource == resource)
    if change > 0:
        take = take.where(pools.c.used + change <= pools.c.capacity)
    done = c.execute(take.values(used=pools.c.used + change)).rowcount
    return bool(done) or change < 0


def _short(c: Connection, scope: str, changes: Mapping[str, int]) -> Exhausted:
    """What is missing. (Some of ``changes`` may be taken already: the caller undoes it all.)"""
    found = _resources(c, scope)
    if not found:
        return Exhausted(f"there is no pool {scope}", reason="NoPool")
    return Exhausted(f"{scope} has too little left: {'; '.join(_gaps(found, changes))}")


def _gaps(found: Mapping[str, tuple[int, int]], changes: Mapping[str, int]) -> Iterable[str]:
    for resource, change in changes.items():
        capacity, used = found.get(resource, (0, 0))
        if change > 0 and used + change > capacity:
            free = max(0, capacity - used)
            yield f"{resource} needs {change}, {free} of {capacity} are free, {change - free} short"


def _resources(c: Connection, scope: str) -> dict[str, tuple[int, int]]:
    """resource → (capacity, used)."""
    rows = c.execute(
        select(pools.c.resource, pools.c.capacity, pools.c.used).where(pools.c.scope == scope)
    )
    return {resource: (capacity, used) for resource, capacity, used in rows}
