"""Operations: accepted durably, run once at a time per resource, answered by callback.

::

    POST ──► check ──► journal (commit) ──► 202
                          │
                  a lane per (agent, resource): one at a time, in order
                          │
              a slot of the agent, a slot of the process
                          │
                 driver.execute, with a timeout ──► journal ──► callback

A crash at any point leaves either nothing or a Pending row, which the next process runs again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agents import metrics
from agents.callbacks import Callbacks
from agents.checks import check, parse_args
from agents.drivers.base import OPERATION, AgentId, Code, Driver, DriverError, timeout_of
from agents.journal import Entry, Journal, Untold
from agents.wire import Error, Operation, OperationBatch, OperationReply, Wire
from common.logs import bind

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Counts; ``keep_seconds`` and ``prune_every`` in seconds.

    per_agent, overall: operations at work at once. queue_agent, queue_overall: accepted and not
    ended. keep, keep_seconds: finished operations that are remembered.
    """

    per_agent: int = 16
    overall: int = 512
    queue_agent: int = 4096
    queue_overall: int = 65536
    keep: int = 100_000
    keep_seconds: float = 86400.0
    prune_every: float = 60.0


class Refused(Exception):
    """A batch that is not accepted, with the HTTP status that says so."""

    def __init__(self, status: int, code: Code, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = Error(code=code, message=message)


@dataclass
class _Work:
    """An operation in memory, from acceptance to its end."""

    entry: Entry
    callback: str | None
    arrived: float
    running: bool = False


@dataclass
class _Lanes:
    """What one agent has to do."""

    slots: asyncio.Semaphore
    lanes: dict[str, deque[_Work]] = field(default_factory=dict)
    works: dict[str, _Work] = field(default_factory=dict)
    reserved: int = 0

    @property
    def depth(self) -> int:
        return len(self.works) + self.reserved


DriverOf = Callable[[AgentId], Awaitable[Driver | None]]
TimeoutOf = Callable[[str, Wire], float]


class Operations:
    """The table's working half, for every agent of this process."""

    def __init__(
        self,
        journal: Journal,
        driver_of: DriverOf,
        callbacks: Callbacks,
        limits: Limits | None = None,
        *,
        timeouts: TimeoutOf = timeout_of,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """driver_of: an agent's open driver, or None if this process does not serve it."""
        self._journal = journal
        self._driver_of = driver_of
        self._callbacks = callbacks
        self._limits = limits or Limits()
        self._timeouts = timeouts
        self._clock = clock
        self._slots = asyncio.Semaphore(self._limits.overall)
        self._agents: dict[AgentId, _Lanes] = {}
        self._fences: dict[AgentId, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._queued = 0
        self._reserved = 0
        self._idle = asyncio.Event()
        self._closing = False

    @property
    def depth(self) -> int:
        """Operations accepted and not ended."""
        return self._queued + self._reserved

    async def open(self) -> None:
        """Take up what a former process left: unfinished work, undelivered callbacks."""
        self._fences = await self._journal.fences()
        for entry in await self._journal.unfinished():
            if await self._driver_of(entry.agent) is None:
                log.warning(
                    "unfinished operation of an agent that is not served here",
                    extra={"agent": entry.agent.server_name, "operation": entry.operation.id},
                )
                continue
            self._enqueue(entry)
        for untold in await self._journal.untold():
            if await self._driver_of(untold.agent) is not None:
                self._callbacks.send(untold)
        self._spawn(self._prune(), "prune operations")

    async def close(self, grace: float = 0.0) -> None:
        """Accept no more; give work ``grace`` seconds to end; the next process does the rest."""
        self._closing = True
        deadline = time.monotonic() + grace
        while self._queued and time.monotonic() < deadline:
            self._idle.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._idle.wait()
            except TimeoutError:
                break
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._callbacks.close()

    async def accept(self, agent: AgentId, batch: OperationBatch) -> list[OperationReply]:
        """Record the batch and return at once with the state of each operation, in order.

        An operation that cannot be (unknown action, bad arguments) is answered Failed/invalid and
        not recorded. Raises Refused: fenced, too many, or nothing of the batch can be.
        """
        invalid = {
            index: error
            for index, operation in enumerate(batch.operations)
            if (error := check(agent, operation, f"operations[{index}]")) is not None
        }
        if invalid and len(invalid) == len(batch.operations):
            first = next(iter(invalid.values()))
            raise _refused(422, "invalid", first.message)
        self._check_fence(agent, batch.ring_generation)
        valid = [o for i, o in enumerate(batch.operations) if i not in invalid]
        replies = iter(await self._admit_safely(agent, batch.ring_generation, valid))
        return [
            OperationReply(id=operation.id, state="Failed", error=invalid[index])
            if index in invalid
            else next(replies)
            for index, operation in enumerate(batch.operations)
        ]

    async def read(self, agent: AgentId, id: str) -> OperationReply | None:
        """Read-back: the operation's state, None if unknown."""
        lanes = self._agents.get(agent)
        if lanes is not None and id in lanes.works:
            return _active(lanes.works[id])
        return await self._journal.read(agent, id)

    def _check_fence(self, agent: AgentId, generation: int) -> None:
        highest = self._fences.get(agent, 0)
        if generation < highest:
            raise _refused(
                409,
                "fenced",
                f"ring generation {generation} is older than {highest}, which {agent.server_name} "
                "has seen: another controller owns this work now",
            )
        self._fences[agent] = generation

    async def _admit_safely(
        self, agent: AgentId, generation: int, operations: Sequence[Operation]
    ) -> list[OperationReply]:
        """Bounded; and, once begun, not undone by a client that goes away: what the journal has
        must be queued as well."""
        lanes = self._lanes_of(agent)
        new = sum(operation.id not in lanes.works for operation in operations)
        self._check_room(lanes, new)
        lanes.reserved += new
        self._reserved += new
        admission = self._spawn(self._admit(agent, generation, operations), "admit operations")
        admission.add_done_callback(lambda _: self._release(lanes, new))
        replies: list[OperationReply] = await asyncio.shield(admission)
        return replies

    def _release(self, lanes: _Lanes, count: int) -> None:
        lanes.reserved -= count
        self._reserved -= count

    async def _admit(
        self, agent: AgentId, generation: int, operations: Sequence[Operation]
    ) -> list[OperationReply]:
        replies = []
        admissions = await self._journal.admit(agent, generation, operations)
        for operation, admission in zip(operations, admissions, strict=True):
            if admission.entry is not None:
                self._callbacks.drop(agent, operation.id)
                self._enqueue(admission.entry)
                replies.append(admission.reply)
                continue
            metrics.DUPLICATES.inc()
            work = self._lanes_of(agent).works.get(operation.id)
            if work is not None and admission.reply.state == "Pending":
                work.callback = operation.callback
                replies.append(_active(work))
            else:
                replies.append(admission.reply)
        return replies

    def _check_room(self, lanes: _Lanes, new: int) -> None:
        if self._closing:
            raise _refused(503, "unreachable", "the agent is shutting down; try again soon")
        if not new:
            return
        if lanes.depth + new > self._limits.queue_agent:
            raise _refused(
                429, "busy", f"{lanes.depth} operations wait on this agent already; try again later"
            )
        if self.depth + new > self._limits.queue_overall:
            raise _refused(
                503, "busy", f"{self.depth} operations wait in this process; try again later"
            )

    def _lanes_of(self, agent: AgentId) -> _Lanes:
        if agent not in self._agents:
            self._agents[agent] = _Lanes(asyncio.Semaphore(self._limits.per_agent))
        return self._agents[agent]

    def _enqueue(self, entry: Entry) -> None:
        lanes = self._lanes_of(entry.agent)
        work = _Work(entry, entry.operation.callback, time.monotonic())
        lanes.works[entry.operation.id] = work
        self._queued += 1
        metrics.QUEUED.inc()
        resource = entry.operation.resource
        if resource in lanes.lanes:
            lanes.lanes[resource].append(work)
            return
        lanes.lanes[resource] = deque([work])
        self._spawn(self._drive(lanes, resource), f"lane {entry.agent.server_name}/{resource}")

    async def _drive(self, lanes: _Lanes, resource: str) -> None:
        """Work off one lane. The lane's head stays in it while it runs."""
        lane = lanes.lanes[resource]
        try:
            while lane:
                async with lanes.slots, self._slots:
                    await self._run(lanes, lane[0])
                lane.popleft()
                self._queued -= 1
        finally:
            del lanes.lanes[resource]
            self._idle.set()

    async def _run(self, lanes: _Lanes, work: _Work) -> None:
        entry, operation = work.entry, work.entry.operation
        started = time.monotonic()
        metrics.WAITED.observe(started - work.arrived)
        metrics.QUEUED.dec()
        work.running = True
        with (
            metrics.RUNNING.track_inprogress(),
            bind(agent=entry.agent.name, resource=operation.resource, operation=operation.id),
        ):
            reply = await self._execute(entry)
            seconds = time.monotonic() - started
            metrics.SECONDS.labels(operation.action).observe(seconds)
            metrics.OPERATIONS.labels(operation.action, reply.state).inc()
            _log_end(entry, reply, seconds)
            finished = await self._record(entry, reply)
            # Before the callback, so that whoever it wakes reads the result and not "Running". It
            # may have been asked for anew already: then the entry under its id is another.
            if lanes.works.get(operation.id) is work:
                del lanes.works[operation.id]
            if work.callback:
                self._callbacks.send(Untold(entry.seq, entry.agent, work.callback, finished, reply))

    async def _execute(self, entry: Entry) -> OperationReply:
        operation = entry.operation
        try:
            driver = await self._served(entry.agent)
            args = parse_args(entry.agent, operation)
            result = await self._timed(driver, operation, args)
        except DriverError as error:
            return OperationReply(id=operation.id, state="Failed", error=error.wire())
        except Exception as error:
            log.exception("driver failed in %s", operation.action)
            message = f"{operation.action} failed in the agent: {type(error).__name__}; see its log"
            failure = Error(code="internal", message=message)
            return OperationReply(id=operation.id, state="Failed", error=failure)
        return OperationReply(
            id=operation.id, state="Succeeded", result=result.model_dump(mode="json", by_alias=True)
        )

    async def _served(self, agent: AgentId) -> Driver:
        driver = await self._driver_of(agent)
        if driver is None:
            raise DriverError("not-found", f"{agent.server_name} is not served here")
        return driver

    async def _record(self, entry: Entry, reply: OperationReply) -> float:
        """When it ended. A table that cannot be written (full disk) is tried until it can."""
        delay = 1.0
        while True:
            finished = self._clock()
            try:
                await self._journal.finish(entry, reply, finished)
            except sqlite3.Error as error:
                log.error("cannot record the end of an operation: %s", error)  # noqa: TRY400
                await asyncio.sleep(delay)
                delay = min(30.0, delay * 2)
            else:
                return finished

    async def _timed(self, driver: Driver, operation: Operation, args: Wire) -> Wire:
        limit = self._timeouts(operation.action, args)
        token = OPERATION.set(operation.id)
        try:
            async with asyncio.timeout(limit) as timer:
                return await driver.execute(operation.action, operation.resource, args)
        except TimeoutError:
            if not timer.expired():
                raise
            raise DriverError(
                "timeout",
                f"{operation.action} on {operation.resource} did not end within {limit:g} s",
            ) from None
        finally:
            OPERATION.reset(token)

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(self._limits.prune_every)
            gone = await self._journal.prune(
                self._clock() - self._limits.keep_seconds, self._limits.keep
            )
            if gone:
                log.info("forgot %d finished operations", gone)

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)


def _active(work: _Work) -> OperationReply:
    state: Literal["Running", "Pending"] = "Running" if work.running else "Pending"
    return OperationReply(id=work.entry.operation.id, state=state)


def _refused(status: int, code: Code, message: str) -> Refused:
    metrics.REFUSED.labels(code).inc()
    return Refused(status, code, message)


def _log_end(entry: Entry, reply: OperationReply, seconds: float) -> None:
    """``seq`` and ``generation`` say in which order, and by whose right, it was asked for."""
    action = entry.operation.action
    asked = {"action": action, "seq": entry.seq, "generation": entry.generation}
    if reply.error is None:
        log.info("%s done", action, extra={**asked, "seconds": round(seconds, 3)})
    else:
        why = {**asked, "code": reply.error.code}
        log.warning("%s failed: %s", action, reply.error.message, extra=why)
