"""What a kind has to bring: an Actuator; and what it is given: a Context.

The reconciler does what all kinds share: it reads the object from the store, waits for the
references that the kind declares, adds the finalizer, takes the children first when the object is
deleted, maps errors to conditions and writes the status once. An actuator compares one object
with the world and does the next thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from controller.keys import Key
from controller.reconcile.holdings import Holding
from crds.base import Resource
from crds.refs import Reference

if TYPE_CHECKING:
    from controller.agentlink.client import Agents, Endpoint
    from controller.ledger.base import Ledger
    from controller.workflow.engine import Flows

R = TypeVar("R", bound=Resource)


class Known(Protocol):
    """Of an object: its ``status.state``, and whether it is Ready."""

    @property
    def uid(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def ready(self) -> bool: ...


class Store(Protocol):
    """The local copy of the API's objects. Reading costs no I/O. Other readers share what it hands
    out: never change it.

    Of partitioned kinds, a replica holds its own objects, those that its own refer to (not by
    ``keep``) and those that its own have made. Of all others it knows who refers to whom, their
    uids, and whether they are Ready or being deleted, and no more.
    """

    def get(self, kind: str, name: str, namespace: str = "") -> Any:
        """The object as its pydantic model, or None. Typed Any: callers know their kind. Raises
        Elsewhere for one that is not held here."""

    def list(self, kind: str, namespace: str | None = None) -> Iterable[Any]:
        """All objects of a kind that are held here, in one namespace or in all."""

    def referrers(
        self, target: Resource, kind: str | None = None
    ) -> Iterable[tuple[Any, Reference]]:
        """(object, declared reference) of everything held here that refers to ``target``."""

    def users(self, target: Key, kind: str | None = None) -> Iterable[tuple[Key, Reference]]:
        """As referrers(), of whatever exists, by key: nothing is parsed."""

    def targets(self, key: Key) -> Iterable[tuple[Reference, Key]]:
        """What any object refers to, in field order."""

    def with_uid(self, kind: str, uid: str) -> Key | None:
        """Which object of a kind has this uid, held here or not."""

    def entry(self, key: Key) -> Known | None:
        """What is known of any object, held here or not: nothing is parsed. None: there is none."""

    def deleting(self, key: Key) -> bool:
        """Is any object being deleted? False if there is none."""

    def doomed(self, obj: Resource) -> bool:
        """True if the object, or anything it is deleted with (transitively), is being deleted."""

    def goes_along(self, obj: Resource) -> bool:
        """True if anything that the object is deleted with is being deleted, not only itself."""


class News(Protocol):
    """A changed object, as ``Actuator.watches`` are told of it: without having it parsed."""

    @property
    def key(self) -> Key: ...
    @property
    def loud(self) -> bool:
        """Does it concern those who refer to the object? Else only ``quiet`` fields differ."""

    @property
    def deleting(self) -> bool:
        """Is it being deleted, or gone?"""

    def refs(self, kind: str) -> list[Key]:
        """Objects of a kind that it refers to, or did until now."""

    def left(self, kind: str) -> list[Key]:
        """Objects of a kind that it referred to until now, and no longer does."""

    def annotation(self, name: str) -> str:
        """As it is now or, if the object is gone, was last; "" if there is none."""


class Objects(Protocol):
    """Writes to other objects through the API. All are idempotent; all may raise Transient."""

    async def create(self, obj: Resource) -> Any:
        """Create; if it exists already, return what exists."""

    async def patch(self, key: Key, patch: Mapping[str, Any]) -> Any:
        """JSON merge patch of anything but status."""

    async def delete(self, obj: Resource) -> None:
        """Delete this very object (uid precondition); gone already is fine."""

    async def read(self, key: Key) -> Any:
        """The object as the API has it now, whoever works on it. None: it is gone."""


class Events(Protocol):
    def normal(self, obj: Resource, reason: str, message: str) -> None: ...
    def warning(self, obj: Resource, reason: str, message: str) -> None: ...


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float: ...


@dataclass
class Observations:
    """What agents said last, in memory: never written unless it changes an object's status.

    ``vms``: host uid → {VM uid: power state}. A host that has not answered since the controller
    started, or is disconnected, is absent. ``noted``: host uid → {VM uid: (monotonic time, power
    state or None)}, what operations did to VMs since the last ping. ``unscheduled``: VMs that
    found no host; who makes room wakes them.
    """

    vms: dict[str, Mapping[str, str]] = field(default_factory=dict)
    noted: dict[str, dict[str, tuple[float, str | None]]] = field(default_factory=dict)
    unscheduled: set[Key] = field(default_factory=set)


@dataclass(frozen=True)
class Tuning:
    """Numbers that a deployment may change (controller.settings reads them)."""

    cpu_ratio: float = 10.0
    memory_ratio: float = 1.0
    storage_ratio: float = 1.0
    reserved_memory: int = 2**30
    reserved_storage: int = 2**30
    ping_interval: float = 10.0
    ping_timeout: float = 10.0
    agent_port: int = 7070


@dataclass(frozen=True)
class Context:
    """Everything an actuator or a step may use. Nothing else is imported by kinds/."""

    store: Store
    objects: Objects
    agents: Agents
    ledger: Ledger
    flows: Flows
    events: Events
    observed: Observations
    clock: Clock
    tuning: Tuning
    wake: Callable[[Key], None]
    allocators: Mapping[str, Any] = field(default_factory=dict)
    """Plugins' host allocators by name (controller.kinds.allocation.strategies)."""


