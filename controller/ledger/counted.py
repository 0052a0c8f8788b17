"""Counted claims and their pools, inside one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select, update

from controller.errors import Exhausted
from controller.ledger.base import Pool
from controller.ledger.schema import amounts, pools

# Statements are built once: building one costs more than running it.
_scope: BindParameter[str] = bindparam("s")
_owner: BindParameter[str] = bindparam("o")
_resource: BindParameter[str] = bindparam("r")
_number: BindParameter[int] = bindparam("n")
_pool = (pools.c.scope == _scope) & (pools.c.resource == _resource)
_RESOURCES = select(pools.c.resource, pools.c.capacity, pools.c.used).where(pools.c.scope == _scope)
_ADD_POOL = insert(pools).values(scope=_scope, resource=_resource, capacity=_number, used=0)
_RESIZE = update(pools).where(_pool).values(capacity=_number)
_DROP_UNUSED = delete(pools).where(_pool, pools.c.used == 0)
_GIVE = update(pools).where(_pool).values(used=pools.c.used + _number)
_TAKE = _GIVE.where(pools.c.used + _number <= pools.c.capacity)
_claim = (amounts.c.scope == _scope) & (amounts.c.owner == _owner)
_part = _claim & (amounts.c.resource == _resource)
_HELD = select(amounts.c.resource, amounts.c.amount).where(_claim).with_for_update()
_ADD = insert(amounts).values(scope=_scope, owner=_owner, resource=_resource, amount=_number)
_CHANGE = update(amounts).where(_part).values(amount=_number)
_DROP_PART = delete(amounts).where(_part)
_DROP = delete(amounts).where(_claim)
_HAND_OVER = update(amounts).where(_claim).values(owner=bindparam("to"))
_POOLS = (
    select(pools.c.scope, pools.c.resource, pools.c.capacity, pools.c.used)
    .where(pools.c.scope >= bindparam("low"), pools.c.scope < bindparam("high"))
    .order_by(pools.c.scope, pools.c.resource)
)


def set_pool(c: Connection, scope: str, capacity: Mapping[str, int]) -> None:
    """See ``Ledger.set_pool``. A resource that is no longer named has no capacity left."""
    found = _resources(c, scope)
    for resource in sorted({*found, *capacity}):
        row = {"s": scope, "r": resource, "n": capacity.get(resource, 0)}
        c.execute(_RESIZE if resource in found else _ADD_POOL, row)
        if resource not in capacity:
            c.execute(_DROP_UNUSED, {"s": scope, "r": resource})


def drop_pool(c: Connection, scope: str) -> None:
    c.execute(delete(amounts).where(amounts.c.scope == scope))
    c.execute(delete(pools).where(pools.c.scope == scope))


def list_pools(c: Connection, low: str, high: str) -> list[Pool]:
    """Pools with low <= scope < high, by scope."""
    rows = c.execute(_POOLS, {"low": low, "high": high}).all()
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
    # The claim's rows come first: should a rival make this very claim, their unique key tells,
    # before we find the pool too small for the two of us.
    for resource, change in changes.items():
        part = {"s": scope, "o": owner, "r": resource}
        if resource not in wanted:
            c.execute(_DROP_PART, part)
        elif resource not in held:
            c.execute(_ADD, {**part, "n": wanted[resource]})
        elif change:
            c.execute(_CHANGE, {**part, "n": wanted[resource]})
    for resource, change in changes.items():
        if not _take(c, scope, resource, change):
            raise _short(c, scope, changes)


def release_amounts(c: Connection, scope: str, owner: str) -> None:
    held = _held(c, scope, owner)
    c.execute(_DROP, {"s": scope, "o": owner})
    for resource, amount in sorted(held.items()):
        _take(c, scope, resource, -amount)


def hand_over(c: Connection, scope: str, owner: str, to: str) -> None:
    """See ``Ledger.hand_over``."""
    release_amounts(c, scope, to)
    c.execute(_HAND_OVER, {"s": scope, "o": owner, "to": to})


def _held(c: Connection, scope: str, owner: str) -> dict[str, int]:
    """The owner's amounts in the scope, locked: two changes of one claim follow each other."""
    rows = c.execute(_HELD, {"s": scope, "o": owner})
    return {row.resource: row.amount for row in rows}


def _take(c: Connection, scope: str, resource: str, change: int) -> bool:
    """Add to the pool's use if there is room for it. Giving back always works."""
    if change == 0:
        return True
    row = {"s": scope, "r": resource, "n": change}
    return bool(c.execute(_TAKE if change > 0 else _GIVE, row).rowcount) or change < 0


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
    rows = c.execute(_RESOURCES, {"s": scope})
    return {row.resource: (row.capacity, row.used) for row in rows}
