"""The core with kopf on the upstream API server: what the fake one cannot prove."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from controller.client import Api, Exists, NotFound, Rejected
from controller.clock import SystemClock
from controller.core import Core
from controller.errors import Conflict
from controller.keys import Key
from controller.objects import Objects, resource_of
from controller.settings import Settings
from controller.sharding.leases import LEASES
from controller.sharding.ring_object import RingObject
from controller.watch.base import Change
from controller.watch.comparison import Comparison
from controller.watch.kopf_source import KopfSource
from controller.watch.store import ObjectStore
from crds.base import FINALIZER, ObjectMeta, Resource
from crds.refs import ObjectRef
from tests.support.waiting import until
from tests.unit.core.fakes import (
    MODELS,
    WORLD,
    Branch,
    BranchSpec,
    Leaf,
    LeafSpec,
    Trunk,
    World,
    toy_registry,
)

BY_NAME = {model.__name__: model for model in MODELS}
TRUNKS, BRANCHES, LEAVES = (resource_of(model) for model in MODELS)


def trunk(name: str = "t") -> Trunk:
    return Trunk(metadata=ObjectMeta(name=name))


def branch(name: str = "b", of: str = "t") -> Branch:
    return Branch(metadata=ObjectMeta(name=name), spec=BranchSpec(trunk=ObjectRef(name=of)))


def leaf(name: str, **refs: str) -> Leaf:
    spec = LeafSpec(**{where: ObjectRef(name=target) for where, target in refs.items()})
    return Leaf(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)


async def put(api: Api, obj: Resource) -> dict[str, Any]:
    body = obj.wire()
    body.pop("status", None)
    resource = resource_of(BY_NAME[obj.kind])
    return await api.create(resource, obj.metadata.namespace or "", body)


@dataclass
class Running:
    core: Core
    source: KopfSource
    signals: list[int] = field(default_factory=list)

    def ready(self, kind: str, name: str, namespace: str = "") -> bool:
        entry = self.core.store.entry(Key(kind, namespace, name))
        return entry is not None and entry.ready


@asynccontextmanager
async def controller(api: Api, identity: str = "tester", **settings: Any) -> AsyncIterator[Running]:
    for name, fresh in vars(World()).items():
        setattr(WORLD, name, fresh)
    stopping = asyncio.Event()
    core = Core(Settings(**settings), toy_registry(), api, identity, SystemClock())
    core.equip(agents=None, ledger=None, flows=None)  # type: ignore[arg-type]
    signals: list[int] = []
    source = KopfSource(
        api,
        core.registry.models,
        on_restart=core.comparison.poke,
        signals=lambda: signals.append(1),
    )
    task = asyncio.create_task(core.run(source, stopping))
    try:
        await until(lambda: core.member.arcs or task.done())
        yield Running(core, source, signals)
    finally:
        stopping.set()
        await asyncio.wait_for(task, 20)


async def test_a_waiting_object_proceeds_within_a_second(api: Api) -> None:
    async with controller(api) as running:
        await put(api, branch())
        await until(lambda: running.core.store.entry(Key("Branch", "", "b")) is not None)
        await asyncio.sleep(0.5)
        waiting = await api.get(BRANCHES, "", "b")
        ready = next(c for c in waiting["status"]["conditions"] if c["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "WaitingForDependency")
        assert "Trunk/t does not exist" in ready["message"]
        await put(api, trunk())
        await until(lambda: running.ready("Branch", "b"), 1.0)
        done = await api.get(BRANCHES, "", "b")
        assert done["metadata"]["finalizers"] == [FINALIZER]
        assert "kopf" not in str(done["metadata"]), "kopf leaves no traces"


async def test_a_deletion_cascades_and_leaves_nothing(api: Api) -> None:
    async with controller(api) as running:
        await put(api, trunk())
        await put(api, trunk("other"))
        for n in range(4):
            await put(api, branch(f"b{n}"))
            for m in range(3):
                await put(api, leaf(f"l{n}{m}", branch=f"b{n}", hung="t"))
        await put(api, leaf("kept", kept="t", rests="t"))
        await until(lambda: running.ready("Leaf", "kept", "default"))
        await until(lambda: all(running.ready("Leaf", f"l{n}2", "default") for n in range(4)))
        uid = (await api.get(TRUNKS, "", "t"))["metadata"]["uid"]
        await api.delete(TRUNKS, "", "t", uid)
        await until(lambda: running.core.store.entry(Key("Trunk", "", "t")) is None)
        left = {item["metadata"]["name"] async for page in api.pages(LEAVES)
                for item in page["items"]}  # fmt: skip
        assert left == {"kept"}
        assert WORLD.deleted[-1] == Key("Trunk", "", "t")
        assert not running.core.store.keys("Branch")
        with pytest.raises(NotFound):
            await api.get(TRUNKS, "", "t")
        assert await api.get(TRUNKS, "", "other")


async def test_kopf_is_started_again_and_nothing_is_missed(api: Api) -> None:
    async with controller(api) as running:
        await put(api, trunk())
        await until(lambda: running.ready("Trunk", "t"))
        await until(lambda: bool(running.signals))
        name = "multidimensional multitasker"
        victims = [task for task in asyncio.all_tasks() if task.get_name() == name]
        assert len(victims) == 1
        victims[0].cancel()
        await until(lambda: len(running.signals) == 2)
        await put(api, branch())
        await until(lambda: running.ready("Branch", "b"))


async def test_kopf_takes_the_signal_handlers_and_they_are_given_back(api: Api) -> None:
    async with controller(api) as running:
        await until(lambda: bool(running.signals))
        loop = asyncio.get_running_loop()
        assert not loop.remove_signal_handler(signal.SIGTERM), "kopf's handler is gone"


async def test_two_replicas_share_the_work_and_the_one_that_stays_gets_it_all(api: Api) -> None:
    await put(api, trunk())
    for number in range(12):
        await put(api, branch(f"b{number}"))
    keys = [Key("Branch", "", f"b{number}") for number in range(12)]
    async with controller(api, "one") as one:
        async with controller(api, "two") as two:
            await until(lambda: two.core.member.arcs.share == one.core.member.arcs.share == 0.5)
            await until(lambda: all(one.ready("Branch", key.name) for key in keys))
            entries = [entry for key in keys if (entry := one.core.store.entry(key)) is not None]
            assert len(entries) == len(keys)
            for entry in entries:
                assert one.core.member.owns(entry.uid) != two.core.member.owns(entry.uid)
            leases = await api.select(LEASES, "kumulus-system", "kumulus.dev/ring=member")
            assert {lease["metadata"]["name"] for lease in leases} == {"one", "two"}
        began = asyncio.get_running_loop().time()
        await until(lambda: one.core.member.arcs.share == 1)
        assert asyncio.get_running_loop().time() - began < 10, "told by the watch, not by a Lease"
        await put(api, branch("late"))
        await until(lambda: one.ready("Branch", "late"))
    stored = await RingObject(api, "kumulus-system").read()
    assert stored is not None and stored.ring.members == ()
    assert not await api.select(LEASES, "kumulus-system", "kumulus.dev/ring=member")


async def test_the_comparison_finds_what_happened_while_nobody_watched(api: Api) -> None:
    store = ObjectStore(BY_NAME)
    comparison = Comparison(api, store, BY_NAME, 60)
    created = [await put(api, trunk(f"t{n}")) for n in range(5)]
    await comparison.fill()
    assert len(store.keys("Trunk")) == 5
    await api.delete(TRUNKS, "", "t0", created[0]["metadata"]["uid"])
    await api.patch(TRUNKS, "", "t1", {"spec": {"size": 9}})
    await put(api, trunk("t5"))
    assert await comparison.compare("Trunk") == 3
    assert {key.name for key in store.keys("Trunk")} == {"t1", "t2", "t3", "t4", "t5"}
    assert store.get("Trunk", "t1").spec.size == 9
    assert await comparison.compare("Trunk") == 0


async def test_long_lists_come_in_pages(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.client.PAGE", 3)
    for n in range(8):
        await put(api, trunk(f"t{n}"))
    sizes = [len(page["items"]) async for page in api.pages(TRUNKS, metadata_only=True)]
    assert sizes == [3, 3, 2]


async def test_errors_of_the_real_server(api: Api) -> None:
    store = ObjectStore(BY_NAME)
    objects = Objects(api, store, BY_NAME)
    made = await objects.create(trunk())
    again = await objects.create(trunk())
    assert made.uid == again.uid, "creating again finds it"
    with pytest.raises(Exists):
        await put(api, trunk())
    key = Key("Trunk", "", "t")
    stale = {"metadata": {"resourceVersion": made.metadata.resource_version}}
    await objects.patch(key, {"spec": {"size": 1}})
    with pytest.raises(Conflict):
        await objects.patch_status(key, {**stale, "status": {"state": "Old"}})
    with pytest.raises(Rejected, match="size"):
        await objects.patch(key, {"spec": {"size": "many"}})
    with pytest.raises(NotFound):
        await api.get(TRUNKS, "", "nobody")
    assert await api.delete(TRUNKS, "", "t", "another-uid") is None
    assert await api.get(TRUNKS, "", "t"), "another object's uid deletes nothing"
    await objects.delete(made)
    assert store.entry(key) is None, "known at once, without a watch"
    await objects.delete(made)
    assert store.apply(Change.GONE, "Trunk", {"metadata": {"name": "t", "uid": "x"}}) is False


async def test_a_status_patch_changes_status_alone(api: Api) -> None:
    objects = Objects(api, ObjectStore(BY_NAME), BY_NAME)
    made = await objects.create(trunk())
    raw = await objects.patch_status(
        Key("Trunk", "", "t"),
        {
            "metadata": {"resourceVersion": made.metadata.resource_version},
            "spec": {"size": 77},
            "status": {"state": "Growing"},
        },
    )
    assert raw["status"] == {"state": "Growing"} | {
        k: v for k, v in raw["status"].items() if k != "state"
    }
    assert raw["spec"].get("size", 0) == 0 and raw["metadata"]["generation"] == 1
