"""Stand-ins for what actuators are given: API, agents, ledger, events, clock. All in memory.

The agents are real simulated machines (``agents.drivers.simulated``), without network or disk:
they refuse what a hypervisor would refuse. Time is the loop's: use with looptime.
"""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid5

from agents.drivers.base import DriverError
from agents.drivers.simulated.machine import Capacity, Machine
from agents.drivers.simulator import _actions
from agents.wire import AGENT_VERSION, Facts, Inventory, Ping, Wire
from controller.agentlink.client import Endpoint
from controller.client import NotFound
from controller.errors import (
    AgentFailed,
    AgentUnreachable,
    Conflict,
    Exhausted,
    OperationPending,
)
from controller.keys import Key
from controller.ledger.base import Claim, Pool
from controller.watch.base import Change
from controller.watch.store import ObjectStore, key_of
from crds import kinds
from crds.base import Resource

W = TypeVar("W", bound=Wire)
EPOCH = 1_800_000_000.0
READ_BACK = 5.0
"""Seconds after which an operation is read back whose callback did not come."""


class FakeClock:
    """The loop's time, as seconds since some day."""

    def now(self) -> float:
        return EPOCH + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass
class FakeEvents:
    seen: list[tuple[str, str, str, str]] = field(default_factory=list)

    def normal(self, obj: Resource, reason: str, message: str) -> None:
        self.seen.append(("Normal", str(key_of(obj)), reason, message))

    def warning(self, obj: Resource, reason: str, message: str) -> None:
        self.seen.append(("Warning", str(key_of(obj)), reason, message))

    def reasons(self, name: str) -> list[str]:
        """Reasons of the events about the object that ends with ``name``, oldest first."""
        return [reason for _, key, reason, _ in self.seen if key.endswith(f"/{name}")]


