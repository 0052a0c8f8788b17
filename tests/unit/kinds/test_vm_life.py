"""The life of a VM: from nothing to running, through its power states, to nothing again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.kinds.world import GI, cloud, running_vm, vm_spec

pytestmark = pytest.mark.looptime


async def test_a_manifest_becomes_a_running_vm() -> None:
    async with cloud() as world:
        vm = await running_vm(world)
        assert vm.status.host_ref is not None
        host = vm.status.host_ref.name
        assert world.domains() == {vm.uid: host}
        assert vm.status.ip == "10.0.0.11"  # 10.0.0.10 is DHCP's
        assert [(d.name, d.device, d.owned) for d in vm.status.disks] == [("root", "vda", True)]
        assert world.volume("vm-root").status.state == "Ready"
        assert world.used(host) == {"cpu": 1, "memory": GI, "vms": 1}
        assert world.events.reasons("vm") == ["Scheduled", "Started"]
        dhcp = world.agents.agents[host].machine.inventory().dhcp
        assert dhcp == [f"{world.get('L3Network', 'net').uid}/{vm.status.nics[0].mac}"]


async def test_deleting_it_leaves_nothing() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        assert world.get("Volume", "vm-root") is None
        assert world.leftovers() == []


async def test_many_vms_spread_over_the_hosts_and_get_addresses_of_their_own() -> None:
    async with cloud() as world:
        for i in range(9):
            await world.apply("VirtualMachine", f"vm-{i}", **vm_spec())
        await world.until(lambda: all(world.vm(f"vm-{i}").ready for i in range(9)))
        placed = list(world.domains().values())
        assert {placed.count(f"host-{i}") for i in (1, 2, 3)} == {3}
        assert len({world.vm(f"vm-{i}").status.ip for i in range(9)}) == 9
        assert len({world.vm(f"vm-{i}").status.nics[0].mac for i in range(9)}) == 9


async def test_user_data_and_hostname_reach_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cloud(1) as world:
        seen = []
        machine = world.agents.agents["host-1"].machine
        start = machine.vm_start
        monkeypatch.setattr(machine, "vm_start", lambda uid, a: seen.append(a) or start(uid, a))
        await running_vm(world, userData="#cloud-config", hostname="box")
        await running_vm(world, "plain")
        assert [(a.user_data, a.hostname, a.name) for a in seen] == [
            ("#cloud-config", "box", "vm"),
            (None, "plain", "plain"),
        ]


async def test_it_waits_for_its_image_and_names_it() -> None:
    async with cloud() as world:
        await world.apply("VirtualMachine", "vm", **vm_spec(imageRef={"name": "later"}))
        await world.settle()
        ready = world.vm().condition("Ready")
        assert ready is not None
        assert (ready.status, ready.reason) == ("False", "WaitingForDependency")
        assert "Image/later" in ready.message
        await world.apply(
            "Image", "later", backupStorageRef={"name": "images"}, url="http://x.test/b.qcow2"
        )
        await world.until(lambda: world.vm().status.state == "Running", seconds=5)


async def test_once_made_it_needs_neither_image_nor_offering() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.delete("Image", "img")
        await world.delete("InstanceOffering", "small")
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.until(lambda: world.vm().status.state == "Stopped")
        await world.change("VirtualMachine", "vm", powerState="Running")
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        assert (world.vm().status.cpu, world.vm().status.memory) == (1, "1Gi")


async def test_a_disabled_offering_or_image_takes_no_new_vms() -> None:
    async with cloud() as world:
        await world.change("InstanceOffering", "small", state="Disabled")
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.settle()
        assert "small is Disabled" in world.vm().condition("Ready").message  # type: ignore[union-attr]
        await world.change("Image", "img", state="Disabled")
        await world.change("InstanceOffering", "small", state="Enabled")
        await world.settle()
        assert "img is Disabled" in world.vm().condition("Ready").message  # type: ignore[union-attr]
        await world.change("Image", "img", state="Enabled")
        await world.until(lambda: world.vm().status.state == "Running", seconds=5)


async def test_data_disks_new_and_existing() -> None:
    async with cloud() as world:
        await world.apply("Volume", "old", size="5Gi")
        await world.until(lambda: world.volume("old").status.state == "NotInstantiated")
        assert world.volume("old").ready
        disks = [
            {"name": "a", "size": "2Gi", "deleteWithVm": True},
            {"name": "b", "diskOfferingRef": {"name": "ten"}},
            {"name": "c", "volumeRef": {"name": "old"}},
        ]
        vm = await running_vm(world, dataDisks=disks)
        devices = {d.name: d.device for d in vm.status.disks}
        assert devices == {"root": "vda", "a": "vdb", "b": "vdc", "c": "vdd"}
        assert world.volume("old").status.vm_ref is not None
        assert world.volume("vm-b").status.bytes == 10 * GI
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        assert sorted(v.name for v in world.store.list("Volume")) == ["old", "vm-b"]
        await world.until(lambda: world.volume("old").status.vm_ref is None)


async def test_a_volume_of_that_name_is_not_taken_over() -> None:
    async with cloud() as world:
        await world.apply("Volume", "vm-root", size="5Gi")
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.until(lambda: world.vm().status.state == "Error")
        assert "there is a volume vm-root already" in world.vm().condition("Stalled").message  # type: ignore[union-attr]
        assert [d for d in world.leftovers() if "host" in d] == []


async def test_a_volume_serves_one_vm_at_a_time() -> None:
    async with cloud() as world:
        await world.apply("Volume", "shared", size="5Gi")
        disks = [{"name": "d", "volumeRef": {"name": "shared"}}]
        await running_vm(world, "one", dataDisks=disks)
        await world.apply("VirtualMachine", "two", **vm_spec(dataDisks=disks))
        await world.settle()
        assert "attached to VM one" in world.vm("two").condition("Ready").message  # type: ignore[union-attr]
        await world.delete("VirtualMachine", "one")
        await world.until(lambda: world.vm("two").status.state == "Running", seconds=120)


async def test_deleting_it_while_it_is_being_made_leaves_nothing() -> None:
    async with cloud() as world:
        world.agents.delay = 1.0
        await world.apply(
            "VirtualMachine", "vm", **vm_spec(dataDisks=[{"name": "a", "size": "1Gi"}])
        )
        await world.until(lambda: world.vm().status.state == "Starting")
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        await world.settle()
        assert world.leftovers() == []


async def test_placement_is_honoured() -> None:
    async with cloud() as world:
        vm = await running_vm(world, placement={"hostRef": {"name": "host-3"}})
        assert world.domains() == {vm.uid: "host-3"}


async def test_when_no_host_has_room_it_says_why_and_starts_once_there_is() -> None:
    async with cloud(2) as world:
        big = {"instanceOfferingRef": None, "cpu": 1, "memory": "100Gi"}
        await running_vm(world, "one", **big)
        await running_vm(world, "two", **big)
        await world.apply("VirtualMachine", "three", **vm_spec(**big))
        await world.settle()
        ready = world.vm("three").condition("Ready")
        assert ready is not None
        assert ready.reason == "Unschedulable"
        assert "host-1: memory 73Gi short; host-2: memory 73Gi short" in ready.message
        await world.delete("VirtualMachine", "one")
        await world.until(lambda: world.vm("three").status.state == "Running", seconds=8)


async def test_a_guest_starts_and_reboots_only_after_that_was_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cloud(1) as world:
        machine = world.agents.agents["host-1"].machine
        written: list[tuple[str | None, str]] = []

        def noting(work: Callable[..., Any]) -> Callable[..., Any]:
            def note(*args: Any) -> Any:
                status = world.vm().status
                flow = status.workflow.name if status.workflow else ""
                written.append((status.host_ref.name if status.host_ref else None, flow))
                return work(*args)

            return note

        world.agents.patience = 1
        monkeypatch.setattr(machine, "vm_start", noting(machine.vm_start))
        monkeypatch.setattr(machine, "vm_reboot", noting(machine.vm_reboot))
        await running_vm(world, nics=[])
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.until(lambda: world.vm().status.state == "Stopped")
        await world.change("VirtualMachine", "vm", powerState="Running")
        await world.until(lambda: world.vm().status.state == "Running")
        await world.change("VirtualMachine", "vm", restartedAt="2030-01-01T00:00:00Z")
        await world.until(lambda: world.vm().status.restarted_at is not None)
        assert written == [("host-1", flow) for flow in ("vm-create", "vm-start", "vm-reboot")]
