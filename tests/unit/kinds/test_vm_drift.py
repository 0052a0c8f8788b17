"""The world moves by itself: guests go off, hosts fall silent, restart, leave."""

from __future__ import annotations

import pytest

from tests.support.fakes import Fault
from tests.unit.kinds.world import World, cloud, running_vm

pytestmark = pytest.mark.looptime


def _machine(world: World, name: str = "vm"):  # type: ignore[no-untyped-def]
    host = world.vm(name).status.host_ref
    assert host is not None
    return world.agents.agents[host.name].machine


async def test_a_guest_that_shut_itself_down_is_started_again() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        machine = _machine(world)
        machine.boot("ignored")  # every guest off
        await world.until(lambda: "GuestStopped" in world.events.reasons("vm"), seconds=30)
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        assert machine.vms.get(vm.uid).power == "Running"
        assert world.events.reasons("vm")[-1] == "Started"


async def test_a_crashed_guest_is_started_again() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        _machine(world).crash(vm.uid)
        await world.until(lambda: "Crashed" in world.events.reasons("vm"), seconds=30)
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)


async def test_a_crash_on_a_host_that_another_replica_works_on_is_noticed() -> None:
    """Each replica asks the hosts of its VMs itself, and leaves the hosts' statuses alone."""
    async with cloud() as world:
        vm = await running_vm(world)
        hosts = list(world.store.list("Host"))
        world.seats[0].sharding.foreign.update(host.uid for host in hosts)
        versions = {host.name: host.metadata.resource_version for host in hosts}
        _machine(world).crash(vm.uid)
        await world.until(lambda: "Crashed" in world.events.reasons("vm"), seconds=30)
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        after = {host.name: host.metadata.resource_version for host in world.store.list("Host")}
        assert after == versions


async def test_a_guest_that_vanished_is_started_again() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        _machine(world).vms.drop(vm.uid)
        await world.until(lambda: "GuestStopped" in world.events.reasons("vm"), seconds=30)
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        assert list(world.domains()) == [vm.uid]


async def test_someone_paused_it_behind_our_back() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        machine = _machine(world)
        machine.vm_pause(vm.uid)
        await world.until(lambda: machine.vms.get(vm.uid).power == "Running", seconds=30)


async def test_a_silent_host_makes_its_vms_unknown_until_it_answers_again() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        agent = world.agents.agents[vm.status.host_ref.name]
        agent.down = True
        await world.until(lambda: world.vm().status.state == "Unknown", seconds=60)
        ready = world.vm().condition("Ready")
        assert ready is not None
        assert (ready.status, ready.reason) == ("False", "HostDisconnected")
        await world.settle(300)
        assert world.vm().status.state == "Unknown"
        agent.down = False
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready, 60)
        starts = [e for e in world.agents.executed if e[1] == "vm.start"]
        assert len(starts) == 1  # it ran all the time
        assert world.events.reasons("vm")[-2:] == ["HostDisconnected", "HostReconnected"]


async def test_two_missed_pings_are_no_disconnection() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        agent = world.agents.agents[vm.status.host_ref.name]
        agent.down = True
        await world.until(lambda: world.host(vm.status.host_ref.name).status.missed_pings == 2)  # type: ignore[union-attr]
        agent.down = False
        await world.settle(60)
        assert world.host(vm.status.host_ref.name).status.missed_pings == 0
        assert "Disconnected" not in world.events.reasons(vm.status.host_ref.name)


async def test_a_host_that_restarted_gets_its_vms_back() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        name = vm.status.host_ref.name
        agent = world.agents.agents[name]
        agent.reboot("boot-2")
        for bridge in list(agent.machine.bridges):
            agent.machine.bridges.drop(bridge)
        for subnet in list(agent.machine.subnets):
            agent.machine.subnets.drop(subnet)
        await world.until(lambda: world.host(name).status.boot_id == "boot-2", seconds=30)
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        assert agent.machine.vms.get(vm.uid).power == "Running"
        assert agent.machine.inventory().bridges


async def test_maintenance_stops_the_vms_and_then_lets_them_start_again() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        name = vm.status.host_ref.name
        world.agents.faults = [Fault("vm.stop", times=1)]
        await world.change("Host", name, state="Maintenance")
        await world.until(lambda: world.host(name).status.state == "PreMaintenance", seconds=5)
        await world.until(lambda: world.host(name).status.state == "Maintenance", seconds=150)
        assert world.domains() == {}
        ready = world.vm().condition("Ready")
        assert ready is not None
        assert f"{name}: Maintenance" in ready.message
        await world.change("Host", name, state="Enabled")
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready, 60)


