"""System tags act: addresses, names, firmware, and a VM that is gone when it stops."""

from __future__ import annotations

from typing import Any

import pytest

from agents.drivers.simulated.records import Domain
from agents.wire import NetworkArgs
from tests.unit.kinds.world import World, cloud, running_vm, vm_spec

pytestmark = pytest.mark.looptime


def domain(world: World, name: str = "vm") -> Domain:
    vm = world.vm(name)
    assert vm.status.host_ref is not None
    found = world.agents.agents[vm.status.host_ref.name].machine.vms.get(vm.uid)
    assert found is not None
    return found


async def test_static_ip_gives_the_nic_its_address() -> None:
    async with cloud() as world:
        vm = await running_vm(world, systemTags=["staticIp::net::10.0.0.42"])
        assert vm.status.ip == "10.0.0.42"
        other = await running_vm(world, "other")
        assert other.status.ip != "10.0.0.42"


async def test_a_changed_static_ip_moves_the_nic() -> None:
    async with cloud() as world:
        await running_vm(world, systemTags=["staticIp::net::10.0.0.42"])
        await world.change("VirtualMachine", "vm", systemTags=["staticIp::net::10.0.0.43"])
        await world.until(lambda: world.vm().status.ip == "10.0.0.43" and world.vm().ready)
        await world.change("VirtualMachine", "vm", systemTags=[])
        await world.settle()
        assert world.vm().status.ip == "10.0.0.43", "without the tag it keeps what it has"


async def test_a_taken_static_ip_is_refused_by_the_ledger() -> None:
    async with cloud() as world:
        await running_vm(world, "one", systemTags=["staticIp::net::10.0.0.42"])
        await world.apply(
            "VirtualMachine", "two", **vm_spec(systemTags=["staticIp::net::10.0.0.42"])
        )
        await world.until(lambda: "10.0.0.42" in _message(world, "two"))
        assert not world.vm("two").ready


async def test_hostname_reaches_the_guest_and_dhcp(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cloud() as world:
        leases: list[Any] = []
        run = world.agents.run

        async def spy(
            endpoint: Any, action: str, resource: str, args: Any, *rest: Any, **more: Any
        ) -> Any:
            if isinstance(args, NetworkArgs):
                leases.append(args.lease)
            return await run(endpoint, action, resource, args, *rest, **more)

        monkeypatch.setattr(world.agents, "run", spy)
        await running_vm(world, systemTags=["hostname::frontend"])
        assert domain(world).hostname == "frontend"
        assert {lease.hostname for lease in leases} == {"frontend"}
        await running_vm(world, "plain")
        assert domain(world, "plain").hostname == "plain"


async def test_boot_mode_is_the_vms_else_the_images() -> None:
    async with cloud() as world:
        await running_vm(world, "plain")
        assert domain(world, "plain").boot_mode == ""
        await world.change("Image", "img", systemTags=["bootMode::UEFI"])
        await running_vm(world, "by-image")
        assert domain(world, "by-image").boot_mode == "UEFI"
        await running_vm(world, "own", systemTags=["bootMode::BIOS"])
        assert domain(world, "own").boot_mode == "BIOS"

        # The firmware does not change because the image goes.
        await world.delete("Image", "img")
        await world.until(lambda: world.get("Image", "img") is None)
        await world.change("VirtualMachine", "by-image", powerState="Stopped")
        await world.until(lambda: world.vm("by-image").status.state == "Stopped")
        await world.change("VirtualMachine", "by-image", powerState="Running")
        await world.until(lambda: world.vm("by-image").status.state == "Running")
        assert domain(world, "by-image").boot_mode == "UEFI"


@pytest.mark.parametrize("by", ["its user", "itself"])
async def test_an_ephemeral_vm_is_gone_once_it_stops(by: str) -> None:
    async with cloud() as world:
        before = world.leftovers()
        vm = await running_vm(world, systemTags=["ephemeral"])
        assert vm.status.host_ref is not None
        if by == "its user":
            await world.change("VirtualMachine", "vm", powerState="Stopped")
        else:
            machine = world.agents.agents[vm.status.host_ref.name].machine
            machine._switch(vm.uid, "Running", "Stopped")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        assert world.leftovers() == before
        assert "EphemeralStopped" in world.events.reasons("vm")
        assert world.events.reasons("vm").count("Started") == 1, "nothing started it again"


async def test_other_vms_stay_when_they_stop() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.until(lambda: world.vm().status.state == "Stopped" and world.vm().ready)
        await world.settle(60)
        assert world.vm().status.state == "Stopped"


async def test_a_tag_that_came_in_past_admission_is_ignored_and_said() -> None:
    async with cloud() as world:
        vm = await running_vm(world, systemTags=["bootMode::EFI", "gone::with::its::plugin"])
        assert vm.ready and domain(world).boot_mode == ""
        message = _message(world, "vm")
        assert "ignored: system tag bootMode::EFI: mode must be one of UEFI, BIOS" in message
        assert "gone::with::its::plugin" in message


async def test_hosts_are_selected_by_labels_and_tags() -> None:
    async with cloud() as world:
        await world.change("Host", "host-2", tags=[{"name": "gpu", "color": "green"}])
        vm = await running_vm(world, placement={"hostSelector": {"matchTags": ["gp?"]}})
        assert vm.status.host_ref is not None and vm.status.host_ref.name == "host-2"
        nowhere = {"hostSelector": {"matchLabels": {"rack": "a"}}}
        await world.apply("VirtualMachine", "picky", **vm_spec(placement=nowhere))
        await world.until(lambda: "host-1: has no label rack=a" in _message(world, "picky"))


def _message(world: World, name: str) -> str:
    ready = world.vm(name).condition("Ready")
    return ready.message if ready else ""
