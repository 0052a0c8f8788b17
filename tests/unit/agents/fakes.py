"""Parts for tests of the operation table in virtual time: nothing here uses a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agents.callbacks import CallbackPolicy, Callbacks, Copies
from agents.database import InlineExecutor
from agents.drivers.base import OPERATION, AgentId, DriverError
from agents.journal import Journal
from agents.operations import Limits, Operations
from agents.wire import (
    Facts,
    Inventory,
    Operation,
    OperationBatch,
    OperationReply,
    Ping,
    StorageArgs,
    StorageResult,
    Wire,
)

HOST = AgentId("host-1", "host")
OTHER = AgentId("host-2", "host")
EPOCH = 1_000_000.0


def operation(id: str, resource: str = "r", **changes: object) -> Operation:
    fields = {"id": id, "action": "storage.ensure", "resource": resource, "args": {"path": "/p"}}
    return Operation.model_validate({**fields, **changes})


@dataclass
class Run:
    """One execution, in loop time."""

    operation: str
    resource: str
    began: float
    ended: float | None = None


class FakeDriver:
    """Takes as long as ``seconds`` says for a resource; fails with what is in ``failures``."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.seconds: Callable[[str], float] = lambda resource: 1.0
        self.failures: list[Exception] = []
        self.most_at_once = 0

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def execute(self, action: str, resource: str, args: Wire) -> Wire:
        assert isinstance(args, StorageArgs)
        loop = asyncio.get_running_loop()
        run = Run(OPERATION.get(), resource, loop.time())
        self.runs.append(run)
        self.most_at_once = max(self.most_at_once, sum(r.ended is None for r in self.runs))
        try:
            await asyncio.sleep(self.seconds(resource))
        finally:
            run.ended = loop.time()
        if self.failures:
            raise self.failures.pop(0)
        return StorageResult(total=len(self.runs), available=1)

    async def ping(self) -> Ping:
        return Ping(boot_id="b")

    async def facts(self) -> Facts:
        raise NotImplementedError

    async def inventory(self) -> Inventory:
        return Inventory()

    async def image_file(self, file: str) -> Path:
        raise DriverError("not-found", file)


@dataclass
class FakePost:
    """A controller's callback server: answers what is in ``answers``, then 200."""

    answers: list[int | Exception] = field(default_factory=list)
    told: list[tuple[float, str, OperationReply]] = field(default_factory=list)
    """(loop time, URL, reply) of every attempt."""

    async def __call__(self, agent: AgentId, url: str, body: bytes) -> int:
        now = asyncio.get_running_loop().time()
        self.told.append((now, url, OperationReply.model_validate_json(body)))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class Bench:
    """The table with its surroundings."""

    operations: Operations
    journal: Journal
    driver: FakeDriver
    post: FakePost
    callbacks: Callbacks

    async def send(
        self, *operations: Operation, agent: AgentId = HOST, generation: int = 0
    ) -> list[OperationReply]:
        batch = OperationBatch(ring_generation=generation, operations=list(operations))
        return await self.operations.accept(agent, batch)

    async def ended(self, id: str, agent: AgentId = HOST) -> OperationReply:
        """Polls in virtual time, without touching anything."""
        async with asyncio.timeout(100_000):
            while True:
                reply = await self.operations.read(agent, id)
                assert reply is not None
                if reply.state in ("Succeeded", "Failed"):
                    return reply
                await asyncio.sleep(0.1)


@asynccontextmanager
async def bench(
    directory: Path,
    *,
    driver: FakeDriver | None = None,
    post: FakePost | None = None,
    limits: Limits | None = None,
    policy: CallbackPolicy | None = None,
    copies: Copies = lambda agent, id: 1,
    serves: Callable[[AgentId], bool] = lambda agent: True,
) -> AsyncIterator[Bench]:
    """Entered again with the same directory, it goes on where the former left, even if that was
    left in the middle of work (close() without grace cancels what runs, as a kill would)."""
    driver, post = driver or FakeDriver(), post or FakePost()
    loop = asyncio.get_running_loop()

    def clock() -> float:
        return EPOCH + loop.time()

    async def driver_of(agent: AgentId) -> FakeDriver | None:
        return driver if serves(agent) else None

    journal = Journal(directory / "operations.db", executor=InlineExecutor())
    await journal.open()
    callbacks = Callbacks(
        post, journal.told, policy, copies=copies, clock=clock, chance=lambda: 0.5
    )
    operations = Operations(journal, driver_of, callbacks, limits, clock=clock)
    await operations.open()
    try:
        yield Bench(operations, journal, driver, post, callbacks)
    finally:
        await operations.close()
        await journal.close()
