"""Unique claims, inside one transaction: integers (lowest free first) and texts."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, Select, delete, insert, select, text, update

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
    mine = (addresses.c.scope == scope) & (addresses.c.owner == owner)
    held: int | None = c.scalar(select(addresses.c.value).where(mine).with_for_update())
    if held is not None and wanted in (None, held):
        return held
    if wanted is None:
        value = _lowest_free(c, scope, ranges, exclude)
    else:
        value = _wanted(c, scope, ranges, exclude, wanted)
    _count(c, scope, value, +1)
    if held is None:
        c.execute(insert(addresses).values(scope=scope, owner=owner, value=value))
    else:
        c.execute(update(addresses).where(mine).values(value=value))
        _count(c, scope, held, -1)
    return value


def claim_value(c: Connection, scope: str, owner: str, value: str) -> None:
    """See ``Ledger.claim_value``. A claim of another value in the scope moves to this one."""
    taken_by = c.scalar(select(names.c.owner).where(names.c.scope == scope, names.c.value == value))
    if taken_by == owner:
        return
    if taken_by is not None:
        raise Exhausted(
            f"{value} in {scope} is taken by {taken_by}; choose another", reason="ValueTaken"
        )
    mine = (names.c.scope == scope) & (names.c.owner == owner)
    if c.execute(update(names).where(mine).values(value=value)).rowcount == 0:
        c.execute(insert(names).values(scope=scope, owner=owner, value=value))


def release_address(c: Connection, scope: str, owner: str) -> None:
    """Drop one claim; the caller has locked its row."""
    mine = (addresses.c.scope == scope) & (addresses.c.owner == owner)
    value = c.scalar(select(addresses.c.value).where(mine))
    if value is not None:
        c.execute(delete(addresses).where(mine))
        _count(c, scope, value, -1)


def release_value(c: Connection, scope: str, owner: str) -> None:
    c.execute(delete(names).where(names.c.scope == scope, names.c.owner == owner))


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
    taken_by = c.scalar(
        select(addresses.c.owner).where(addresses.c.scope == scope, addresses.c.value == wanted)
    )
    if taken_by is not None:
        raise Exhausted(
            f"{shown} in {scope} is taken by {taken_by}; choose another, or leave the choice open",
            reason="AddressTaken",
        )
    return wanted


def _lowest_free(c: Connection, scope: str, ranges: Ranges, exclude: Collection[int]) -> int:
    for low, high in sorted(ranges):
        at = low
        while at <= high:
            block = _block_with_room(c, scope, at, high)
            if block is None:
                break
            at = max(at, block << BLOCK_BITS)
            stop = min(high, (block << BLOCK_BITS) + BLOCK - 1)
            # Competitors for this block wait here for each other instead of all trying the same
            # address; the unique key decides anyway.
            c.execute(_this_block(scope, block).with_for_update())
            free = _free_in(c, scope, at, stop, exclude)
            if free is not None:
                return free
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


def _this_block(scope: str, block: int) -> Select[tuple[int]]:
    return select(blocks.c.used).where(blocks.c.scope == scope, blocks.c.block == block)


def _count(c: Connection, scope: str, value: int, change: int) -> None:
    block = value >> BLOCK_BITS
    row = (blocks.c.scope == scope) & (blocks.c.block == block)
    changed = c.execute(update(blocks).where(row).values(used=blocks.c.used + change)).rowcount
    if changed == 0:
        c.execute(insert(blocks).values(scope=scope, block=block, used=change))


def show(scope: str, value: int) -> str:
    """An integer as people know it: an IP in ``ip/…`` scopes."""
    if not scope.startswith("ip/"):
        return str(value)
    return str(ipaddress.ip_address(value))


def _ranges(scope: str, ranges: Ranges) -> str:
    parts = (f"{show(scope, low)}-{show(scope, high)}" for low, high in ranges)
    return ", ".join(parts) or "no range"
