"""Disks and NICs that come and go while the VM lives."""

from __future__ import annotations

import pytest

from tests.support.fakes import Fault
from tests.unit.kinds.world import World, cloud, running_vm

pytestmark = pytest.mark.looptime


def _domain(world: World, name: str = "vm"):  # type: ignore[no-untyped-def]
    vm = world.vm(name)
    assert vm.status.host_ref is not None
    return world.agents.agents[vm.status.host_ref.name].machine.vms.get(vm.uid)


def _nic(name: str, network: str = "net", **more: str) -> dict[str, object]:
    return {"name": name, "l3NetworkRef": {"name": network}, **more}


async def test_a_disk_is_plugged_in_and_out_of_a_running_guest() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("VirtualMachine", "vm", dataDisks=[{"name": "a", "size": "1Gi"}])
        await world.until(lambda: "vdb" in _domain(world).disks, seconds=10)
        await world.until(lambda: world.vm().ready)
        assert _domain(world).disks["vdb"] == world.volume("vm-a").uid
        both = [{"name": "b", "size": "1Gi"}, {"name": "a", "size": "1Gi"}]
        await world.change("VirtualMachine", "vm", dataDisks=both)
        await world.until(lambda: "vdc" in _domain(world).disks, seconds=10)
        assert _domain(world).disks["vdb"] == world.volume("vm-a").uid  # it keeps its place
        await world.change("VirtualMachine", "vm", dataDisks=[{"name": "b", "size": "1Gi"}])
        await world.until(lambda: sorted(_domain(world).disks) == ["vda", "vdc"], seconds=10)
        assert world.volume("vm-a").ready  # a disk outlives its VM's need of it
        await world.until(lambda: world.volume("vm-a").status.vm_ref is None)
        await world.delete("Volume", "vm-a")
        await world.until(lambda: world.get("Volume", "vm-a") is None, seconds=10)


async def test_a_disk_added_while_stopped_is_there_at_the_next_start() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.until(lambda: world.vm().status.state == "Stopped")
        await world.change("VirtualMachine", "vm", dataDisks=[{"name": "a", "size": "1Gi"}])
        await world.until(lambda: len(world.vm().status.disks) == 2 and world.vm().ready, 10)
        await world.change("VirtualMachine", "vm", powerState="Running")
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        assert sorted(_domain(world).disks) == ["vda", "vdb"]


async def test_deleting_a_volume_unplugs_it() -> None:
    async with cloud() as world:
        await world.apply("Volume", "data", size="1Gi")
        await running_vm(world, dataDisks=[{"name": "d", "volumeRef": {"name": "data"}}])
        await world.delete("Volume", "data")
        await world.until(lambda: world.get("Volume", "data") is None, seconds=20)
        assert sorted(_domain(world).disks) == ["vda"]
        assert world.vm().status.state == "Running"


async def test_a_disk_that_cannot_be_added_leaves_the_guest_running() -> None:
    async with cloud() as world:
        await running_vm(world)
        world.agents.faults = [Fault("vm.attach-disk", times=1, message="no slot")]
        await world.change("VirtualMachine", "vm", dataDisks=[{"name": "a", "size": "1Gi"}])
        await world.until(lambda: "no slot" in str(world.vm().condition("Stalled")), seconds=10)
        assert world.vm().status.state == "Running"
        assert [d.name for d in world.vm().status.disks] == ["root"]
        assert world.get("Volume", "vm-a") is None
        await world.until(lambda: "vdb" in _domain(world).disks, seconds=90)


async def test_a_disk_for_which_there_is_no_room_is_refused() -> None:
    async with cloud(disk=20 * 2**30) as world:
        await running_vm(world)
        await world.change("VirtualMachine", "vm", dataDisks=[{"name": "a", "size": "1Ti"}])
        await world.until(lambda: "short" in str(world.vm().condition("Stalled")), seconds=10)
        assert world.vm().status.state == "Running"


async def test_a_nic_is_plugged_in_and_out_of_a_running_guest() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("VirtualMachine", "vm", nics=[_nic("eth0"), _nic("eth1")])
        await world.until(lambda: len(_domain(world).nics) == 2, seconds=10)
        await world.until(lambda: world.vm().ready)
        second = world.vm().status.nics[1]
        assert (second.ip, bool(second.device)) == ("10.0.0.12", True)
        await world.change("VirtualMachine", "vm", nics=[_nic("eth1")])
        await world.until(lambda: len(_domain(world).nics) == 1, seconds=10)
        await world.until(lambda: world.vm().status.ip == "10.0.0.12")
        owners = {o for s, o in world.ledger.values if s != "mac" and not o.endswith("/dhcp")}
        assert owners == {f"{world.vm().uid}/eth1"}


async def test_another_static_address_replaces_the_nic() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("VirtualMachine", "vm", nics=[_nic("eth0", ip="10.0.0.33")])
        await world.until(lambda: world.vm().status.ip == "10.0.0.33", seconds=10)
        await world.until(lambda: world.vm().ready, seconds=10)
        assert len(_domain(world).nics) == 1


async def test_a_nic_that_cannot_be_plugged_in_is_undone() -> None:
    async with cloud() as world:
        await running_vm(world)
        world.agents.faults = [Fault("vm.attach-nic", times=1, after=True, message="no slot")]
        await world.change("VirtualMachine", "vm", nics=[_nic("eth0"), _nic("eth1")])
        await world.until(lambda: "no slot" in str(world.vm().condition("Stalled")), seconds=10)
        assert [n.name for n in world.vm().status.nics] == ["eth0"]
        assert len(_domain(world).nics) == 1
        await world.until(lambda: len(_domain(world).nics) == 2, seconds=90)


async def test_deleting_the_network_takes_the_nic_but_not_the_vm() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.delete("L3Network", "net")
        await world.until(lambda: world.get("L3Network", "net") is None, seconds=20)
        vm = world.vm()
        assert (vm.status.state, vm.status.nics, vm.status.ip) == ("Running", [], "")
        assert _domain(world).nics == []
        await world.until(lambda: world.vm().ready)
        ready = world.vm().condition("Ready")
        assert ready is not None
        assert "waits for L3Network net" in ready.message
        for state in ("Stopped", "Running"):
            await world.change("VirtualMachine", "vm", powerState=state)
            await world.until(lambda s=state: world.vm().status.state == s)  # type: ignore[misc]
        await world.apply("L3Network", "net", l2NetworkRef={"name": "l2"}, cidr="10.5.0.0/24")
        await world.until(lambda: world.vm().status.ip.startswith("10.5.0."), seconds=20)


async def test_deleting_the_network_while_the_vm_is_stopped() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.until(lambda: world.vm().status.state == "Stopped")
        await world.delete("L3Network", "net")
        await world.until(lambda: world.get("L3Network", "net") is None, seconds=20)
        assert [o for s, o in world.ledger.values] == []


async def test_deleting_the_network_while_the_vm_is_being_made() -> None:
    async with cloud() as world:
        world.agents.delay = 1.0
        await world.apply(
            "VirtualMachine", "vm", instanceOfferingRef={"name": "small"},
            imageRef={"name": "img"}, nics=[_nic("eth0")],
        )  # fmt: skip
        await world.until(lambda: world.vm().status.ip)
        await world.delete("L3Network", "net")
        await world.until(lambda: world.get("L3Network", "net") is None, seconds=60)
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        assert world.vm().status.nics == []