class FakeObjects:
    """The API: objects as JSON, generations, finalizers, owner references. Writes go straight
    into ``store``, and into those that joined."""

    def __init__(self, store: ObjectStore, clock: FakeClock) -> None:
        self._store, self._clock = store, clock
        self._stores = [store]
        self._raw: dict[Key, dict[str, Any]] = {}
        self.writes: list[tuple[str, Key]] = []

    def joined(self, store: ObjectStore) -> FakeObjects:
        """The same API as another replica sees it."""
        other = copy.copy(self)
        other._store = store
        self._stores.append(store)
        return other

    async def create(self, obj: Resource) -> Any:
        key = key_of(obj)
        if key not in self._raw:
            raw = obj.wire()
            raw.pop("status", None)
            uid = str(uuid5(UUID(int=0), f"{key}#{len(self.writes)}"))
            raw |= {"kind": key.kind}
            raw["metadata"] |= {"uid": uid, "generation": 1, "creationTimestamp": self._now()}
            self._raw[key] = raw
            self._changed("create", key)
        return self._model(key)

    async def patch(self, key: Key, patch: Mapping[str, Any]) -> Any:
        raw = self._get(key)
        meta, version = patch.get("metadata", {}), raw["metadata"]["resourceVersion"]
        if meta.get("resourceVersion", version) != version:
            raise Conflict(f"{key} has changed")
        before = copy.deepcopy(raw.get("spec"))
        _merge(raw, {k: v for k, v in patch.items() if k != "status"})
        if raw.get("spec") != before:
            raw["metadata"]["generation"] += 1
        self._changed("patch", key)
        return self._model(key)

    async def delete(self, obj: Resource) -> None:
        await self.delete_key(key_of(obj), obj.uid)

    async def delete_key(self, key: Key, uid: str) -> None:
        raw = self._raw.get(key)
        if raw is None or raw["metadata"]["uid"] != uid:
            return
        if not raw["metadata"].get("finalizers"):
            self._remove(key)
        elif "deletionTimestamp" not in raw["metadata"]:
            raw["metadata"]["deletionTimestamp"] = self._now()
            raw["metadata"]["generation"] += 1
            self._changed("delete", key)

    async def patch_status(self, key: Key, patch: Mapping[str, Any]) -> dict[str, Any]:
        raw = self._get(key)
        _merge(raw, {"status": patch["status"]})
        self._changed("status", key, own=True)
        return raw

    async def set_finalizers(self, obj: Resource, finalizers: list[str]) -> Any:
        key = key_of(obj)
        raw = self._get(key)
        raw["metadata"]["finalizers"] = finalizers
        if not finalizers and "deletionTimestamp" in raw["metadata"]:
            self._remove(key)
            return obj
        self._changed("finalizers", key, own=True)
        return self._model(key)

    async def refresh(self, key: Key) -> dict[str, Any] | None:
        raw = copy.deepcopy(self._raw.get(key))
        if raw is not None:
            self._store.apply(Change.PRESENT, key.kind, raw)
        return raw

    async def read(self, key: Key) -> Any:
        return self._model(key) if await self.refresh(key) is not None else None

    def _remove(self, key: Key) -> None:
        raw = self._raw.pop(key)
        for store in self._stores:
            store.apply(Change.GONE, key.kind, copy.deepcopy(raw))
        self.writes.append(("gone", key))
        for other, child in list(self._raw.items()):
            owners = child["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == raw["metadata"]["uid"] for owner in owners):
                asyncio.get_running_loop().create_task(
                    self.delete_key(other, child["metadata"]["uid"])
                )

    def _changed(self, verb: str, key: Key, *, own: bool = False) -> None:
        self.writes.append((verb, key))
        self._raw[key]["metadata"]["resourceVersion"] = str(len(self.writes))
        for store in self._stores:
            raw = copy.deepcopy(self._raw[key])
            store.apply(Change.PRESENT, key.kind, raw, own=own and store is self._store)

    def _get(self, key: Key) -> dict[str, Any]:
        if key not in self._raw:
            raise NotFound(f"{key} does not exist")
        return self._raw[key]

    def _model(self, key: Key) -> Any:
        return kinds()[key.kind].model_validate(copy.deepcopy(self._raw[key]))

    def _now(self) -> str:
        return datetime.fromtimestamp(int(self._clock.now()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            inner = target.setdefault(key, {})
            _merge(inner, value)
        else:
            target[key] = copy.deepcopy(value)


@dataclass
class FakeAgent:
    """One machine. ``down``: it does not answer; what it was doing goes on when it does."""

    machine: Machine
    boot: str = "boot-1"
    architecture: str = "x86_64"
    down: bool = False
    version: str = AGENT_VERSION

    def reboot(self, boot: str) -> None:
        self.boot = boot
        self.machine.boot(boot)


@dataclass
class Fault:
    """Makes matching operations fail with ``message``; ``times`` of them. ``after``: the work is
    done before it fails. ``hang``: never answered."""

    action: str
    host: str | None = None
    times: int = 1_000_000
    message: str = "it broke"
    code: str = "hypervisor"
    after: bool = False
    hang: bool = False

    def hits(self, host: str, action: str) -> bool:
        if self.times <= 0 or self.action != action or self.host not in (None, host):
            return False
        self.times -= 1
        return True


@dataclass
class _Operation:
    result: Wire | None = None
    error: DriverError | None = None
    pending: bool = True
    unseen: bool = False
    """Its callback is lost: it looks pending until it is read back."""


class FakeAgents:
    """Agents whose operations take ``delay`` seconds. Each execution is in ``executed``. New ones
    are waited for ``patience`` seconds, as the agent link does it."""

    patience = 0.0

    def __init__(self, wake: Callable[[Key], None], delay: float = 0.05) -> None:
        self._wake, self.delay = wake, delay
        self.agents: dict[str, FakeAgent] = {}
        self.faults: list[Fault] = []
        self.executed: list[tuple[str, str, str]] = []  # agent, action, resource
        self.submitted: dict[tuple[str, str], int] = defaultdict(int)
        self.callbacks: Callable[[str], int] = lambda operation: 1
        """How often an operation's callback comes; one that is lost is read back in the end."""
        self.pings = 0
        self._operations: dict[tuple[str, str], _Operation] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, name: str, **capacity: int) -> FakeAgent:
        self.agents[name] = FakeAgent(Machine(replace(Capacity(), **capacity)))
        return self.agents[name]

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(
        self, endpoint: Endpoint, action: str, resource: str, args: Wire, result: type[W], *,
        operation: str, owner: Key,
    ) -> W:  # fmt: skip
        agent, key = self._agent(endpoint), (endpoint.name, operation)
        known = self._operations.get(key)
        if known is None:
            self._operations[key] = known = _Operation()
            self.submitted[key] += 1
            known.unseen = not self.callbacks(operation)
            copies = self.callbacks(operation)
            work = self._execute(endpoint.name, agent, action, resource, args, known, owner, copies)
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if self.patience:
                await asyncio.wait([task], timeout=self.patience)
        if known.pending or known.unseen:
            known.unseen = known.unseen and known.pending
            late = None if self.callbacks(operation) else READ_BACK
            raise OperationPending(f"{endpoint.name} is at work on {action}", retry_after=late)
        if known.error is not None:
            del self._operations[key]
            raise AgentFailed(f"{endpoint.name}: {known.error.message}", code=known.error.code)
        assert known.result is not None
        return result.model_validate(known.result.model_dump())

    async def ping(self, endpoint: Endpoint) -> Ping:
        self.pings += 1
        agent = self._agent(endpoint)
        return Ping(boot_id=agent.boot, agent_version=agent.version, vms=agent.machine.power())

    async def facts(self, endpoint: Endpoint) -> Facts:
        agent = self._agent(endpoint)
        return Facts(
            hostname=endpoint.name, architecture=agent.architecture, operating_system="Linux",
            kernel="6.12", cpu=agent.machine.capacity.cpu, cpu_sockets=1, cpu_model="Fake",
            memory=agent.machine.capacity.memory, hypervisor="Simulator",
            hypervisor_version="1", boot_id=agent.boot, agent_version=agent.version,
        )  # fmt: skip

    async def inventory(self, endpoint: Endpoint) -> Inventory:
        return self._agent(endpoint).machine.inventory()

    def _agent(self, endpoint: Endpoint) -> FakeAgent:
        agent = self.agents.get(endpoint.name)
        if agent is None or agent.down:
            raise AgentUnreachable(f"{endpoint.name} does not answer")
        return agent

    async def _execute(
        self, name: str, agent: FakeAgent, action: str, resource: str, args: Wire,
        operation: _Operation, owner: Key, copies: int,
    ) -> None:  # fmt: skip
        fault = next((f for f in self.faults if f.hits(name, action)), None)
        await asyncio.sleep(self.delay)
        if fault is not None and fault.hang:
            return
        try:
            if fault is None or fault.after:
                operation.result = await _actions(agent.machine).run(action, resource, args)
                self.executed.append((name, action, resource))
        except DriverError as error:
            operation.error = error
        if fault is not None:
            operation.error = DriverError(fault.code, fault.message)  # type: ignore[arg-type]
        operation.pending = False
        for late in range(copies):
            self._wake(owner)
            await asyncio.sleep(late * 3.0)


class FakeLedger:
    """Dictionaries with the ledger's rules."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], str] = {}  # (scope, owner) → value
        self.amounts: dict[tuple[str, str], dict[str, int]] = {}
        self.capacity: dict[str, dict[str, int]] = {}
        self.generation = 0

    async def fence(self, generation: int) -> None:
        self.generation = max(self.generation, generation)

    async def claim_address(
        self, scope: str, owner: str, ranges: Sequence[tuple[int, int]], *,
        exclude: Sequence[int] = (), wanted: int | None = None,
    ) -> int:  # fmt: skip
        if (scope, owner) in self.values:
            return int(self.values[scope, owner])
        taken = {int(v): o for (s, o), v in self.values.items() if s == scope}
        everything = (a for low, high in ranges for a in range(low, high + 1))
        for address in [wanted] if wanted is not None else everything:
            if address not in taken and address not in exclude:
                self.values[scope, owner] = str(address)
                return address
        raise Exhausted(f"{wanted} is {taken.get(wanted)}'s" if wanted else f"{scope} is full")

    async def claim_value(self, scope: str, owner: str, value: str) -> None:
        for (other_scope, other), taken in self.values.items():
            if other_scope == scope and taken == value and other != owner:
                raise Exhausted(f"{value} is {other}'s")
        self.values[scope, owner] = value

    async def set_pool(self, scope: str, capacity: Mapping[str, int]) -> None:
        self.capacity[scope] = dict(capacity)

    async def drop_pool(self, scope: str) -> None:
        self.capacity.pop(scope, None)
        self.amounts = {k: v for k, v in self.amounts.items() if k[0] != scope}

    async def pools(self, prefix: str) -> Sequence[Pool]:
        scopes = [scope for scope in sorted(self.capacity) if scope.startswith(prefix)]
        return [Pool(scope, self.capacity[scope], self.used(scope)) for scope in scopes]

    def used(self, scope: str, but: str = "") -> dict[str, int]:
        total: dict[str, int] = defaultdict(int)
        for (at, owner), amounts in self.amounts.items():
            for resource, amount in amounts.items() if at == scope and owner != but else ():
                total[resource] += amount
        return dict(total)

    async def claim_amounts(self, scope: str, owner: str, amounts: Mapping[str, int]) -> None:
        used, capacity = self.used(scope, but=owner), self.capacity.get(scope, {})
        for resource, amount in amounts.items():
            short = used.get(resource, 0) + amount - capacity.get(resource, 0)
            if short > 0:
                raise Exhausted(f"{scope}: {resource} is {short} short")
        self.amounts[scope, owner] = dict(amounts)

    async def release(self, owner: str, prefix: str = "") -> int:
        released = 0
        for table in (self.values, self.amounts):
            for key in [k for k in table if k[1] == owner and k[0].startswith(prefix)]:
                del table[key]  # type: ignore[attr-defined]
                released += 1
        return released

    async def hand_over(self, owner: str, to: str, prefix: str = "") -> None:
        for scope, of in [k for k in self.amounts if k[1] == owner and k[0].startswith(prefix)]:
            self.amounts[scope, to] = self.amounts.pop((scope, of))

    async def claims(self, *, owner: str | None = None, prefix: str = "") -> Sequence[Claim]:
        found = [Claim(s, o, value=v) for (s, o), v in self.values.items()]
        found += [Claim(s, o, amounts=a) for (s, o), a in self.amounts.items()]
        return [c for c in found if owner in (None, c.owner) and c.scope.startswith(prefix)]
