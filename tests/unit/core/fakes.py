"""An API server in memory, toy kinds and a toy world, for tests in virtual time."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeVar

import looptime

from controller.client import Exists, NotFound
from controller.client import Resource as Path
from controller.core import Core
from controller.errors import Conflict
from controller.keys import Key
from controller.reconcile.actuator import Actuator, Context, Outcome
from controller.registry import Registry, build
from controller.settings import Settings
from controller.sharding.leases import LEASES
from controller.sharding.ring_object import CONFIG_MAPS
from controller.watch.base import Change, Sink
from crds.base import BaseSpec, BaseStatus, KindInfo, Resource
from crds.refs import ObjectRef, Ref

T = TypeVar("T")


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop whose clock jumps: for hypothesis, whose tests are not async."""
    with closing(looptime.new_event_loop(noop_cycles=0)) as loop:
        return loop.run_until_complete(work())


class LoopClock:
    """The loop's time, as seconds since an epoch in 2001."""

    def now(self) -> float:
        return 10**9 + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


# -- toy kinds: everything that a reference can do


class ToyStatus(BaseStatus):
    value: int = 0
    note: str = ""
    holds: Annotated[ObjectRef, Ref("Trunk", on_delete="stop")] | None = None
    hangs: Annotated[ObjectRef, Ref("Trunk", on_delete="detach")] | None = None


class TrunkSpec(BaseSpec):
    size: Annotated[int, "any"] = 0


class Trunk(Resource):
    INFO = KindInfo(plural="trunks", singular="trunk")
    kind: str = "Trunk"
    spec: TrunkSpec = TrunkSpec()
    status: BaseStatus = BaseStatus()


class BranchSpec(BaseSpec):
    trunk: Annotated[ObjectRef, Ref("Trunk", on_delete="cascade")]
    other: Annotated[ObjectRef, Ref("Trunk", on_delete="keep", wait=False)] | None = None


class Branch(Resource):
    INFO = KindInfo(plural="branches", singular="branch")
    kind: str = "Branch"
    spec: BranchSpec
    status: BaseStatus = BaseStatus()


class LeafSpec(BaseSpec):
    branch: Annotated[ObjectRef, Ref("Branch", on_delete="cascade")] | None = None
    trunk: Annotated[ObjectRef, Ref("Trunk", on_delete="cascade")] | None = None
    needs: Annotated[ObjectRef, Ref("Branch", on_delete="block", wait=False)] | None = None
    kept: Annotated[ObjectRef, Ref("Trunk", on_delete="keep")] | None = None
    rests: Annotated[ObjectRef, Ref("Trunk", on_delete="stop", wait=False)] | None = None
    hung: Annotated[ObjectRef, Ref("Trunk", on_delete="detach")] | None = None


class Leaf(Resource):
    INFO = KindInfo(plural="leaves", singular="leaf", namespaced=True)
    kind: str = "Leaf"
    spec: LeafSpec = LeafSpec()
    status: ToyStatus = ToyStatus()


MODELS: tuple[type[Resource], ...] = (Trunk, Branch, Leaf)


@dataclass
class World:
    """The outside that the toys' actuators act on; what tests look at. ``troubles``: what an
    actuator raises for an object, once per entry. ``overlaps``: what two worked on at once; the
    helpers that run a core check it, since a reconciler survives what an actuator raises."""

    looks: list[Key] = field(default_factory=list)
    deleted: list[Key] = field(default_factory=list)
    let_go: list[Key] = field(default_factory=list)
    troubles: dict[Key, list[BaseException]] = field(default_factory=dict)
    delays: dict[Key, float] = field(default_factory=dict)
    outcomes: dict[Key, Outcome] = field(default_factory=dict)
    deletions_take: float = 0.0
    running: dict[Key, int] = field(default_factory=dict)
    most_running: int = 0
    overlaps: list[Key] = field(default_factory=list)


WORLD = World()


