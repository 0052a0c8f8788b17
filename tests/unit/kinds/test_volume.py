"""Volumes apart from VMs."""

from __future__ import annotations

import pytest

from tests.support.fakes import Fault
from tests.unit.kinds.world import GI, World, cloud, running_vm

pytestmark = pytest.mark.looptime


def _said(world: World, name: str) -> str:
    ready = world.volume(name).condition("Ready")
    return f"{ready.reason}: {ready.message}" if ready is not None else ""


async def test_it_is_not_made_before_it_has_a_host() -> None:
    async with cloud(1) as world:
        await world.apply("Volume", "v", size="5Gi")
        await world.until(lambda: world.volume("v").ready)
        assert world.volume("v").status.state == "NotInstantiated"
        assert world.leftovers() == []
        await world.change("Volume", "v", hostRef={"name": "host-1"})
        await world.until(lambda: world.volume("v").status.state == "Ready", seconds=10)
        assert world.volume("v").spec.primary_storage_ref is not None  # chosen
        assert world.volume("v").status.bytes == 5 * GI
        assert [a for a in world.ledger.amounts.values() if "bytes" in a] == [{"bytes": 5 * GI}]


async def test_its_size_comes_from_its_offering_or_its_image() -> None:
    async with cloud(1) as world:
        host = {"hostRef": {"name": "host-1"}}
        await world.apply("Volume", "a", diskOfferingRef={"name": "ten"}, **host)
        await world.apply("Volume", "b", imageRef={"name": "img"}, **host)
        await world.until(lambda: world.volume("b").status.bytes and world.volume("a").status.bytes)
        assert (world.volume("a").status.size, world.volume("b").status.size) == ("10Gi", "2Gi")


async def test_one_smaller_than_its_image_is_refused() -> None:
    async with cloud(1) as world:
        await world.apply(
            "Volume", "v", imageRef={"name": "img"}, size="1Gi", hostRef={"name": "host-1"}
        )
        await world.until(lambda: "too small for image img" in _said(world, "v"), seconds=10)
        assert world.volume("v").status.state == "Error"
        assert world.leftovers() == []


async def test_without_room_nothing_is_made() -> None:
    async with cloud(1, disk=10 * GI) as world:
        await world.apply("Volume", "v", size="50Gi", hostRef={"name": "host-1"})
        await world.until(lambda: world.volume("v").status.state == "Error", seconds=10)
        assert world.leftovers() == []


async def test_what_fails_is_undone_and_tried_again_later() -> None:
    async with cloud(1) as world:
        world.agents.faults = [Fault("volume.create", times=1, after=True, message="io error")]
        await world.apply("Volume", "v", size="5Gi", hostRef={"name": "host-1"})
        await world.until(lambda: "io error" in _said(world, "v"), seconds=10)
        assert world.leftovers() == []
        await world.until(lambda: world.volume("v").ready, seconds=90)


async def test_deleting_it_removes_bits_and_claim() -> None:
    async with cloud(1) as world:
        await world.apply("Volume", "v", size="5Gi", hostRef={"name": "host-1"})
        await world.until(lambda: world.volume("v").status.state == "Ready")
        await world.delete("Volume", "v")
        await world.until(lambda: world.get("Volume", "v") is None, seconds=10)
        assert world.leftovers() == []


async def test_the_root_disk_of_a_living_vm_is_held() -> None:
    async with cloud(1) as world:
        await running_vm(world)
        await world.delete("Volume", "vm-root")
        await world.settle(30)
        assert world.volume("vm-root").deleting
        assert world.vm().status.state == "Running"
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("Volume", "vm-root") is None)


async def test_its_host_leaves_and_returns() -> None:
    async with cloud(1) as world:
        await world.apply("Volume", "v", size="5Gi", hostRef={"name": "host-1"})
        await world.until(lambda: world.volume("v").status.state == "Ready")
        await world.delete("Host", "host-1")
        await world.until(lambda: world.get("Host", "host-1") is None, seconds=20)
        assert world.volume("v").status.state == "Unavailable"
        assert "add a host of that name" in _said(world, "v")
        await world.apply("Host", "host-1", clusterRef={"name": "c"}, managementIp="192.0.2.1")
        await world.until(lambda: world.volume("v").status.state == "Ready", seconds=60)


async def test_a_returned_host_without_the_data_gets_no_empty_disk_instead() -> None:
    async with cloud(1) as world:
        await world.apply("Volume", "v", size="5Gi", hostRef={"name": "host-1"})
        await world.until(lambda: world.volume("v").status.state == "Ready")
        await world.delete("Host", "host-1")
        await world.until(lambda: world.get("Host", "host-1") is None, seconds=20)
        world.agents.agents["host-1"].machine.volumes.drop(world.volume("v").uid)
        await world.apply("Host", "host-1", clusterRef={"name": "c"}, managementIp="192.0.2.1")
        await world.until(lambda: "DataMissing" in _said(world, "v"), seconds=60)
        assert world.agents.agents["host-1"].machine.inventory().volumes == []


async def test_one_whose_image_cannot_be_reached_goes_on_when_the_storage_is_back() -> None:
    async with cloud(1) as world:
        await world.until(lambda: world.get("Image", "img").ready)
        world.agents.agents["images"].down = True
        await world.until(
            lambda: world.get("BackupStorage", "images").status.status == "Disconnected",
            seconds=120,
        )
        await world.apply(
            "Volume", "v", imageRef={"name": "img"}, size="5Gi", hostRef={"name": "host-1"}
        )
        await world.until(lambda: "ImageUnreachable" in _said(world, "v"), seconds=10)
        world.agents.agents["images"].down = False
        await world.until(lambda: world.get("BackupStorage", "images").ready, seconds=60)
        await world.until(lambda: world.volume("v").status.state == "Ready", seconds=5)
