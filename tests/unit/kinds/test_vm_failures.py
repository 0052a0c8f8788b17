"""What goes wrong while a VM is made or started: undone, tried elsewhere, and said."""

from __future__ import annotations

import pytest

from tests.support.fakes import Fault
from tests.unit.kinds.world import World, cloud, running_vm, vm_spec

pytestmark = pytest.mark.looptime

HOST_ACTIONS = ["volume.create", "network.ensure", "vm.start"]


def _stalled(world: World) -> str:
    condition = world.vm().condition("Stalled")
    return condition.message if condition is not None and condition.status == "True" else ""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("action", HOST_ACTIONS)
async def test_a_failing_host_is_cleaned_up_and_another_is_tried(action: str, after: bool) -> None:
    async with cloud() as world:
        world.agents.faults = [
            Fault(action, host=h, after=after, message="no luck") for h in ("host-1", "host-2")
        ]
        vm = await running_vm(world, dataDisks=[{"name": "a", "size": "1Gi"}])
        assert world.domains() == {vm.uid: "host-3"}
        assert (vm.status.excluded_hosts, vm.status.start_failures) == ([], [])
        assert world.events.reasons("vm").count("TryingAnotherHost") == 2
        await world.delete("VirtualMachine", "vm")
        await world.delete("Volume", "vm-a")
        await world.until(lambda: world.get("Volume", "vm-a") is None)
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        assert world.leftovers() == []


@pytest.mark.parametrize("action", HOST_ACTIONS)
async def test_when_every_host_fails_nothing_is_left_and_each_cause_is_named(action: str) -> None:
    async with cloud() as world:
        world.agents.faults = [
            Fault(action, host=f"host-{i}", message=f"cause {i}") for i in (1, 2, 3)
        ]
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.until(lambda: _stalled(world))
        assert world.vm().status.state == "Error"
        for i in (1, 2, 3):
            assert f"host-{i}: " in _stalled(world)
            assert f"cause {i}" in _stalled(world)
        await world.settle(1)
        assert world.leftovers() == []


@pytest.mark.parametrize("code", ["unreachable", "busy"])
@pytest.mark.parametrize("action", HOST_ACTIONS)
async def test_a_failure_that_passes_is_no_reason_to_leave_the_host(action: str, code: str) -> None:
    async with cloud() as world:
        world.agents.faults = [Fault(action, times=2, code=code)]
        await running_vm(world)
        assert "TryingAnotherHost" not in world.events.reasons("vm")


async def test_a_host_that_never_reaches_what_it_needs_is_left() -> None:
    async with cloud() as world:
        world.agents.faults = [Fault("volume.create", host="host-1", code="unreachable")]
        await running_vm(world)
        assert world.events.reasons("vm").count("TryingAnotherHost") == 1


async def test_a_failed_vm_is_tried_again_after_a_while_or_when_its_spec_changes() -> None:
    async with cloud() as world:
        world.agents.faults = [Fault("vm.start", times=6)]
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.until(lambda: _stalled(world))
        await world.settle(30)
        assert world.agents.faults[0].times == 3  # not hammered
        await world.change("VirtualMachine", "vm", description="again")
        await world.until(lambda: world.agents.faults[0].times == 0, seconds=10)
        await world.until(lambda: _stalled(world))
        await world.until(lambda: world.vm().status.state == "Running", seconds=90)


async def test_a_vm_that_cannot_start_again_stays_stopped_and_whole() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.until(lambda: world.vm().status.state == "Stopped")
        world.agents.faults = [Fault("vm.start", times=1, message="no luck")]
        await world.change("VirtualMachine", "vm", powerState="Running")
        await world.until(lambda: _stalled(world))
        assert world.vm().status.state == "Stopped"
        assert "no luck" in _stalled(world)
        assert world.volume("vm-root").status.state == "Ready"
        assert world.vm().status.ip == vm.status.ip
        await world.until(lambda: world.vm().status.state == "Running", seconds=90)


