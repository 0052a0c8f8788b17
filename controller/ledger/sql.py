"""The ledger on a SQL database: implements ``controller.ledger.base.Ledger``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, Table, bindparam, select

from controller.ledger import counted, unique
from controller.ledger.base import Claim, Pool
from controller.ledger.database import PATIENCE, Database
from controller.ledger.fence import raise_fence
from controller.ledger.schema import NAME_LENGTH, addresses, amounts, migrate, names
from controller.ledger.shared import Shared

_BEYOND = "\x7f"
"""Greater than every character of a name: the end of the scopes that start with a prefix."""
_LIMIT = 2**63

# Statements are built once: building one costs more than running it.
_owner: BindParameter[str] = bindparam("o")
_low: BindParameter[str] = bindparam("low")
_high: BindParameter[str] = bindparam("high")


def _mine(table: Table) -> Select[Any]:
    """The owner's scopes, locked, in order: concurrent releases do not wait for each other in
    turn."""
    chosen = select(table.c.scope).where(table.c.owner == _owner, *_within(table))
    return chosen.order_by(table.c.scope).with_for_update()


def _within(table: Table) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.scope >= _low, table.c.scope < _high


_MY_AMOUNTS = _mine(amounts)
_RELEASES = (
    (_mine(addresses), unique.release_address),
    (_mine(names), unique.release_value),
    (_MY_AMOUNTS, counted.release_amounts),
)


class SqlLedger:
    """``await SqlLedger.open(url)``; ``await close()`` at the end.

    To rebuild it from statuses: ``set_pool`` with a capacity that holds all, then for each object
    ``claim_amounts`` and ``claim_address(wanted=…)`` with what its status says (two objects that
    say the same address: the second gets Exhausted), then ``set_pool`` with the real capacity.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pools: Shared[str, Sequence[Pool]] = Shared(self._read_pools)

    @classmethod
    async def open(cls, url: str, *, patience: float = PATIENCE) -> SqlLedger:
        """``url``: sqlite:////path/to/file or mariadb://user:password@host:port/database.

        Makes or migrates the schema. Raises Transient when the database cannot be reached within
        ``patience`` seconds, Terminal when the URL is wrong or the schema is too new.
        """
        database = Database(url, patience=patience)
        try:
            await database.write(migrate)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    @classmethod
    def inspect(cls, url: str, *, patience: float = PATIENCE) -> SqlLedger:
        """To read only: nothing is made or migrated, and what writes fails. Raises Terminal when
        the URL is wrong or there is no such file."""
        return cls(Database(url, patience=patience, read_only=True))

    async def close(self) -> None:
        await self._database.close()

    async def claim_address(
        self,
        scope: str,
        owner: str,
        ranges: Sequence[tuple[int, int]],
        *,
        exclude: Sequence[int] = (),
        wanted: int | None = None,
    ) -> int:
        _check(scope=scope, owner=owner)
        for low, high in ranges:
            if not 0 <= low <= high < _LIMIT:
                raise ValueError(f"{low}-{high} is no range of integers from 0 to 2^63-1")
        reserved = frozenset(exclude)
        return await self._database.write(
            lambda c: unique.claim_address(c, scope, owner, ranges, exclude=reserved, wanted=wanted)
        )

    async def claim_value(self, scope: str, owner: str, value: str) -> None:
        _check(scope=scope, owner=owner, value=value)
        await self._database.write(lambda c: unique.claim_value(c, scope, owner, value))

    async def set_pool(self, scope: str, capacity: Mapping[str, int]) -> None:
        _check(scope=scope, **{f"resource {r}": r for r in capacity})
        _amounts(capacity)
        there = await self._database.read(lambda c: counted.list_pools(c, scope, scope + " "))
        if not there or there[0].scope != scope or dict(there[0].capacity) != dict(capacity):
            await self._database.write(lambda c: counted.set_pool(c, scope, capacity))

    async def drop_pool(self, scope: str) -> None:
        _check(scope=scope)
        await self._database.write(lambda c: counted.drop_pool(c, scope))

    async def pools(self, prefix: str) -> Sequence[Pool]:
        _check(prefix=prefix)
        return await self._pools.get(prefix)

    async def _read_pools(self, prefix: str) -> Sequence[Pool]:
        return await self._database.read(lambda c: counted.list_pools(c, prefix, prefix + _BEYOND))

    async def claim_amounts(self, scope: str, owner: str, amounts: Mapping[str, int]) -> None:
        _check(scope=scope, owner=owner, **{f"resource {r}": r for r in amounts})
        _amounts(amounts)
        await self._database.write(lambda c: counted.claim_amounts(c, scope, owner, amounts))

    async def fence(self, generation: int) -> None:
        await self._database.write(lambda c: raise_fence(c, generation))

    async def release(self, owner: str, prefix: str = "") -> int:
        _check(owner=owner, prefix=prefix)
        return await self._database.write(lambda c: _release(c, owner, prefix))

    async def hand_over(self, owner: str, to: str, prefix: str = "") -> None:
        _check(owner=owner, to=to, prefix=prefix)
        if owner != to:
            await self._database.write(lambda c: _hand_over(c, owner, to, prefix))

    async def claims(self, *, owner: str | None = None, prefix: str = "") -> Sequence[Claim]:
        _check(owner=owner or "", prefix=prefix)
        return await self._database.read(lambda c: _claims(c, owner, prefix))


def _check(**texts: str) -> None:
    for what, text in texts.items():
        if len(text) > NAME_LENGTH or not text.isascii() or not text.isprintable():
            raise ValueError(
                f"{what} {text[:200]!r} cannot be kept: use printable ASCII, "
                f"at most {NAME_LENGTH} characters"
            )


def _amounts(amounts: Mapping[str, int]) -> None:
    for resource, amount in amounts.items():
        if not 0 <= amount < _LIMIT:
            raise ValueError(f"{resource}: {amount} is no amount from 0 to 2^63-1")


def _release(c: Connection, owner: str, prefix: str) -> int:
    released = 0
    for mine, drop in _RELEASES:
        row = {"o": owner, "low": prefix, "high": prefix + _BEYOND}
        scopes = dict.fromkeys(c.scalars(mine, row))
        for scope in scopes:
            drop(c, scope, owner)
        released += len(scopes)
    return released


def _hand_over(c: Connection, owner: str, to: str, prefix: str) -> None:
    row = {"o": owner, "low": prefix, "high": prefix + _BEYOND}
    for scope in dict.fromkeys(c.scalars(_MY_AMOUNTS, row)):
        counted.hand_over(c, scope, owner, to)


def _claims(c: Connection, owner: str | None, prefix: str) -> list[Claim]:
    found = [
        Claim(row.scope, row.owner, value=str(row.value))
        for table in (addresses, names)
        for row in c.execute(
            select(table.c.scope, table.c.owner, table.c.value)
            .where(*_where(table, owner, prefix))
            .order_by(table.c.scope, table.c.value)
        )
    ]
    taken: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for row in c.execute(select(amounts).where(*_where(amounts, owner, prefix))):
        taken[row.scope, row.owner][row.resource] = row.amount
    found += [Claim(scope, of, amounts=taken[scope, of]) for scope, of in sorted(taken)]
    return found


def _where(table: Table, owner: str | None, prefix: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if owner is not None:
        conditions.append(table.c.owner == owner)
    if prefix:
        conditions += [table.c.scope >= prefix, table.c.scope < prefix + _BEYOND]
    return conditions