async def test_deleting_the_host_stops_the_vm_which_waits_for_its_disk() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        name = vm.status.host_ref.name
        uid = world.host(name).uid
        await world.delete("Host", name)
        await world.until(lambda: world.get("Host", name) is None)
        assert world.domains() == {}
        await world.settle()
        assert world.vm().status.state == "Stopped"
        ready = world.vm().condition("Ready")
        assert ready is not None
        assert ready.reason == "VolumeUnavailable"
        assert world.volume("vm-root").status.state == "Unavailable"
        assert not [scope for scope, _ in world.ledger.amounts if uid in scope]
        assert not [scope for scope in world.ledger.capacity if uid in scope]
        await world.apply("Host", name, clusterRef={"name": "c"}, managementIp="192.0.2.1")
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready, 120)
        assert world.domains() == {vm.uid: name}


async def test_a_host_that_is_dead_for_good_can_be_deleted() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        name = vm.status.host_ref.name
        world.agents.agents[name].down = True
        await world.until(lambda: world.vm().status.state == "Unknown", seconds=60)
        await world.delete("Host", name)
        await world.until(lambda: world.get("Host", name) is None, seconds=120)
        assert "HostLost" in world.events.reasons("vm")
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        assert "LeftBehind" in world.events.reasons("vm-root")
        assert not [left for left in world.leftovers() if left.startswith("ledger")]


async def test_a_dead_hosts_vm_is_destroyed_when_it_answers_again() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        agent = world.agents.agents[vm.status.host_ref.name]
        agent.down = True
        await world.delete("VirtualMachine", "vm")
        await world.settle(120)
        assert world.vm().status.state == "Destroying"
        agent.down = False
        await world.until(lambda: world.get("VirtualMachine", "vm") is None, seconds=400)
        assert world.leftovers() == []


async def test_deleting_the_zone_takes_everything() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.delete("Zone", "z")
        await world.until(lambda: world.get("Zone", "z") is None)
        left = {key.kind for kind in world.registry.models for key in world.store.keys(kind)}
        assert left == {"BackupStorage", "Image", "InstanceOffering", "DiskOffering"}
        assert world.leftovers() == []
        assert world.ledger.capacity == {}


async def test_deleting_the_storage_takes_the_vm() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.delete("PrimaryStorage", "ps")
        await world.until(lambda: world.get("PrimaryStorage", "ps") is None)
        assert world.get("VirtualMachine", "vm") is None
        assert world.leftovers() == []


async def test_a_host_that_dies_while_it_is_being_deleted_does_not_hold_up_anything() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        name = vm.status.host_ref.name
        world.agents.agents[name].down = True
        await world.delete("Host", name)  # nobody noticed yet that it is silent
        await world.settle(30)
        assert world.host(name).deleting  # it may come back
        await world.until(lambda: world.get("Host", name) is None, seconds=300)
        assert world.vm().status.state == "Stopped"
        assert "HostLost" in world.events.reasons("vm")


async def test_a_zone_of_dead_hosts_can_be_deleted() -> None:
    async with cloud() as world:
        await running_vm(world)
        for agent in world.agents.agents.values():
            agent.down = True
        await world.delete("Zone", "z")
        await world.until(lambda: world.get("Zone", "z") is None, seconds=900, step=5)
        assert not [left for left in world.leftovers() if left.startswith("ledger")]


async def test_a_ping_that_was_under_way_does_not_undo_a_start() -> None:
    async with cloud(1) as world:
        ping = world.agents.ping

        async def slow(endpoint):  # type: ignore[no-untyped-def]
            answer = await ping(endpoint)
            await world.settle(3)
            return answer

        world.agents.ping = slow  # type: ignore[method-assign]
        for i in range(8):  # starts fall into pings of all phases
            await running_vm(world, f"vm-{i}")
            await world.settle(0.7)
        await world.settle(30)
        assert len([e for e in world.agents.executed if e[1] == "vm.start"]) == 8
        assert not [e for e in world.events.seen if e[2] == "GuestStopped"]