async def test_a_network_without_addresses_is_no_hosts_fault() -> None:
    async with cloud() as world:
        await world.apply(
            "L3Network", "tiny", l2NetworkRef={"name": "l2"}, cidr="10.1.0.0/24",
            ranges=[{"start": "10.1.0.5", "end": "10.1.0.6"}],
        )  # fmt: skip
        nics = [{"name": "eth0", "l3NetworkRef": {"name": "tiny"}}]
        await running_vm(world, "one", nics=nics)
        await world.apply("VirtualMachine", "vm", **vm_spec(nics=nics))
        await world.until(lambda: _stalled(world))
        assert "no address left for NIC eth0 in tiny" in _stalled(world)
        assert world.vm().status.excluded_hosts == []
        assert "TryingAnotherHost" not in world.events.reasons("vm")
        await world.delete("VirtualMachine", "one")
        await world.until(lambda: world.vm().status.state == "Running", seconds=120)


async def test_a_static_address_is_given_or_refused_naming_it() -> None:
    async with cloud() as world:
        nics = [{"name": "eth0", "l3NetworkRef": {"name": "net"}, "ip": "10.0.0.40"}]
        assert (await running_vm(world, "one", nics=nics)).status.ip == "10.0.0.40"
        await world.apply("VirtualMachine", "vm", **vm_spec(nics=nics))
        await world.until(lambda: _stalled(world))
        assert "10.0.0.40" in _stalled(world)
        outside = [{"name": "eth0", "l3NetworkRef": {"name": "net"}, "ip": "10.9.0.40"}]
        await world.change("VirtualMachine", "vm", nics=outside)
        await world.until(lambda: "10.9.0.40 is not in net's" in _stalled(world))
        free = [{"name": "eth0", "l3NetworkRef": {"name": "net"}, "ip": "10.0.0.41"}]
        await world.change("VirtualMachine", "vm", nics=free)
        await world.until(lambda: world.vm().status.ip == "10.0.0.41", seconds=10)


async def test_a_mac_of_ones_own_choice() -> None:
    async with cloud() as world:
        mac = "52:54:00:00:00:01"
        nics = [{"name": "eth0", "l3NetworkRef": {"name": "net"}, "mac": mac}]
        assert (await running_vm(world, "one", nics=nics)).status.nics[0].mac == mac
        await world.apply("VirtualMachine", "vm", **vm_spec(nics=nics))
        await world.until(lambda: mac in _stalled(world))


async def test_a_host_that_is_silent_for_a_while_delays_the_start() -> None:
    async with cloud(1) as world:
        world.agents.delay = 1.0
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.until(lambda: world.vm().status.state == "Starting")
        world.agents.agents["host-1"].down = True
        await world.settle(8)
        assert world.vm().status.state == "Starting"
        world.agents.agents["host-1"].down = False
        await world.until(lambda: world.vm().status.state == "Running", seconds=120)


async def test_a_rollback_that_fails_is_repeated_until_it_is_clean() -> None:
    async with cloud() as world:
        world.agents.faults = [
            Fault("vm.start", times=1, after=True),
            Fault("vm.destroy", times=2, message="busy"),
        ]
        vm = await running_vm(world)
        assert list(world.domains()) == [vm.uid]
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        assert world.leftovers() == []


async def test_a_deletion_that_fails_is_repeated() -> None:
    async with cloud() as world:
        await running_vm(world)
        world.agents.faults = [
            Fault("vm.destroy", times=1),
            Fault("network.release", times=1),
            Fault("volume.delete", times=1),
        ]
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        assert world.leftovers() == []


async def test_an_operation_that_hangs_runs_into_its_timeout() -> None:
    async with cloud() as world:
        world.agents.faults = [Fault("vm.start", times=1, hang=True)]
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.until(lambda: world.vm().status.state == "Running", seconds=1200, step=10)
        assert world.events.reasons("vm").count("TryingAnotherHost") == 1
        assert len(world.domains()) == 1
