"""Disabled and Maintenance: what they do to what is below, and to what is there already."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.fakes import Fault
from tests.unit.kinds.world import World, cloud, running_vm, vm_spec

pytestmark = pytest.mark.looptime


def why(obj: Any) -> tuple[str, str]:
    """Reason and message of Ready."""
    ready = obj.condition("Ready")
    assert ready is not None
    return ready.reason, ready.message


async def test_a_disabled_zone_disables_what_is_below_it_and_stops_nothing() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("Zone", "z", state="Disabled")
        await world.until(lambda: world.host("host-1").status.state == "Disabled")
        for kind, name in (("Cluster", "c"), ("PrimaryStorage", "ps"), ("Host", "host-3")):
            await world.until(lambda k=kind, n=name: world.get(k, n).status.state == "Disabled")  # type: ignore[misc]
            assert world.get(kind, name).spec.state == "Enabled", "what people wrote stays"
        assert world.vm().status.state == "Running"
        await world.apply("VirtualMachine", "new", **vm_spec())
        await world.settle(30)
        assert why(world.vm("new"))[0] == "Unschedulable"
        await world.change("Zone", "z", state="Enabled")
        await world.until(lambda: world.vm("new").status.state == "Running")
        assert world.host("host-1").status.state == "Enabled"


async def test_a_host_that_is_disabled_itself_stays_so() -> None:
    async with cloud() as world:
        await world.change("Host", "host-1", state="Disabled")
        await world.change("Cluster", "c", state="Disabled")
        await world.until(lambda: world.host("host-2").status.state == "Disabled")
        await world.change("Cluster", "c", state="Enabled")
        await world.until(lambda: world.host("host-2").status.state == "Enabled")
        assert world.host("host-1").status.state == "Disabled"


async def test_a_host_in_maintenance_gives_its_vms_up() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        host = vm.status.host_ref.name
        await world.change("Host", host, state="Maintenance")
        await world.until(lambda: world.host(host).status.state == "Maintenance")
        assert world.domains() == {}
        await world.change("Host", host, state="Enabled")
        await world.until(lambda: world.vm().status.state == "Running")


@pytest.mark.parametrize("disk", ["root", "data"])
async def test_storage_in_maintenance_stops_who_uses_it_until_it_is_back(disk: str) -> None:
    async with cloud() as world:
        two = {"zoneRef": {"name": "z"}, "path": "/two", "clusterRefs": [{"name": "c"}]}
        await world.apply("PrimaryStorage", "two", **two)
        await world.until(lambda: world.get("PrimaryStorage", "two").ready)
        root = {"rootDisk": {"primaryStorageRef": {"name": "two" if disk == "root" else "ps"}}}
        await world.apply("Volume", "data", size="1Gi", primaryStorageRef={"name": "two"})
        disks = [{"name": "data", "volumeRef": {"name": "data"}}] if disk == "data" else []
        await running_vm(world, dataDisks=disks, **root)
        await running_vm(world, "other", rootDisk={"primaryStorageRef": {"name": "ps"}})
        await world.change("PrimaryStorage", "two", state="Maintenance")
        await world.until(lambda: world.vm().status.host_ref is None)
        await world.until(lambda: world.get("PrimaryStorage", "two").status.state == "Maintenance")
        await world.settle(120)
        assert list(world.domains()) == [world.vm("other").uid]
        reason, message = why(world.vm())
        assert reason == "StorageAway" and "two is in Maintenance" in message
        await world.change("PrimaryStorage", "two", state="Enabled")
        await world.until(lambda: world.vm().status.state == "Running")


async def test_storage_detached_from_a_cluster_stops_who_uses_it_there() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("PrimaryStorage", "ps", clusterRefs=[])
        await world.until(lambda: world.vm().status.host_ref is None)
        await world.settle(120)
        assert "ps is not attached to cluster c" in why(world.vm())[1]
        assert world.volume("vm-root").status.path, "the data stay"
        await world.change("PrimaryStorage", "ps", clusterRefs=[{"name": "c"}])
        await world.until(lambda: world.vm().status.state == "Running")


async def test_storage_that_vms_still_leave_says_so() -> None:
    async with cloud() as world:
        await running_vm(world)
        world.agents.faults = [Fault("vm.stop", hang=True)]
        await world.change("PrimaryStorage", "ps", state="Maintenance")
        await world.settle(4)
        storage = world.get("PrimaryStorage", "ps")
        assert storage.status.state == "PreMaintenance"
        assert why(storage) == ("Evacuating", "VMs are being stopped: vm")


async def test_a_network_detached_from_a_cluster_loses_its_nics_there() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("L2Network", "l2", clusterRefs=[])
        await world.until(lambda: not world.vm().status.nics)
        await world.settle(30)
        assert world.vm().status.state == "Running"
        assert "is not in this cluster" in why(world.vm())[1]
        assert [line for line in world.leftovers() if "taps" in line or "ip/" in line] == []
        await world.change("L2Network", "l2", clusterRefs=[{"name": "c"}])
        await world.until(lambda: bool(world.vm().status.nics and world.vm().status.nics[0].device))


async def test_a_range_that_is_taken_away_takes_its_addresses_along() -> None:
    async with cloud() as world:
        await running_vm(world)
        await running_vm(world, "fixed", nics=[
            {"name": "eth0", "l3NetworkRef": {"name": "net"}, "ip": "10.0.0.40"}])  # fmt: skip
        assert world.vm().status.ip == "10.0.0.11"
        await world.change("L3Network", "net", ranges=[{"start": "10.0.0.60", "end": "10.0.0.70"}])
        await world.until(lambda: world.vm().status.ip == "10.0.0.60")
        await world.settle(5)
        assert world.vm("fixed").status.ip == "10.0.0.40", "who asked for an address keeps it"
        assert world.vm().status.state == "Running"


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("L3Network", "net", "L3NetworkDisabled"),
        ("DiskOffering", "ten", "DiskOfferingDisabled"),
        ("BackupStorage", "images", "BackupStorageDisabled"),
        ("InstanceOffering", "small", "OfferingDisabled"),
        ("Image", "img", "ImageDisabled"),
        ("PrimaryStorage", "ps", "Unschedulable"),
        ("Cluster", "c", "Unschedulable"),
    ],
)
async def test_the_disabled_take_nothing_new_and_keep_what_they_have(
    kind: str, name: str, reason: str
) -> None:
    async with cloud() as world:
        disk = {"rootDisk": {"diskOfferingRef": {"name": "ten"}}}
        await running_vm(world, **disk)
        await world.change(kind, name, state="Disabled")
        await world.settle(5)
        await world.apply("VirtualMachine", "new", **vm_spec(**disk))
        await world.settle(30)
        assert why(world.vm("new"))[0] == reason
        assert world.vm().status.state == "Running"
        await world.change(kind, name, state="Enabled")
        await world.until(lambda: world.vm("new").status.state == "Running")


async def test_a_disabled_backup_storage_takes_no_image(
) -> None:  # fmt: skip
    async with cloud() as world:
        await world.change("BackupStorage", "images", state="Disabled")
        await world.settle()
        await another_image(world)
        assert why(world.get("Image", "two"))[0] == "BackupStorageDisabled"
        await world.change("BackupStorage", "images", state="Enabled")
        await world.until(lambda: world.get("Image", "two").ready)


async def another_image(world: World) -> None:
    where = {"backupStorageRef": {"name": "images"}, "url": "http://x.test/b.qcow2"}
    await world.apply("Image", "two", **where)
    await world.settle(20)
