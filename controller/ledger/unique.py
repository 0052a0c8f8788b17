"""Unique claims, inside one transaction: integers (lowest free first) and texts."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select, text, update

from controller.errors import Exhausted
from controller.ledger.schema import BLOCK_BITS, addresses, blocks, names

BLOCK = 1 << BLOCK_BITS
Ranges = Sequence[tuple[int, int]]

# Both: the lowest integer from :start on that has no row. They walk the index along one run of
# neighbours, to :stop at most, and return NULL or :stop + 1 if the run goes that far.
_FREE_ADDRESS = text("""
    SELECT CASE WHEN NOT EXISTS (
        SELECT 1 FROM ledger_addresses WHERE scope = :scope AND value = :start
    ) THEN :start ELSE (
        SELECT a.value + 1 FROM ledger_addresses a
        WHERE a.scope = :scope AND a.value BETWEEN :start AND :stop AND NOT EXISTS (
            SELECT 1 FROM ledger_addresses b WHERE b.scope = :scope AND b.value = a.value + 1
        ) ORDER BY a.value LIMIT 1
    ) END""")
_BLOCK_WITH_ROOM = text("""
    SELECT CASE WHEN NOT EXISTS (
        SELECT 1 FROM ledger_blocks WHERE scope = :scope AND block = :start AND used >= :full
    ) THEN :start ELSE (
        SELECT a.block + 1 FROM ledger_blocks a
        WHERE a.scope = :scope AND a.block BETWEEN :start AND :stop AND a.used >= :full
        AND NOT EXISTS (
            SELECT 1 FROM ledger_blocks b
            WHERE b.scope = :scope AND b.block = a.block + 1 AND b.used >= :full
        ) ORDER BY a.block LIMIT 1
    ) END""")


# Statements are built once: building one costs more than running it.
_scope: BindParameter[str] = bindparam("s")
_owner: BindParameter[str] = bindparam("o")
_value: BindParameter[object] = bindparam("v")
_my_address = (addresses.c.scope == _scope) & (addresses.c.owner == _owner)
_this_address = (addresses.c.scope == _scope) & (addresses.c.value == _value)
_HELD = select(addresses.c.value).where(_my_address).with_for_update()
_ADDRESS_OWNER = select(addresses.c.owner).where(_this_address)
_ADD_ADDRESS = insert(addresses).values(scope=_scope, owner=_owner, value=_value)
_MOVE_ADDRESS = update(addresses).where(_my_address).values(value=_value)
_DROP_ADDRESS = delete(addresses).where(_my_address)
_this_block = (blocks.c.scope == _scope) & (blocks.c.block == bindparam("b"))
_COUNT = update(blocks).where(_this_block).values(used=blocks.c.used + bindparam("n"))
_ADD_BLOCK = insert(blocks).values(scope=_scope, block=bindparam("b"), used=bindparam("n"))
_my_value = (names.c.scope == _scope) & (names.c.owner == _owner)
_VALUE_OWNER = select(names.c.owner).where(names.c.scope == _scope, names.c.value == _value)
_ADD_VALUE = insert(names).values(scope=_scope, owner=_owner, value=_value)
_MOVE_VALUE = update(names).where(_my_value).values(value=_value)
_DROP_VALUE = delete(names).where(_my_value)


def claim_address(
    c: Connection,
    scope: str,
    owner: str,
    ranges: Ranges,
    *,
    exclude: Collection[int],
    wanted: int | None,
) -> int:
    """See ``Ledger.claim_address``. A claim of another address than ``wanted`` moves to it."""
    mine = {"s": scope, "o": owner}
    held: int | None = c.scalar(_HELD, mine)
    if held is not None and wanted in (None, held):
        return held
    try:
        if wanted is None:
            value = _lowest_free(c, scope, ranges, exclude)
        else:
            value = _wanted(c, scope, ranges, exclude, wanted)
            _count(c, scope, value >> BLOCK_BITS, +1)
    except Exhausted:
        # A rival may have made this very claim meanwhile: then it is not others who are in the way.
        meanwhile: int | None = c.scalar(_HELD, mine)
        if meanwhile is None or wanted not in (None, meanwhile):
            raise
        return meanwhile
    c.execute(_ADD_ADDRESS if held is None else _MOVE_ADDRESS, {**mine, "v": value})
    if held is not None:
        _count(c, scope, held >> BLOCK_BITS, -1)
    return value


def claim_value(c: Connection, scope: str, owner: str, value: str) -> None:
    """See ``Ledger.claim_value``. A claim of another value in the scope moves to this one."""
    row = {"s": scope, "o": owner, "v": value}
    taken_by = c.scalar(_VALUE_OWNER, {"s": scope, "v": value})
    if taken_by == owner:
        return
    if taken_by is not None:
        raise Exhausted(
            f"{value} in {scope} is taken by {taken_by}; choose another", reason="ValueTaken"
        )
    if c.execute(_MOVE_VALUE, row).rowcount == 0:
        c.execute(_ADD_VALUE, row)


def release_address(c: Connection, scope: str, owner: str) -> None:
    """Drop one claim; the caller has locked its row."""
    mine = {"s": scope, "o": owner}
    value = c.scalar(_HELD, mine)
    if value is not None:
        c.execute(_DROP_ADDRESS, mine)
        _count(c, scope, value >> BLOCK_BITS, -1)


def release_value(c: Connection, scope: str, owner: str) -> None:
    c.execute(_DROP_VALUE, {"s": scope, "o": owner})


def _wanted(
    c: Connection, scope: str, ranges: Ranges, exclude: Collection[int], wanted: int
) -> int:
    shown = show(scope, wanted)
    if wanted in exclude:
        raise Exhausted(
            f"{shown} is reserved in {scope}; choose another of {_ranges(scope, ranges)}",
            reason="AddressReserved",
        )
    if not any(low <= wanted <= high for low, high in ranges):
        raise Exhausted(
            f"{shown} is outside {_ranges(scope, ranges)} of {scope}; choose one inside, "
            "or add a range",
            reason="AddressOutOfRange",
        )
    taken_by = c.scalar(_ADDRESS_OWNER, {"s": scope, "v": wanted})
    if taken_by is not None:
        raise Exhausted(
            f"{shown} in {scope} is taken by {taken_by}; choose another, or leave the choice open",
            reason="AddressTaken",
        )
    return wanted


def _lowest_free(c: Connection, scope: str, ranges: Ranges, exclude: Collection[int]) -> int:
    """The address; it is counted in its block already."""
    for low, high in sorted(ranges):
        at = low
        while at <= high:
            block = _block_with_room(c, scope, at, high)
            if block is None:
                break
            at = max(at, block << BLOCK_BITS)
            stop = min(high, (block << BLOCK_BITS) + BLOCK - 1)
            # Counting first locks the block's row: competitors wait here for each other instead
            # of all trying the same address. The unique key decides anyway.
            _count(c, scope, block, +1)
            free = _free_in(c, scope, at, stop, exclude)
            if free is not None:
                return free
            _count(c, scope, block, -1)
            at = stop + 1
    raise Exhausted(
        f"no address is free in {_ranges(scope, ranges)} of {scope}; add a range, or release some",
        reason="NoFreeAddress",
    )


def _block_with_room(c: Connection, scope: str, at: int, high: int) -> int | None:
    start, stop = at >> BLOCK_BITS, high >> BLOCK_BITS
    found: int | None = c.scalar(
        _BLOCK_WITH_ROOM, {"scope": scope, "start": start, "stop": stop, "full": BLOCK}
    )
    return found if found is not None and found <= stop else None


def _free_in(c: Connection, scope: str, at: int, stop: int, exclude: Collection[int]) -> int | None:
    while at <= stop:
        free: int | None = c.scalar(_FREE_ADDRESS, {"scope": scope, "start": at, "stop": stop})
        if free is None or free > stop:
            return None
        if free not in exclude:
            return free
        at = free + 1
        while at in exclude:
            at += 1
    return None


def _count(c: Connection, scope: str, block: int, change: int) -> None:
    row = {"s": scope, "b": block, "n": change}
    if c.execute(_COUNT, row).rowcount == 0:
        c.execute(_ADD_BLOCK, row)


def show(scope: str, value: int) -> str:
    """An integer as people know it: an IP in ``ip/…`` scopes."""
    if not scope.startswith("ip/"):
        return str(value)
    return str(ipaddress.ip_address(value))


def _ranges(scope: str, ranges: Ranges) -> str:
    parts = (f"{show(scope, low)}-{show(scope, high)}" for low, high in ranges)
    return ", ".join(parts) or "no range"
