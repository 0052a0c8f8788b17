"""Replicas as processes in one loop in virtual time: they can be frozen, killed and cut off.

A process is a set of tasks that are driven by hand: while it is frozen none of them takes a step,
whatever timers expire; then all is done late, as after SIGSTOP. What it has sent travels outside
of it: it arrives although the process is frozen or dead by then, and answers may be lost.
Clocks differ by up to five seconds, and run up to two percent fast or slow.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from controller.client import ApiUnavailable, Resource
from controller.sharding.arcs import NOTHING, Arcs, position
from controller.sharding.base import Moved
from controller.sharding.leases import Leases
from controller.sharding.member import Member
from controller.sharding.ring_object import RingObject
from tests.unit.core.fakes import FakeApi

PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
DURATION = 10.0


class _Yield:
    """Hands to the loop what a coroutine waits for."""

    def __init__(self, waited: Any) -> None:
        self.waited = waited

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.waited)


class Process:
    """Create tasks below ``run``; they belong to the process."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.running = asyncio.Event()
        self.running.set()
        self.dead = self.cut = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self._offset, self._rate = rng.uniform(-5, 5), rng.uniform(0.98, 1.02)

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def freeze(self) -> None:
        self.running.clear()

    def thaw(self) -> None:
        self.running.set()

    async def kill(self) -> None:
        """SIGKILL: no last word reaches anybody."""
        self.dead = True
        self.thaw()
        while self.tasks:
            for task in list(self.tasks):
                task.cancel()
            await asyncio.wait(self.tasks)

    def now(self) -> float:
        return 10**9 + self._offset + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return 100 * self._offset + self._rate * asyncio.get_running_loop().time()

    async def ask(self, effect: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """A request: the way there, its effect, the way back, all but the first step outside."""
        lost = ApiUnavailable("no answer")
        if self.dead or self.cut:
            await asyncio.sleep(self.rng.uniform(0, 8))
            raise lost

        async def outside() -> Any:
            await asyncio.sleep(self.rng.expovariate(50))
            found = await effect()
            await asyncio.sleep(self.rng.expovariate(50))
            return found

        task = asyncio.get_running_loop().create_task(outside(), context=contextvars.Context())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        found = await asyncio.shield(task)
        if self.dead or self.cut:
            raise lost
        return found

    async def drive(self, work: Coroutine[Any, Any, Any]) -> Any:
        error: BaseException | None = None
        while True:
            while not self.running.is_set():
                try:
                    await self.running.wait()
                except asyncio.CancelledError as cancelled:
                    error = cancelled
            try:
                waited = work.send(None) if error is None else work.throw(error)
            except StopIteration as end:
                return end.value
            error = None
            try:
                await _Yield(waited)
            except BaseException as raised:  # it is for the one that waits
                error = raised


def install() -> None:
    """Make the running loop's tasks belong to the process that makes them."""

    def factory(loop: Any, work: Any, **kwargs: Any) -> asyncio.Task[Any]:
        process = PROCESS.get()
        if process is None:
            return asyncio.Task(work, loop=loop, **kwargs)
        task = asyncio.Task(process.drive(work), loop=loop, **kwargs)
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
        # A task that is cancelled before its first step never gets to its coroutine.
        task.add_done_callback(lambda _: work.close())
        return task

    asyncio.get_running_loop().set_task_factory(factory)


@dataclass
class ProcessApi:
    """A FakeApi as a process sees it."""

    api: FakeApi
    process: Process

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            return self.process.ask(lambda: getattr(self.api, verb)(*args))

        return call

    async def changes(self, resource: Resource, namespace: str, name: str) -> AsyncIterator[None]:
        async for _ in self.api.changes(resource, namespace, name):
            if self.process.cut or self.process.dead:
                raise ApiUnavailable("the watch was cut")
            yield


@dataclass(frozen=True)
class Done:
    """A command that an agent took."""

    at: float
    uid: str
    tenure: tuple[int, int]
    """(replica's number, how many times it has gained the object)."""
    generation: int


@dataclass
class Outside:
    """The agents. Commands take ``lag()`` seconds to arrive."""

    rng: random.Random
    fences: dict[int, int] = field(default_factory=dict)
    done: list[Done] = field(default_factory=list)
    refused: int = 0

    def raise_fence(self, agent: int, generation: int) -> None:
        self.fences[agent] = max(generation, self.fences.get(agent, 0))

    async def arrive(
        self, agent: int, uid: str, tenure: tuple[int, int], generation: int, lag: float = 0.0
    ) -> None:
        await asyncio.sleep(lag or self.rng.choice((0.001, 0.01, 0.01, 0.1, 0.1, 1.0, 4.0, 30.0)))
        if generation < self.fences.get(agent, 0):
            self.refused += 1
            return
        self.raise_fence(agent, generation)
        self.done.append(Done(asyncio.get_running_loop().time(), uid, tenure, generation))

    async def fence(self, generation: int) -> None:
        for agent in range(AGENTS):
            self.raise_fence(agent, generation)


AGENTS = 3


@dataclass
class Replica:
    """A member, and work on what it owns: commands to any agent, as fast as they are answered."""

    number: int
    world: World
    served: Arcs = NOTHING
    tenures: dict[str, int] = field(default_factory=dict)
    late: int = 0

    def __post_init__(self) -> None:
        self.process = process = Process(self.world.rng)
        api: Any = ProcessApi(self.world.api, process)
        leases = Leases(api, "ns", f"r{self.number}", DURATION, process, node="n")
        self.member = Member(RingObject(api, "ns"), leases, process, fence=self._fence)
        self.member.follow(self)
        self.working: dict[str, asyncio.Task[Any]] = {}
        self.life = process.run(self.member.run())
        process.run(self._work())

    async def leave(self) -> None:
        """SIGTERM."""

        async def end() -> None:
            self.life.cancel()
            await asyncio.wait([self.life])
            await self.member.leave()

        await self.process.run(end())
        await self.process.kill()

    # Follower

    async def gain(self, arcs: Arcs, generation: int) -> None:
        await asyncio.sleep(self.world.rng.choice((0.0, 0.05, 0.5)))

    def serve(self, arcs: Arcs) -> None:
        for uid in self.world.uids:
            if position(uid) in arcs:
                self.tenures[uid] = self.tenures.get(uid, 0) + 1

    async def drain(self, arcs: Arcs, grace: float) -> bool:
        tasks = [task for uid, task in self.working.items() if position(uid) in arcs]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        late = sum(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.late += late
        return not late

    # work

    async def _work(self) -> None:
        while True:
            uid = self.world.rng.choice(self.world.uids)
            if self.member.owns(uid) and uid not in self.working:
                task = asyncio.get_running_loop().create_task(self._command(uid))
                self.working[uid] = task
                task.add_done_callback(lambda _, uid=uid: self.working.pop(uid))
            await asyncio.sleep(self.world.rng.expovariate(4))

    async def _command(self, uid: str) -> None:
        try:
            await asyncio.sleep(self.world.rng.choice((0.0, 0.01, 0.2)))
            self.member.check(uid)
            generation = self.member.generation
        except Moved:
            return
        self.world.exclusive(uid)
        tenure = (self.number, self.tenures[uid])
        # The last thing before it is on the wire: here a process may be stopped for long.
        await asyncio.sleep(0)
        agent = self.world.rng.randrange(AGENTS)
        outside = self.world.outside.arrive(agent, uid, tenure, generation)
        await asyncio.shield(
            asyncio.get_running_loop().create_task(outside, context=contextvars.Context())
        )

    async def _fence(self, generation: int) -> None:
        await self.world.outside.fence(generation)


class World:
    """``start`` replicas, disturb them, then look at what was done."""

    def __init__(self, seed: int, objects: int = 60) -> None:
        install()
        self.rng = random.Random(seed)
        self.api = FakeApi()
        self.outside = Outside(self.rng)
        self.uids = [f"{self.rng.getrandbits(128):032x}" for _ in range(objects)]
        self.replicas: dict[int, Replica] = {}
        self.violations: list[str] = []
        self._numbers = iter(range(10**6))

    def start(self) -> Replica:
        number = next(self._numbers)
        self.replicas[number] = Replica(number, self)
        return self.replicas[number]

    def exclusive(self, uid: str) -> None:
        """Nobody else may act on it, at this very moment."""
        able = [r.number for r in self.replicas.values() if _may(r.member, uid)]
        if len(able) > 1:
            self.violations.append(f"{able} may all act on {uid}")

    def check(self) -> None:
        """Nobody ever saw two who might act; and no tenure's commands were taken after those of a
        later one."""
        assert not self.violations, self.violations[:5]
        seen: dict[str, list[tuple[int, int]]] = {}
        for done in self.outside.done:
            tenures = seen.setdefault(done.uid, [])
            if not tenures or tenures[-1] != done.tenure:
                assert done.tenure not in tenures, f"{done} came after {tenures}"
                tenures.append(done.tenure)

    async def settle(self, seconds: float = 25.0) -> None:
        """Until the ring is at rest: everything is owned, by one each."""
        await asyncio.sleep(seconds)
        for uid in self.uids:
            owners = [r.number for r in self.replicas.values() if r.member.owns(uid)]
            assert len(owners) == 1, f"{uid} is owned by {owners}"

    async def close(self) -> None:
        for replica in self.replicas.values():
            await replica.process.kill()


def _may(member: Member, uid: str) -> bool:
    try:
        member.check(uid)
    except Moved:
        return False
    return True
