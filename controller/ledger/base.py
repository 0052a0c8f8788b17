"""The ledger's contract: what must be unique or counted across all replicas.

Two primitives carry every kind. A *unique* claim gives one owner one value in a scope: an IP in
``ip/<l3 uid>``, a MAC in ``mac``, a VNI in ``vni/<pool uid>``. A *counted* claim takes amounts
from a pool: vCPUs, bytes and VMs from ``host/<uid>``, bytes from ``storage/<ps uid>/<host uid>``.
The database's unique keys and conditional updates decide between competitors; no lock is held
across calls. A claim is keyed by (scope, owner): claiming again returns what was claimed, and
releasing again is fine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

Permit = Callable[[Callable[[], int]], None]


def _anything(fenced: Callable[[], int]) -> None:
    return None


PERMIT: ContextVar[Permit] = ContextVar("permit", default=_anything)
"""Called in another thread, in each transaction that writes, once it has begun: raises if the
caller may no longer write. A process may have been stopped while it waited for its turn. It gets
what reads the fence (``Ledger.fence``) in that transaction; who has read it holds up whoever would
raise it until the transaction ends."""


@dataclass(frozen=True)
class Claim:
    """One row: a unique claim has a ``value``, a counted one ``amounts``."""

    scope: str
    owner: str
    value: str | None = None
    amounts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Pool:
    """Capacity and use of a counted scope, by resource name."""

    scope: str
    capacity: Mapping[str, int]
    used: Mapping[str, int]

    def free(self, resource: str) -> int:
        return self.capacity.get(resource, 0) - self.used.get(resource, 0)


class Ledger(Protocol):
    """All methods may raise Transient when the database cannot be reached."""

    async def claim_address(
        self,
        scope: str,
        owner: str,
        ranges: Sequence[tuple[int, int]],
        *,
        exclude: Sequence[int] = (),
        wanted: int | None = None,
    ) -> int:
        """A free integer (an address, a VNI, a port) of inclusive ``ranges``; lowest first.

        ``wanted``: this one or Exhausted (message names its owner). Raises Exhausted when full.
        """

    async def claim_value(self, scope: str, owner: str, value: str) -> None:
        """This value for this owner; raises Exhausted naming the owner that has it."""

    async def set_pool(self, scope: str, capacity: Mapping[str, int]) -> None:
        """Create a pool or change its capacity. Shrinking below its use is allowed: nothing new
        fits until enough is released."""

    async def drop_pool(self, scope: str) -> None:
        """Forget a pool. Its claims must be released first or are dropped with it."""

    async def pools(self, prefix: str) -> Sequence[Pool]:
        """Pools whose scope starts with ``prefix``."""

    async def claim_amounts(self, scope: str, owner: str, amounts: Mapping[str, int]) -> None:
        """Take all amounts or none; changing an earlier claim takes the difference. Raises
        Exhausted naming what is short and by how much."""

    async def release(self, owner: str, prefix: str = "") -> int:
        """Release the owner's claims in scopes that start with ``prefix``; returns how many."""

    async def hand_over(self, owner: str, to: str, prefix: str = "") -> None:
        """Counted claims of ``owner`` become those of ``to``, in place of what it had in the same
        scopes: at no time is anything free in between. Again is fine: ``owner`` has none then."""

    async def fence(self, generation: int) -> None:
        """From now on the ring has at least this generation. When this returns, no transaction is
        under way any more that was permitted under an older one."""

    async def claims(self, *, owner: str | None = None, prefix: str = "") -> Sequence[Claim]:
        """Claims, for audits and for finding out what an owner has."""