class _Toy(Actuator[Any]):
    """Actuator of any toy: does what the world says, and takes or drops what the spec asks for."""

    async def reconcile(self, obj: Any, ctx: Context) -> Outcome:
        key = Key(obj.kind, obj.metadata.namespace or "", obj.name)
        WORLD.looks.append(key)
        await self._act(key)
        if isinstance(obj, Leaf):
            self._hold(key, obj, ctx)
        return WORLD.outcomes.get(key, Outcome())

    async def delete(self, obj: Any, ctx: Context) -> Outcome:
        key = Key(obj.kind, obj.metadata.namespace or "", obj.name)
        await self._act(key)
        if WORLD.deletions_take:
            await asyncio.sleep(WORLD.deletions_take)
        WORLD.deleted.append(key)
        return Outcome()

    async def _act(self, key: Key) -> None:
        if key in WORLD.running:
            WORLD.overlaps.append(key)
        WORLD.running[key] = 1
        WORLD.most_running = max(WORLD.most_running, len(WORLD.running))
        try:
            if key in WORLD.delays:
                await asyncio.sleep(WORLD.delays[key])
            if WORLD.troubles.get(key):
                raise WORLD.troubles[key].pop(0)
        finally:
            WORLD.running.pop(key, None)

    def _hold(self, key: Key, obj: Leaf, ctx: Context) -> None:
        for wish, held in (("rests", "holds"), ("hung", "hangs")):
            reference = getattr(obj.spec, wish)
            target = ctx.store.get("Trunk", reference.name) if reference else None
            if target is not None and not target.deleting:
                setattr(obj.status, held, reference)
            elif getattr(obj.status, held) is not None:
                setattr(obj.status, held, None)
                WORLD.let_go.append(key)


class TrunkActuator(_Toy):
    model = Trunk


class BranchActuator(_Toy):
    model = Branch


class LeafActuator(_Toy):
    model = Leaf
    watches: ClassVar[Any] = {
        "Branch": lambda branch, _: [
            Key("Leaf", *name.split(".")) for name in branch.annotation("wakes").split()
        ]
    }


TOYS: tuple[type[Actuator[Any]], ...] = (TrunkActuator, BranchActuator, LeafActuator)


def toy_registry() -> Registry:
    return build(TOYS, models=MODELS)


# -- the API server


