"""Collects operations for one agent, so that many go in one request.

One request is under way at a time: operations reach the agent in the order in which they were
submitted, and what comes meanwhile makes up the next batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agents.wire import Operation, OperationReply
from controller.agentlink.metrics import BATCH
from controller.errors import AgentUnreachable, KumulusError, Transient

log = logging.getLogger(__name__)

Outcome = OperationReply | KumulusError
Post = Callable[[Sequence[Operation]], Awaitable[Mapping[str, Outcome]]]
"""Delivers a batch: an outcome for each operation's id. May raise Transient for all of them."""


class Mailbox:
    """``submit`` operations; the worker lives only while there are some."""

    def __init__(self, post: Post, *, batch: int, window: float, capacity: int) -> None:
        self._post = post
        self._batch = batch
        self._window = window
        self._capacity = capacity
        self._waiting: deque[tuple[Operation, asyncio.Future[OperationReply]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self._worker is None

    async def submit(self, operation: Operation) -> OperationReply:
        """The agent's first word on it. A cancelled caller's operation is not sent if it has not
        been yet. Raises what the batch's delivery says of it."""
        if len(self._waiting) >= self._capacity:
            raise Transient(
                f"{self._capacity} operations wait for one agent already", reason="AgentBusy"
            )
        future: asyncio.Future[OperationReply] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="agent-mailbox")
        return await future

    async def close(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._window)
                batch = self._take()
                if batch:
                    await self._deliver(batch)
        finally:
            self._worker = None
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()

    def _take(self) -> dict[str, tuple[Operation, asyncio.Future[OperationReply]]]:
        """The next operations, different ids. One that comes twice waits for the next batch."""
        batch: dict[str, tuple[Operation, asyncio.Future[OperationReply]]] = {}
        while self._waiting and len(batch) < self._batch:
            operation, future = self._waiting[0]
            if operation.id in batch:
                break
            self._waiting.popleft()
            if not future.done():
                batch[operation.id] = operation, future
        return batch

    async def _deliver(
        self, batch: Mapping[str, tuple[Operation, asyncio.Future[OperationReply]]]
    ) -> None:
        BATCH.observe(len(batch))
        outcomes: Mapping[str, Outcome] = {}
        failure: Callable[[], KumulusError] = _no_word
        try:
            outcomes = await self._post([operation for operation, _ in batch.values()])
        except Transient as error:
            failure = _copier(error)
        except Exception as error:
            log.exception("a batch of operations could not be delivered")
            failure = _copier(Transient(f"unexpected {type(error).__name__}: {error}"))
        except asyncio.CancelledError:
            for _, future in batch.values():
                future.cancel()
            raise
        for name, (_, future) in batch.items():
            outcome = outcomes.get(name) or failure()
            if future.done():
                continue
            if isinstance(outcome, OperationReply):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)


def _no_word() -> KumulusError:
    return AgentUnreachable("the agent's answer says nothing of the operation")


def _copier(error: Transient) -> Callable[[], KumulusError]:
    """Each waiter gets an exception of its own: they are changed on their way up."""

    def copy() -> KumulusError:
        return type(error)(error.message, reason=error.reason, retry_after=error.retry_after)

    return copy
