"""The same stories with the work shared by three controllers, of which none holds all objects.

``KUMULUS_TEST_REPLICAS=3 pytest tests/unit/kinds`` tells all of them so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from controller.sharding.arcs import NOTHING
from tests.unit.kinds import test_availability as availability
from tests.unit.kinds import test_trash as trash
from tests.unit.kinds import test_vm_drift as drift
from tests.unit.kinds import test_vm_life as life
from tests.unit.kinds import test_vm_power as power
from tests.unit.kinds import test_vm_shape as shape
from tests.unit.kinds import test_volume as volume
from tests.unit.kinds import world
from tests.unit.kinds.world import cloud, vm_spec

pytestmark = pytest.mark.looptime
VMS = 12
STORIES: list[Callable[[], Awaitable[None]]] = [
    availability.test_storage_detached_from_a_cluster_stops_who_uses_it_there,
    availability.test_storage_that_vms_still_leave_says_so,
    availability.test_a_network_detached_from_a_cluster_loses_its_nics_there,
    drift.test_maintenance_stops_the_vms_and_then_lets_them_start_again,
    drift.test_deleting_the_host_stops_the_vm_which_waits_for_its_disk,
    drift.test_deleting_the_zone_takes_everything,
    drift.test_deleting_the_storage_takes_the_vm,
    life.test_data_disks_new_and_existing,
    life.test_a_volume_serves_one_vm_at_a_time,
    life.test_when_no_host_has_room_it_says_why_and_starts_once_there_is,
    power.test_stopping_one_that_found_no_host_gives_the_start_up,
    shape.test_a_disk_is_plugged_in_and_out_of_a_running_guest,
    shape.test_deleting_a_volume_unplugs_it,
    shape.test_deleting_the_network_while_the_vm_is_being_made,
    trash.test_a_recovered_vm_has_its_disks_and_its_addresses,
    trash.test_a_volume_is_recovered_by_a_manifest_that_names_no_host,
    trash.test_an_item_that_is_recovered_is_not_expunged_meanwhile,
    volume.test_its_host_leaves_and_returns,
    volume.test_the_root_disk_of_a_living_vm_is_held,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.removeprefix("test_"))
async def test_stories_end_as_with_one(
    story: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "REPLICAS", 3)
    await story()


async def test_each_holds_its_own_vms_and_their_volumes_and_knows_of_all() -> None:
    async with cloud(replicas=3) as here:
        for n in range(VMS):
            await here.apply("VirtualMachine", f"vm-{n}", **vm_spec())
        await here.until(lambda: all(vm.ready for vm in here.store.list("VirtualMachine")))
        await here.settle(30)
        held: list[str] = []
        for seat in here.seats:
            vms = list(seat.store.list("VirtualMachine"))
            volumes = {disk.name for disk in seat.store.list("Volume")}
            held += [vm.name for vm in vms]
            assert vms and {f"{vm.name}-root" for vm in vms} <= volumes
            assert len(volumes) < VMS, "others' volumes of others' VMs are not held"
            for kind in ("VirtualMachine", "Volume"):
                assert set(seat.store.keys(kind)) == set(here.store.keys(kind))
            for host in here.store.list("Host"):
                users = set(seat.store.users(here.key("Host", host.name)))
                assert users == set(here.store.users(here.key("Host", host.name)))
        assert sorted(held) == sorted(f"vm-{n}" for n in range(VMS)), "one holds each VM"


async def test_who_takes_over_reads_what_it_lacks() -> None:
    """One of three is gone; the next on the ring has seen its objects only by reference."""
    async with cloud(replicas=3) as here:
        for n in range(VMS):
            await here.apply("VirtualMachine", f"vm-{n}", **vm_spec())
        await here.until(lambda: all(vm.ready for vm in here.store.list("VirtualMachine")))
        first, second, _ = here.seats
        await second.queues.stop(0)
        taken = first.sharding.arcs | second.sharding.arcs
        second.sharding.arcs, first.sharding.arcs = NOTHING, taken
        first.store.hold(taken)
        for n in range(VMS):
            await here.change("VirtualMachine", f"vm-{n}", powerState="Stopped")
        for key in first.store.keys("VirtualMachine"):
            first.queues.add(key)
        await here.until(lambda: here.domains() == {}, 120)
        for n in range(VMS):
            await here.delete("VirtualMachine", f"vm-{n}")
        await here.until(lambda: not here.store.keys("Volume"), 120)
        assert here.leftovers() == []