class FakeApi:
    """Objects in memory, with versions, generations, finalizers, conflicts and a watch.

    ``faults``: raised, one per request, before the request does anything. ``log``: every request
    that changed something.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.watchers: list[Callable[[Change, str, dict[str, Any]], None]] = []
        self.faults: list[BaseException] = []
        self.log: list[tuple[str, str, str, Any]] = []
        self.gone: list[tuple[str, str]] = []
        self.ticks: dict[tuple[str, str, str], list[asyncio.Event]] = {}
        self.watch_lag = 0.005
        self.reachable = True
        self._version = itertools.count(1)
        self._uid = itertools.count(1)

    # what client.Api has

    async def get(self, resource: Path, namespace: str, name: str) -> dict[str, Any]:
        await self._arrive()
        return copy.deepcopy(self._find(resource, namespace, name))

    async def pages(
        self, resource: Path, *, metadata_only: bool = False, shards: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        await self._arrive()
        items = [o for (plural, _, _), o in self.objects.items() if plural == resource.plural]
        if metadata_only:
            items = [{"metadata": item["metadata"]} for item in items]
        version = str(next(self._version))
        half = len(items) // 2
        parts = copy.deepcopy([items[:half], items[half:]])
        for part in parts:
            yield {"metadata": {"resourceVersion": version}, "items": part or None}

    async def select(self, resource: Path, namespace: str, labels: str) -> list[dict[str, Any]]:
        await self._arrive()
        name, _, value = labels.partition("=")
        return [
            copy.deepcopy(obj)
            for (plural, space, _), obj in self.objects.items()
            if (plural, space) == (resource.plural, namespace)
            and (obj["metadata"].get("labels") or {}).get(name) == value
        ]

    async def changes(self, resource: Path, namespace: str, name: str) -> AsyncIterator[None]:
        await self._arrive()
        tick = asyncio.Event()
        ticks = self.ticks.setdefault((resource.plural, namespace, name), [])
        ticks.append(tick)
        try:
            while True:
                yield
                await tick.wait()
                tick.clear()
                await asyncio.sleep(self.watch_lag)
        finally:
            ticks.remove(tick)

    async def create(
        self, resource: Path, namespace: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        await self._arrive()
        obj = copy.deepcopy(dict(body))
        meta = obj["metadata"]
        key = (resource.plural, namespace if resource.namespaced else "", meta["name"])
        if key in self.objects:
            raise Exists("it exists")
        meta |= {"uid": f"uid-{next(self._uid)}", "generation": 1, "namespace": key[1]}
        self.objects[key] = obj
        return self._changed("create", key, body)

    async def replace(
        self, resource: Path, namespace: str, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        await self._arrive()
        old = self._find(resource, namespace, name)
        if body["metadata"].get("resourceVersion") not in (
            None,
            old["metadata"]["resourceVersion"],
        ):
            raise Conflict("it has changed")
        key = (resource.plural, namespace if resource.namespaced else "", name)
        new = copy.deepcopy(dict(body))
        new["metadata"] = {**old["metadata"], **new["metadata"]}
        self.objects[key] = new
        return self._changed("replace", key, body)

    async def patch(
        self,
        resource: Path,
        namespace: str,
        name: str,
        patch: Mapping[str, Any],
        subresource: str = "",
    ) -> dict[str, Any]:
        await self._arrive()
        obj = self._find(resource, namespace, name)
        meta = patch.get("metadata") or {}
        for field_name in ("resourceVersion", "uid"):
            if meta.get(field_name, obj["metadata"][field_name]) != obj["metadata"][field_name]:
                raise Conflict("it has changed")
        key = (resource.plural, namespace if resource.namespaced else "", name)
        allowed = {"status"} if subresource else set(patch) - {"status"}
        before = copy.deepcopy(obj)
        merge(obj, {k: v for k, v in patch.items() if k in allowed and k != "metadata"})
        if not subresource:
            merge(obj["metadata"], {k: v for k, v in meta.items() if k != "resourceVersion"})
        if obj.get("spec") != before.get("spec"):
            obj["metadata"]["generation"] += 1
        if obj == before:
            return copy.deepcopy(obj)
        return self._changed(f"patch {subresource}".strip(), key, patch)

    async def delete(
        self, resource: Path, namespace: str, name: str, uid: str
    ) -> dict[str, Any] | None:
        await self._arrive()
        try:
            obj = self._find(resource, namespace, name)
        except NotFound:
            return None
        if obj["metadata"]["uid"] != uid:
            return None
        key = (resource.plural, namespace if resource.namespaced else "", name)
        if "deletionTimestamp" not in obj["metadata"]:
            obj["metadata"]["deletionTimestamp"] = "2001-09-09T01:46:40Z"
            return self._changed("delete", key, None)
        return copy.deepcopy(obj)

    async def served(self, group: str, version: str) -> set[str]:
        await self._arrive()
        return {model.INFO.plural for model in MODELS}

    # for tests

    def put(self, obj: Resource) -> None:
        """Create at once, as a user does."""
        body = obj.wire()
        body.pop("status", None)
        plural = obj.INFO.plural
        meta = body["metadata"]
        key = (plural, meta.get("namespace", "") if obj.INFO.namespaced else "", meta["name"])
        assert key not in self.objects
        meta |= {"uid": f"uid-{next(self._uid)}", "generation": 1}
        self.objects[key] = body
        self._changed("user create", key, None)

    def edit(self, key: Key, change: Callable[[dict[str, Any]], None]) -> None:
        """Change at once, as a user does."""
        place = self._place(key)
        obj = self.objects[place]
        spec = copy.deepcopy(obj.get("spec"))
        change(obj)
        if obj.get("spec") != spec:
            obj["metadata"]["generation"] += 1
        self._changed("user edit", place, None)

    def remove(self, key: Key) -> None:
        """Delete at once, as a user does."""

        def mark(obj: dict[str, Any]) -> None:
            obj["metadata"].setdefault("deletionTimestamp", "2001-09-09T01:46:40Z")

        self.edit(key, mark)

    def find(self, key: Key) -> dict[str, Any] | None:
        return self.objects.get(self._place(key))

    def keys(self) -> set[Key]:
        kinds = {model.INFO.plural: model.__name__ for model in MODELS}
        return {Key(kinds[p], ns, name) for p, ns, name in self.objects if p in kinds}

    def requests(self, verb: str, plural: str) -> list[Any]:
        return [body for v, p, _, body in self.log if (v, p) == (verb, plural)]

    def _place(self, key: Key) -> tuple[str, str, str]:
        model = next(m for m in MODELS if m.__name__ == key.kind)
        return model.INFO.plural, key.namespace, key.name

    async def _arrive(self) -> None:
        await asyncio.sleep(0.002)
        if self.faults:
            raise self.faults.pop(0)

    def _find(self, resource: Path, namespace: str, name: str) -> dict[str, Any]:
        key = (resource.plural, namespace if resource.namespaced else "", name)
        if key not in self.objects:
            raise NotFound(f"no {key}")
        return self.objects[key]

    def _changed(self, verb: str, key: tuple[str, str, str], body: Any) -> dict[str, Any]:
        obj = self.objects[key]
        obj["metadata"]["resourceVersion"] = str(next(self._version))
        if key[0] not in (LEASES.plural, CONFIG_MAPS.plural, "events", "namespaces"):
            self.log.append((verb, key[0], key[2], copy.deepcopy(body)))
        change = Change.PRESENT
        if obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
            del self.objects[key]
            self.gone.append((key[0], key[2]))
            change = Change.GONE
        for tick in self.ticks.get(key, ()):
            tick.set()
        for watcher in self.watchers:
            watcher(change, key[0], copy.deepcopy(obj))
        return copy.deepcopy(obj)


def merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """RFC 7386, written independently of the code under test."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


