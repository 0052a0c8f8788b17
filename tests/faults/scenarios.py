"""Lives that pass through the flows. Each ends with everything that it made deleted.

A flow of a new kind is passed through by ``examples``, which lives the life of every example; one
that only some other change of an object starts needs a scenario here, and a test says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import yaml

from tests.support.cloud import EXAMPLES
from tests.unit.kinds.world import World, cloud, recover, running_vm, vm_spec

PATIENCE = 4000.0
"""Virtual seconds. A fault may cost several hung passes of 300 seconds, and pauses of 60."""

DISK = {"name": "a", "size": "1Gi", "deleteWithVm": True}
NIC = {"name": "eth1", "l3NetworkRef": {"name": "net"}}

Scenario = Callable[[World], Awaitable[None]]
SCENARIOS: dict[str, tuple[Scenario, Callable[[], Any]]] = {}
"""Name → (the life, the world to live it in). In order: the cheap ones first."""


def scenario(world: Callable[[], Any]) -> Callable[[Scenario], Scenario]:
    def register(life: Scenario) -> Scenario:
        SCENARIOS[life.__name__] = life, world
        return life

    return register


async def until(world: World, what: Callable[[], Any]) -> None:
    await world.until(what, seconds=PATIENCE, step=0.5)


async def vm_is(world: World, state: str) -> None:
    await until(world, lambda: world.vm().status.state == state and world.vm().ready)


async def steady(world: World) -> None:
    """Nothing is orphaned or missing while it lives, either."""
    await world.settle(3)
    report = await world.audit()
    assert report.clean, report


async def gone(world: World, kind: str, name: str) -> None:
    await world.delete(kind, name)
    await until(world, lambda: world.get(kind, name) is None)
    await world.settle(3)


async def make(world: World, **spec: Any) -> None:
    await world.apply("VirtualMachine", "vm", **vm_spec(**spec))


@scenario(lambda: cloud(2))
async def create_and_delete(world: World) -> None:
    await make(world, dataDisks=[DISK])
    await vm_is(world, "Running")
    await steady(world)
    await gone(world, "VirtualMachine", "vm")


@scenario(lambda: cloud(2))
async def stopped_started_stopped(world: World) -> None:
    await make(world, powerState="Stopped")
    await vm_is(world, "Stopped")
    await steady(world)
    await world.change("VirtualMachine", "vm", powerState="Running")
    await vm_is(world, "Running")
    await steady(world)
    await world.change("VirtualMachine", "vm", powerState="Stopped")
    await vm_is(world, "Stopped")
    await steady(world)
    await gone(world, "VirtualMachine", "vm")


@scenario(lambda: cloud(1))
async def paused_resumed_rebooted(world: World) -> None:
    await running_vm(world)
    for power in ("Paused", "Running"):
        await world.change("VirtualMachine", "vm", powerState=power)
        await vm_is(world, power)
    when = "2027-01-01T00:00:00Z"
    await world.change("VirtualMachine", "vm", restartedAt=when)
    await until(world, lambda: world.vm().status.restarted_at is not None and world.vm().ready)
    await steady(world)
    await gone(world, "VirtualMachine", "vm")


@scenario(lambda: cloud(1))
async def reshaped(world: World) -> None:
    await running_vm(world)
    nics = vm_spec()["nics"]
    await world.change("VirtualMachine", "vm", nics=[*nics, NIC], dataDisks=[DISK])
    await until(world, lambda: len(_plugged(world)) == 4 and world.vm().ready)
    await steady(world)
    await world.change("VirtualMachine", "vm", nics=nics, dataDisks=[])
    await until(world, lambda: len(_plugged(world)) == 2 and world.vm().ready)
    await gone(world, "VirtualMachine", "vm")
    if world.get("Volume", "vm-a") is not None:
        await gone(world, "Volume", "vm-a")


def _plugged(world: World) -> list[str]:
    status = world.vm().status
    return [each.name for each in (*status.nics, *status.disks) if each.device]


@scenario(lambda: cloud(1))
async def image_and_host(world: World) -> None:
    world.agents.add("host-9")
    await world.apply("Host", "host-9", clusterRef={"name": "c"}, managementIp="192.0.2.99")
    url = "http://x.test/b.qcow2"
    await world.apply("Image", "other", backupStorageRef={"name": "images"}, url=url)
    for kind, name in (("Host", "host-9"), ("Image", "other")):
        await until(world, lambda kind=kind, name=name: world.get(kind, name).ready)
    await steady(world)
    await gone(world, "Image", "other")
    await gone(world, "Host", "host-9")


@scenario(lambda: cloud(1))
async def trashed_and_recovered(world: World) -> None:
    await make(world, deletionPolicy="Delay")
    await vm_is(world, "Running")
    await gone(world, "VirtualMachine", "vm")
    await steady(world)
    await recover(world, _item(world), "vm")
    await vm_is(world, "Running")
    await until(world, lambda: not list(world.store.list("TrashItem")))
    await steady(world)
    await world.change("VirtualMachine", "vm", deletionPolicy="Direct")
    await gone(world, "VirtualMachine", "vm")


@scenario(lambda: cloud(1))
async def trashed_and_expunged(world: World) -> None:
    await make(world, deletionPolicy="Delay")
    await vm_is(world, "Running")
    await gone(world, "VirtualMachine", "vm")
    await gone(world, "TrashItem", _item(world).name)


@scenario(lambda: cloud(1))
async def image_trashed_and_recovered(world: World) -> None:
    spec = {"url": "http://x.test/b.qcow2", "deletionPolicy": "Delay"}
    await world.apply("Image", "other", backupStorageRef={"name": "images"}, **spec)
    await until(world, lambda: world.get("Image", "other").ready)
    await gone(world, "Image", "other")
    await steady(world)
    await recover(world, _item(world), "other")
    await until(world, lambda: world.get("Image", "other").ready)
    await until(world, lambda: not list(world.store.list("TrashItem")))
    await steady(world)
    await world.change("Image", "other", deletionPolicy="Direct")
    await gone(world, "Image", "other")


def _item(world: World) -> Any:
    (found,) = world.store.list("TrashItem")
    return found


@asynccontextmanager
async def empty() -> AsyncIterator[World]:
    world = World()
    try:
        yield world
    finally:
        await world.close()


@scenario(empty)
async def examples(world: World) -> None:
    """Every kind's example is applied, and all are deleted."""
    files = sorted(EXAMPLES.glob("*.yaml"))
    objects = [obj for file in files for obj in yaml.safe_load_all(file.read_text())]
    for obj in objects:
        if obj["kind"] in ("Host", "BackupStorage"):
            world.agents.add(obj["metadata"]["name"])
    for obj in objects:
        await world.apply(obj["kind"], obj["metadata"]["name"], **obj.get("spec", {}))
    places = [(obj["kind"], obj["metadata"]["name"]) for obj in objects]
    await until(world, lambda: all(world.get(*place).ready for place in places))
    await steady(world)
    for kind, name in places:
        if world.get(kind, name) is not None:
            await world.delete(kind, name)
    await until(world, lambda: all(world.get(*place) is None for place in places))
    await world.settle(5)
