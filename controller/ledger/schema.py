"""Tables of the ledger, and how they get there.

Names (scopes, owners, values) are printable ASCII, compared byte for byte, at most NAME_LENGTH
long: so that both databases order and compare them alike.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    func,
    insert,
    select,
)

from controller.errors import Terminal

NAME_LENGTH = 190
BLOCK_BITS = 8
"""Addresses are counted in blocks of 2**BLOCK_BITS: a full block is skipped at one glance."""

_Name = String(NAME_LENGTH).with_variant(
    String(NAME_LENGTH, collation="ascii_nopad_bin"), "mysql", "mariadb"
)
metadata = MetaData()


def _table(name: str, *parts: Column[object] | UniqueConstraint | Index) -> Table:
    return Table(name, metadata, *parts, sqlite_with_rowid=False, mysql_engine="InnoDB")


def _key(name: str) -> Column[object]:
    return Column(name, _Name, primary_key=True)


def _number(name: str, *, primary_key: bool = False) -> Column[object]:
    return Column(name, BigInteger, primary_key=primary_key, autoincrement=False, nullable=False)


addresses = _table(
    "ledger_addresses",
    _key("scope"),
    _number("value", primary_key=True),
    Column("owner", _Name, nullable=False),
    UniqueConstraint("scope", "owner", name="ledger_address_owner"),
    Index("ledger_address_by_owner", "owner", "scope"),
)
"""Unique claims of an integer."""

blocks = _table("ledger_blocks", _key("scope"), _number("block", primary_key=True), _number("used"))
"""How many addresses of a block are claimed. Changed in the claim's own transaction."""

names = _table(
    "ledger_values",
    _key("scope"),
    _key("value"),
    Column("owner", _Name, nullable=False),
    UniqueConstraint("scope", "owner", name="ledger_value_owner"),
    Index("ledger_value_by_owner", "owner", "scope"),
)
"""Unique claims of a text."""

pools = _table(
    "ledger_pools", _key("scope"), _key("resource"), _number("capacity"), _number("used")
)
"""Counted scopes. ``used`` is the sum of the scope's amounts; it may exceed a shrunk capacity."""

amounts = _table(
    "ledger_amounts",
    _key("scope"),
    _key("owner"),
    _key("resource"),
    _number("amount"),
    Index("ledger_amount_by_owner", "owner", "scope"),
)
"""Counted claims."""

fence = _table("ledger_fence", _number("id", primary_key=True), _number("generation"))
"""One row: no writer may act under an older generation of the ring."""

versions = Table("ledger_schema", metadata, Column("version", Integer, primary_key=True))


def _first(connection: Connection) -> None:
    metadata.create_all(connection)


def _second(connection: Connection) -> None:
    fence.create(connection, checkfirst=True)
    if connection.scalar(select(fence.c.id)) is None:
        connection.execute(insert(fence).values(id=1, generation=0))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first, _second)
"""Number n brings version n to n + 1. Each must cope with having been done by another replica."""


def migrate(connection: Connection) -> None:
    """Bring the schema to this version. Raises Terminal if a newer Kumulus made it."""
    versions.create(connection, checkfirst=True)
    found = connection.scalar(select(func.max(versions.c.version))) or 0
    if found > len(MIGRATIONS):
        raise Terminal(
            f"the ledger has schema version {found}, this Kumulus knows {len(MIGRATIONS)}: "
            "run the version that made it, or a newer one",
            reason="LedgerTooNew",
        )
    for number in range(found, len(MIGRATIONS)):
        MIGRATIONS[number](connection)
        connection.execute(insert(versions).values(version=number + 1))