@dataclass(frozen=True)
class Outcome:
    """What one look at an object found. The default: all is as the spec says.

    ready False with a reason and message: still working or held up, but no error. requeue_after:
    seconds until the next look; None: when something changes.
    """

    ready: bool = True
    reason: str = "Ready"
    message: str = ""
    requeue_after: float | None = None


class Actuator(Generic[R]):
    """One per kind, in ``controller.kinds.<kind>``; found by its ``model``.

    MUST be idempotent: it may be killed at any point and run again from the start. MUST NOT
    block the loop, sleep or poll: raise Waiting and be woken. It changes ``obj.status`` in place
    (never conditions, observed_generation or last_operation_time: the reconciler's) and never
    ``obj.spec``. It raises controller.errors to say why it cannot go on; status changes made
    before that are written too.
    """

    model: ClassVar[type[Resource]]
    partitioned: ClassVar[bool] = False
    """True for kinds whose keys are divided between replicas."""

    watches: ClassVar[Mapping[str, Callable[[News, Store], Iterable[Key]]]] = {}
    """Other kinds whose changes concern this kind: kind → which of our keys to wake. Objects that
    refer to a changed object are woken anyway, and need no entry here."""

    surveys: ClassVar[frozenset[str]] = frozenset()
    """Partitioned kinds of which it has to see every object, whoever works on it: each replica
    holds all of these then, which costs memory (about 2 KB for a virtual machine)."""

    quiet: ClassVar[frozenset[str]] = frozenset(
        {
            "availableCapacity", "availableCpu", "availableMemory", "connectedHosts", "hosts",
            "missedPings", "totalCapacity", "usedIps", "vms",
        }
    )  # fmt: skip
    """Status fields (as on the wire) that do not concern those who refer to an object: a change
    of nothing else wakes none of them, only ``watches``. Counters, as a rule."""

    async def reconcile(self, obj: R, ctx: Context) -> Outcome:
        """Bring the world one step nearer to ``obj.spec``."""
        raise NotImplementedError

    async def observe(self, obj: R, ctx: Context) -> float | None:
        """Look at an object that *another* replica works on, for what this one has to know of it
        in memory (``ctx.observed``). Changes nothing outside, nor ``obj``, which others share.
        Returns seconds until the next look; None: when it changes. Not overridden: other replicas'
        objects are not looked at."""
        return None

    def agent(self, obj: R, ctx: Context) -> Endpoint | None:
        """The agent that the object stands for, if it stands for one."""
        return None

    async def delete(self, obj: R, ctx: Context) -> Outcome:
        """Clean the outside world. Called when every cascaded child is gone and detaching and
        stopping ones have let go. ready=True: the finalizer is removed and the object vanishes."""
        return Outcome()

    def waits_for(self, obj: R, reference: Reference) -> bool:
        """False when a missing target no longer matters (the image of a VM that exists)."""
        return True

    def holds(self, obj: R, reference: Reference, target: Resource) -> bool:
        """Does ``obj`` still hold on to ``target``, which is being deleted? Asked for ``detach``
        and ``stop``. Default: a status reference holds, a spec reference (a wish) does not."""
        return reference.path[0] == "status"

    def holdings(self, obj: R, store: Store) -> Iterable[Holding] | None:
        """What ``obj`` has in the ledger and on machines, for audits. Whatever else carries its
        uid is an orphan then. In the middle of a flow, and while it is deleted, that is all that
        it may have; nothing is ``needed`` then. Default: anything that carries its uid is its."""
        return None


Power = Literal["Running", "Paused", "Stopped", "Crashed", "Unknown"]
