"""A small cloud in memory: the real store, queues, reconcilers, engine and kinds; fake outside.

Everything runs in virtual time: ``await world.settle()`` lets seconds pass that cost nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from controller.audit.compare import Report, compare
from controller.audit.gather import claimed, listed, owners
from controller.keys import Key
from controller.kinds.trash import RECOVER_FROM
from controller.plugins.catalog import Catalog
from controller.queue.queue import Queues, WorkQueue
from controller.reconcile.actuator import Context, Observations, Tuning
from controller.reconcile.holdings import host_place, store_place
from controller.reconcile.reconciler import Machinery, Reconciler
from controller.registry import Registry, build, fitted
from controller.sharding.arcs import EVERYTHING, SPACE, Arcs
from controller.status.writer import StatusWriter
from controller.watch.store import ObjectStore
from controller.watch.wakes import Waker
from controller.workflow.flow import Flow
from controller.workflow.observers import Observer
from controller.workflow.runner import FlowEngine
from crds import kinds as models
from crds.base import ObjectMeta, Resource
from crds.v1alpha1.host import Host
from crds.v1alpha1.trash_item import TrashItem
from crds.v1alpha1.virtual_machine import VirtualMachine
from crds.v1alpha1.volume import Volume
from tests.support.fakes import FakeAgents, FakeClock, FakeEvents, FakeLedger, FakeObjects
from tests.support.sharding import Everything

GI = 2**30
REPLICAS = int(os.environ.get("KUMULUS_TEST_REPLICAS", "1"))
"""Controllers that share the work, unless a test says how many: all tests here have to pass with
any number."""
NS = "default"


@cache
def _fitted() -> tuple[Registry, dict[str, Flow]]:
    return fitted(Catalog())


class Seat:
    """What one controller process has. ``start()`` makes it anew."""

    def __init__(
        self, world: World, store: ObjectStore, objects: FakeObjects, arcs: Arcs = EVERYTHING
    ) -> None:
        self._world = world
        self.store, self.objects, self.sharding = store, objects, Everything(arcs)
        self.store.hold(arcs)
        self._forward_to: Callable[..., None] | None = None
        self.store.subscribe(lambda changed: self._forward_to and self._forward_to(changed))

    def start(self) -> None:
        world, flows = self._world, dict(_fitted()[1])
        actuators = [type(actuator) for actuator in _fitted()[0].actuators.values()]
        registry = build(actuators, models=models().values(), modules=_fitted()[0].modules)
        self.queues = Queues()
        self._forward_to = Waker(self.store, self.queues, registry.actuators)
        self.ctx = Context(
            store=self.store, objects=self.objects, agents=world.agents, ledger=world.ledger,
            flows=FlowEngine(world.meddle(flows), observers=world.observers),
            events=world.events, observed=Observations(), clock=world.clock,
            tuning=Tuning(), wake=self.wake,
        )  # fmt: skip
        machinery = Machinery(
            store=self.store, objects=self.objects,
            status=StatusWriter(self.objects, world.clock), sharding=self.sharding,
            graph=registry.graph, actuators=registry.actuators, ctx=self.ctx,
        )  # fmt: skip
        self.reconcilers = {kind: Reconciler(kind, machinery) for kind in registry.actuators}
        for kind, reconciler in self.reconcilers.items():
            self.queues.open(WorkQueue(kind, reconciler, concurrency=8))
        for kind in registry.models:
            for key in self.store.keys(kind):
                self.queues.add(key)
        self.queues.start()

    def wake(self, key: Key) -> None:
        self.reconcilers[key.kind].unpark(key)
        self.queues.add(key)


class World:
    """Make it in the loop. ``controller()`` starts (again) what the controller processes have;
    what is outside of them (API, agents, ledger) stays. Of several ``replicas`` each works on its
    share of the ring, and holds no more than that."""

    def __init__(self, replicas: int | None = None) -> None:
        replicas = replicas or REPLICAS
        self.clock, self.events, self.ledger = FakeClock(), FakeEvents(), FakeLedger()
        self.agents = FakeAgents(self.wake)
        self.observers: list[Observer] = []
        self.meddle: Callable[[dict[str, Flow]], dict[str, Flow]] = lambda flows: flows
        """Changes the flows of each controller that starts from now on."""
        self.registry, _ = _fitted()
        self.store = ObjectStore(self.registry.models, self.registry.quiet)
        self.objects = FakeObjects(self.store, self.clock)
        self.seats = [Seat(self, self.store, self.objects)] if replicas == 1 else []
        for n in range(replicas if replicas > 1 else 0):
            arcs = Arcs.of([(SPACE * n // replicas, SPACE * (n + 1) // replicas)])
            store = ObjectStore(self.registry.models, self.registry.quiet, self.registry.divided)
            self.seats.append(Seat(self, store, self.objects.joined(store), arcs))
        self.controller()

    def controller(self) -> None:
        """New controller processes: nothing in memory but what the API holds."""
        for seat in self.seats:
            seat.start()

    def wake(self, key: Key) -> None:
        for seat in self.seats:
            seat.wake(key)

    async def kill(self) -> None:
        """The controllers die; agents and the API live on."""
        for seat in self.seats:
            await seat.queues.stop(0)

    async def close(self) -> None:
        await self.kill()
        await self.agents.close()

    # -- what tests do

    async def apply(self, kind: str, name: str, **spec: Any) -> Any:
        namespaced = self.registry.models[kind].INFO.namespaced
        meta = ObjectMeta(name=name, namespace=NS if namespaced else None)
        body = {"metadata": meta.wire(), "spec": spec, "kind": kind}
        return await self.objects.create(self.registry.models[kind].model_validate(body))

    async def change(self, kind: str, name: str, **spec: Any) -> None:
        await self.objects.patch(self.key(kind, name), {"spec": spec})

    async def delete(self, kind: str, name: str) -> None:
        await self.objects.delete(self.get(kind, name))

    def key(self, kind: str, name: str) -> Key:
        return Key(kind, NS if self.registry.models[kind].INFO.namespaced else "", name)

    def get(self, kind: str, name: str) -> Any:
        return self.store.share(self.key(kind, name))

    def vm(self, name: str = "vm") -> VirtualMachine:
        found: VirtualMachine | None = self.get("VirtualMachine", name)
        assert found is not None, f"there is no VM {name}"
        return found

    def volume(self, name: str) -> Volume:
        found: Volume | None = self.get("Volume", name)
        assert found is not None, f"there is no volume {name}"
        return found

    def host(self, name: str) -> Host:
        found: Host | None = self.get("Host", name)
        assert found is not None, f"there is no host {name}"
        return found

    async def settle(self, seconds: float = 5.0) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    async def until(
        self, what: Callable[[], Any], seconds: float = 300.0, step: float = 0.2
    ) -> None:
        """Let time pass until ``what`` is true. AssertionError after ``seconds``."""
        end = self.clock.monotonic() + seconds
        while not what():
            assert self.clock.monotonic() < end, f"not within {seconds} s: {self.describe()}"
            await asyncio.sleep(step)

    def describe(self) -> str:
        """What is not as it should be, for failed assertions."""
        lines = []
        for kind in ("Host", "Image", "Volume", "VirtualMachine"):
            for obj in self.store.list(kind):
                ready = obj.condition("Ready")
                why = f"{ready.reason}: {ready.message}" if ready else "never looked at"
                lines.append(f"{kind}/{obj.name} {obj.status.state!r} {why}")
        return "\n".join(lines)

    # -- what tests look at

    def domains(self) -> dict[str, str]:
        """VM uid → host, for all that is defined anywhere. Fails if one is there twice."""
        found: dict[str, str] = {}
        for name, agent in self.agents.agents.items():
            for uid in agent.machine.vms:
                assert uid not in found, f"{uid} is on {found[uid]} and on {name}"
                found[uid] = name
        return found

    def leftovers(self) -> list[str]:
        """What agents and the ledger have that belongs to VMs and volumes."""
        found = []
        for name, agent in self.agents.agents.items():
            seen = agent.machine.inventory()
            for what in ("vms", "volumes", "bridges", "taps", "dhcp"):
                found += [f"{name}: {what} {uid}" for uid in getattr(seen, what)]
        found += [f"ledger: {s} {o}" for s, o in self.ledger.amounts]
        found += [f"ledger: {s} {o}" for s, o in self.ledger.values if not o.endswith("/dhcp")]
        return found

    async def audit(self) -> Report:
        """What ``kumulus audit`` says."""
        items = list(claimed(await self.ledger.claims(), await self.ledger.pools("")))
        for name, agent in self.agents.agents.items():
            place = host_place if self.get("BackupStorage", name) is None else store_place
            items += listed(place(name), agent.machine.inventory())
        known = owners(self.store, self.registry.actuators, self.registry.models)
        return compare(items, known, {})

    def used(self, host: str) -> dict[str, int]:
        return self.ledger.used(f"host/{self.host(host).uid}")


@asynccontextmanager
async def cloud(
    hosts: int = 3, *, replicas: int | None = None, **capacity: int
) -> AsyncIterator[World]:
    """A zone with one cluster of ``hosts``, storage, an image, offerings and a network."""
    world = World(replicas)
    try:
        for i in range(1, hosts + 1):
            world.agents.add(f"host-{i}", **capacity)
        world.agents.add("images")
        for kind, name, spec in manifests(hosts):
            await world.apply(kind, name, **spec)
        await world.until(lambda: all(_is_ready(world, k, n) for k, n, _ in manifests(hosts)))
        yield world
    finally:
        await world.close()


def _is_ready(world: World, kind: str, name: str) -> bool:
    found: Resource | None = world.get(kind, name)
    return found is not None and found.ready


def manifests(hosts: int) -> list[tuple[str, str, dict[str, Any]]]:
    """(kind, name, spec) of the usual cloud."""
    cluster = {"clusterRefs": [{"name": "c"}]}
    return [
        ("Zone", "z", {}),
        ("Cluster", "c", {"zoneRef": {"name": "z"}, "hypervisorType": "Simulator"}),
        *(
            ("Host", f"host-{i}", {"clusterRef": {"name": "c"}, "managementIp": f"192.0.2.{i}"})
            for i in range(1, hosts + 1)
        ),
        ("PrimaryStorage", "ps", {"zoneRef": {"name": "z"}, "path": "/data", **cluster}),
        ("BackupStorage", "images", {"managementIp": "192.0.2.100", "path": "/images"}),
        ("Image", "img", {"backupStorageRef": {"name": "images"}, "url": "http://x.test/a.qcow2"}),
        ("InstanceOffering", "small", {"cpu": 1, "memory": "1Gi"}),
        ("DiskOffering", "ten", {"size": "10Gi"}),
        ("L2Network", "l2", {"zoneRef": {"name": "z"}, **cluster}),
        (
            "L3Network", "net",
            {
                "l2NetworkRef": {"name": "l2"}, "cidr": "10.0.0.0/24", "gateway": "10.0.0.1",
                "ranges": [{"start": "10.0.0.10", "end": "10.0.0.50"}],
            },
        ),
    ]  # fmt: skip


def vm_spec(**more: Any) -> dict[str, Any]:
    """A small VM with one NIC."""
    spec: dict[str, Any] = {
        "instanceOfferingRef": {"name": "small"},
        "imageRef": {"name": "img"},
        "nics": [{"name": "eth0", "l3NetworkRef": {"name": "net"}}],
    }
    return {k: v for k, v in {**spec, **more}.items() if v is not None}


async def recover(world: World, item: TrashItem, name: str) -> None:
    """What ``kumulus recover`` does."""
    subject = item.spec.subject
    model = world.registry.models[subject.kind]
    kept = json.loads(subject.manifest)
    meta = {"name": name, "namespace": NS if model.INFO.namespaced else None,
            "annotations": {RECOVER_FROM: item.name}}  # fmt: skip
    body = {"kind": subject.kind, "metadata": meta, "spec": kept["spec"]}
    await world.objects.create(model.model_validate(body))


async def running_vm(world: World, name: str = "vm", **more: Any) -> VirtualMachine:
    await world.apply("VirtualMachine", name, **vm_spec(**more))
    await world.until(lambda: world.vm(name).status.state == "Running" and world.vm(name).ready)
    return world.vm(name)
