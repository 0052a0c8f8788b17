"""Asking once more, right before anything leaves the process, whether the work is still ours.

The door of the queue asks ``owns`` before work begins; the ring may change, or this replica be
stopped for a while, at any moment after that. So the reconciler names the object that it works on
(``working_on``), and what a reconcile can reach the outside with is wrapped: agents' commands,
claims, writes to the API server. Work that no reconcile does (Events, Leases) is not concerned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from agents.wire import Facts, Inventory, Ping, Wire
from controller.agentlink.client import Agents, Endpoint
from controller.errors import Transient
from controller.keys import Key
from controller.ledger.base import PERMIT, Claim, Ledger, Pool
from controller.sharding.base import Sharding

T = TypeVar("T")
W = TypeVar("W", bound=Wire)

WORK: ContextVar[str] = ContextVar("work")
COMMAND_SECONDS = 0.4
"""How long a cancelled command may take to its end; then the agents' fence has to see to it."""
WRITE_SECONDS = 5.0


@contextmanager
def working_on(uid: str) -> Iterator[None]:
    """What this task, and those that it starts, do meanwhile is done for ``uid``."""
    token = WORK.set(uid)
    try:
        yield
    finally:
        WORK.reset(token)


@dataclass(frozen=True)
class Guard:
    """Call it: raises Moved if what is being worked on is no longer ours."""

    sharding: Sharding

    def __call__(self) -> None:
        self.of(WORK.get(""))

    def of(self, uid: str) -> None:
        """The same for ``uid``; "" is nobody's work in particular."""
        if uid:
            self.sharding.check(uid)

    def in_transaction(self, uid: str, fenced: Callable[[], int]) -> None:
        """The same in a transaction of the ledger. ``fenced``: the generation that it wants."""
        self.of(uid)
        if uid and fenced() > self.sharding.generation:
            raise Transient("the ring has changed; it is read first", reason="RingChanged")


async def to_its_end(
    work: Coroutine[Any, Any, T], seconds: float, give_up: Callable[[], None] = lambda: None
) -> T:
    """``work``, which is not left half done when its caller is cancelled: who hands an object over
    must know that nothing is under way any more. After ``seconds`` it is cancelled, too, and
    ``give_up`` is called."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task], timeout=seconds)
        if not task.done():
            give_up()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


@dataclass(frozen=True)
class GuardedAgents:
    """Implements agentlink.client.Agents. Questions are free; commands are not. ``late``: uids
    whose commands were given up while they were on their way."""

    agents: Agents
    guard: Guard
    late: set[str] = field(default_factory=set)

    async def run(
        self,
        endpoint: Endpoint,
        action: str,
        resource: str,
        args: Wire,
        result: type[W],
        *,
        operation: str,
        owner: Key,
    ) -> W:
        self.guard()
        command = self.agents.run(
            endpoint, action, resource, args, result, operation=operation, owner=owner
        )
        return await to_its_end(command, COMMAND_SECONDS, lambda: self.late.add(WORK.get("")))

    async def ping(self, endpoint: Endpoint) -> Ping:
        return await self.agents.ping(endpoint)

    async def facts(self, endpoint: Endpoint) -> Facts:
        return await self.agents.facts(endpoint)

    async def inventory(self, endpoint: Endpoint) -> Inventory:
        return await self.agents.inventory(endpoint)


@dataclass(frozen=True)
class GuardedLedger:
    """Implements ledger.base.Ledger. A transaction that has begun ends, whoever is cancelled."""

    ledger: Ledger
    guard: Guard

    @contextmanager
    def _permit(self) -> Iterator[None]:
        """Asks now, and once more in the transaction itself: until it may begin, this process may
        be stopped, and the ring go on without it; then another has raised the ledger's fence."""
        self.guard()
        token = PERMIT.set(partial(self.guard.in_transaction, WORK.get("")))
        try:
            yield
        finally:
            PERMIT.reset(token)

    async def claim_address(
        self,
        scope: str,
        owner: str,
        ranges: Sequence[tuple[int, int]],
        *,
        exclude: Sequence[int] = (),
        wanted: int | None = None,
    ) -> int:
        with self._permit():
            return await self.ledger.claim_address(
                scope, owner, ranges, exclude=exclude, wanted=wanted
            )

    async def claim_value(self, scope: str, owner: str, value: str) -> None:
        with self._permit():
            await self.ledger.claim_value(scope, owner, value)

    async def set_pool(self, scope: str, capacity: Mapping[str, int]) -> None:
        with self._permit():
            await self.ledger.set_pool(scope, capacity)

    async def drop_pool(self, scope: str) -> None:
        with self._permit():
            await self.ledger.drop_pool(scope)

    async def pools(self, prefix: str) -> Sequence[Pool]:
        return await self.ledger.pools(prefix)

    async def claim_amounts(self, scope: str, owner: str, amounts: Mapping[str, int]) -> None:
        with self._permit():
            await self.ledger.claim_amounts(scope, owner, amounts)

    async def release(self, owner: str, prefix: str = "") -> int:
        with self._permit():
            return await self.ledger.release(owner, prefix)

    async def hand_over(self, owner: str, to: str, prefix: str = "") -> None:
        with self._permit():
            await self.ledger.hand_over(owner, to, prefix)

    async def fence(self, generation: int) -> None:
        await self.ledger.fence(generation)

    async def claims(self, *, owner: str | None = None, prefix: str = "") -> Sequence[Claim]:
        return await self.ledger.claims(owner=owner, prefix=prefix)