@dataclass
class FakeSource:
    """A watch of a FakeApi: each event arrives ``lag()`` seconds late, in order per object, unless
    ``loses`` says that it never does."""

    api: FakeApi
    lag: Callable[[], float] = lambda: 0.001
    loses: Callable[[Change, str, dict[str, Any]], bool] = lambda *_: False
    _sink: Sink | None = None
    _last: dict[str, float] = field(default_factory=dict)

    async def start(self, sink: Sink) -> None:
        self._sink = sink
        self.api.watchers.append(self._event)

    async def settled(self) -> None:
        """The comparison fills the store."""

    async def stop(self) -> None:
        self._sink = None

    def _event(self, change: Change, plural: str, obj: dict[str, Any]) -> None:
        kinds = {model.INFO.plural: model.__name__ for model in MODELS}
        if plural not in kinds or self.loses(change, kinds[plural], obj):
            return
        loop = asyncio.get_running_loop()
        uid = obj["metadata"]["uid"]
        due = max(self._last.get(uid, 0.0), loop.time() + self.lag())
        self._last[uid] = due
        loop.call_at(due, self._deliver, change, kinds[plural], obj)

    def _deliver(self, change: Change, kind: str, obj: dict[str, Any]) -> None:
        if self._sink is not None:
            self._sink(change, kind, obj)


@dataclass
class Bench:
    """A running core on a fake API."""

    api: FakeApi
    core: Core
    stopping: asyncio.Event

    async def settle(self, seconds: float = 5.0) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    def condition(self, key: Key, kind: str = "Ready") -> dict[str, Any]:
        obj = self.api.find(key)
        assert obj is not None, f"{key} is gone"
        found = [c for c in obj["status"]["conditions"] if c["type"] == kind]
        return dict(found[0])


@asynccontextmanager
async def running(
    api: FakeApi | None = None, source: FakeSource | None = None, **settings: Any
) -> AsyncIterator[Bench]:
    """A core at work on the toy kinds; the toy world is new."""
    WORLD.__init__()  # type: ignore[misc]
    api = api or FakeApi()
    stopping = asyncio.Event()
    chosen = Settings(**settings)
    core = Core(chosen, toy_registry(), api, "me", LoopClock())  # type: ignore[arg-type]
    core.equip(agents=None, ledger=None, flows=None)  # type: ignore[arg-type]
    task = asyncio.create_task(core.run(source or FakeSource(api), stopping))
    await asyncio.sleep(1.0)
    try:
        yield Bench(api, core, stopping)
    finally:
        stopping.set()
        await asyncio.wait_for(task, 60)
    assert WORLD.overlaps == []
