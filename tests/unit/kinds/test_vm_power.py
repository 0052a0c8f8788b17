"""Power states that a user asks for."""

from __future__ import annotations

import pytest

from tests.unit.kinds.world import World, cloud, running_vm, vm_spec

pytestmark = pytest.mark.looptime


async def _power(world: World, wanted: str) -> None:
    await world.change("VirtualMachine", "vm", powerState=wanted)
    await world.until(lambda: world.vm().status.state == wanted and world.vm().ready)


def _seen(world: World) -> str | None:
    uid = world.vm().uid
    found = [a.machine.vms.get(uid) for a in world.agents.agents.values()]
    return next((domain.power for domain in found if domain is not None), None)


async def test_stopping_keeps_disks_and_addresses_and_gives_the_host_back() -> None:
    async with cloud() as world:
        before = await running_vm(world)
        assert before.status.host_ref is not None
        host = before.status.host_ref.name
        await _power(world, "Stopped")
        after = world.vm().status
        assert (after.host_ref, after.cluster_ref, after.last_host) == (None, None, host)
        assert (after.ip, after.nics[0].mac) == (before.status.ip, before.status.nics[0].mac)
        assert world.used(host) == {}
        assert world.domains() == {}
        inventory = world.agents.agents[host].machine.inventory()
        assert (inventory.dhcp, inventory.bridges) == ([], [])
        assert inventory.volumes == [world.volume("vm-root").uid]
        await _power(world, "Running")
        assert world.domains() == {before.uid: host}  # its disk is there
        assert world.vm().status.ip == before.status.ip


async def test_pause_and_resume() -> None:
    async with cloud() as world:
        await running_vm(world)
        await _power(world, "Paused")
        assert _seen(world) == "Paused"
        await world.settle(60)
        assert world.vm().status.state == "Paused"
        await _power(world, "Running")
        assert _seen(world) == "Running"
        assert world.events.reasons("vm")[-2:] == ["Paused", "Resumed"]


async def test_a_paused_vm_can_be_stopped() -> None:
    async with cloud() as world:
        await running_vm(world)
        await _power(world, "Paused")
        await _power(world, "Stopped")
        assert _seen(world) is None


@pytest.mark.parametrize(("state", "seen"), [("Stopped", None), ("Paused", "Paused")])
async def test_a_new_vm_may_be_stopped_or_paused(state: str, seen: str | None) -> None:
    async with cloud() as world:
        await world.apply("VirtualMachine", "vm", **vm_spec(powerState=state))
        await world.until(lambda: world.vm().status.state == state and world.vm().ready)
        assert _seen(world) == seen
        assert world.volume("vm-root").status.state == "Ready"
        assert world.vm().status.ip
        await _power(world, "Running")
        assert _seen(world) == "Running"


async def test_restarted_at_reboots_once() -> None:
    async with cloud() as world:
        await running_vm(world, restartedAt="2026-01-01T00:00:00Z")
        await world.settle(60)
        assert not [e for e in world.agents.executed if e[1] == "vm.reboot"]  # made after that
        await world.change("VirtualMachine", "vm", restartedAt="2027-01-01T00:00:00Z")
        await world.settle(60)
        assert len([e for e in world.agents.executed if e[1] == "vm.reboot"]) == 1
        assert world.vm().status.state == "Running"
        assert "Rebooted" in world.events.reasons("vm")


async def test_a_new_size_waits_for_the_next_start_and_says_so() -> None:
    async with cloud() as world:
        await running_vm(world, instanceOfferingRef=None, cpu=1, memory="1Gi")
        await world.change("VirtualMachine", "vm", cpu=2, memory="3Gi")
        await world.settle()
        ready = world.vm().condition("Ready")
        assert ready is not None
        assert (ready.status, ready.message) == (
            "True",
            "2 vCPUs and 3Gi take effect at the next start",
        )
        await _power(world, "Stopped")
        await _power(world, "Running")
        host = world.vm().status.host_ref
        assert host is not None
        assert world.used(host.name) == {"cpu": 2, "memory": 3 * 2**30, "vms": 1}


async def test_stopping_one_that_found_no_host_gives_the_start_up() -> None:
    async with cloud(1) as world:
        await world.change("Host", "host-1", state="Disabled")
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.settle()
        assert world.vm().status.workflow is not None
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.settle()
        assert world.vm().status.workflow is not None
        assert world.vm().status.workflow.name == "vm-create-stopped"
        await world.change("Host", "host-1", state="Enabled")
        await world.until(lambda: world.vm().status.state == "Stopped", seconds=20)
