"""The fence: the newest generation of the ring that writers have to know.

A fencing token, as Kleppmann describes it ("How to do distributed locking", 2016): who takes over
by force raises the fence first, and every writer compares it with what it knows, in the
transaction in which it writes. A row that was read so is locked until that transaction ends: so
the fence is raised when none is left that was begun under an older generation. SQLite has one
writer at a time, and needs no lock.
"""

from __future__ import annotations

from sqlalchemy import BindParameter, Connection, bindparam, select, update

from controller.ledger.schema import fence

_generation: BindParameter[int] = bindparam("g")
# Statements are built once: building one costs more than running it.
_READ = select(fence.c.generation).with_for_update(read=True)
_RAISE = update(fence).where(fence.c.generation < _generation).values(generation=_generation)


def fenced(connection: Connection) -> int:
    """The generation; nobody raises it before the transaction ends."""
    return connection.scalar(_READ) or 0


def raise_fence(connection: Connection, generation: int) -> None:
    connection.execute(_RAISE, {"g": generation})
