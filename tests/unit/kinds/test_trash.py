"""Delayed deletion: data stay in the trash, and come back as another object's."""

from __future__ import annotations

from typing import Any

import pytest

from controller.client import Denied
from controller.keys import Key
from controller.kinds.trash import RECOVER_FROM
from crds.v1alpha1.trash_item import TrashItem
from tests.support.fakes import Fault
from tests.unit.kinds.world import NS, World, cloud, recover, running_vm, vm_spec

pytestmark = pytest.mark.looptime
DELAY = {"deletionPolicy": "Delay"}


def items(world: World) -> list[TrashItem]:
    return list(world.store.list("TrashItem"))


def claims(world: World) -> dict[str, int]:
    """Owner → bytes of what is claimed of storage."""
    return {o: a["bytes"] for (s, o), a in world.ledger.amounts.items() if s.startswith("storage/")}


def data(world: World) -> set[str]:
    """uids of the volumes that hosts have."""
    return {uid for a in world.agents.agents.values() for uid in a.machine.inventory().volumes}


async def gone(world: World, kind: str, name: str) -> None:
    await world.until(lambda: world.get(kind, name) is None)


async def trashed_vm(world: World, **more: Any) -> TrashItem:
    """A VM that ran, was deleted and is in the trash."""
    await running_vm(world, **DELAY, **more)
    await world.delete("VirtualMachine", "vm")
    await gone(world, "VirtualMachine", "vm")
    (item,) = items(world)
    return item


async def test_a_vm_goes_at_once_and_its_data_stay() -> None:
    async with cloud() as world:
        vm = await running_vm(world, **DELAY)
        root, before = world.volume("vm-root"), claims(world)
        await world.delete("VirtualMachine", "vm")
        await gone(world, "VirtualMachine", "vm")
        assert world.get("Volume", "vm-root") is None, "its name is free"
        assert world.domains() == {} and not any(
            s.startswith("host/") for s, _ in world.ledger.amounts
        )
        (item,) = items(world)
        assert data(world) == {root.uid}
        assert claims(world) == {f"trash/{root.uid}": before["volume/default/vm-root"]}
        assert not any("ip/" in s and o.startswith(vm.uid) for s, o in world.ledger.values)
        assert [disk.name for disk in item.spec.disks] == ["root"]
        await world.until(lambda: items(world)[0].status.state == "Kept")


async def test_a_recovered_vm_has_its_disks_and_its_addresses() -> None:
    async with cloud() as world:
        vm = await running_vm(world, **DELAY, dataDisks=[
            {"name": "own", "size": "1Gi", "deleteWithVm": True}, {"name": "kept", "size": "1Gi"},
        ])  # fmt: skip
        nic, root = vm.status.nics[0], world.volume("vm-root")
        disks = {d.name: d.device for d in vm.status.disks}
        await world.delete("VirtualMachine", "vm")
        await gone(world, "VirtualMachine", "vm")
        (item,) = items(world)
        assert {disk.name for disk in item.spec.disks} == {"root", "own"}
        await recover(world, item, "vm")
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        again = world.vm()
        assert again.uid != vm.uid
        assert (again.status.nics[0].mac, again.status.nics[0].ip) == (nic.mac, nic.ip)
        assert {d.name for d in again.status.disks} == disks.keys()
        assert {d.volume_ref.name for d in again.status.disks} == {"vm-root", "vm-own", "vm-kept"}
        volumes = {world.volume(n).uid for n in ("vm-root", "vm-own", "vm-kept")}
        assert root.uid not in volumes and data(world) == volumes
        assert set(claims(world)) == {f"volume/default/vm-{d}" for d in ("root", "own", "kept")}
        await world.until(lambda: not items(world))
        assert world.agents.agents[again.status.host_ref.name].machine.power()[again.uid]  # type: ignore[union-attr]
        await world.change("VirtualMachine", "vm", deletionPolicy="Direct")
        await world.delete("VirtualMachine", "vm")
        await gone(world, "VirtualMachine", "vm")
        await world.delete("Volume", "vm-kept")
        await gone(world, "Volume", "vm-kept")
        assert world.leftovers() == []


async def test_a_vm_comes_back_under_another_name_while_its_own_is_taken() -> None:
    async with cloud() as world:
        item = await trashed_vm(world)
        taken = item.spec.nics[0].ip
        new = await running_vm(world)
        assert new.status.ip == taken, "what is in the trash holds no address"
        await recover(world, item, "old")
        await world.until(lambda: world.vm("old").status.state == "Running")
        assert world.vm("old").status.ip not in ("", taken)
        assert "AddressTaken" in world.events.reasons("old")
        assert len(world.domains()) == 2
        assert world.volume("vm-root").uid in data(world)


async def test_trash_expires_and_leaves_nothing() -> None:
    async with cloud() as world:
        await trashed_vm(world, deletionRetention="10m")
        await world.settle(540)
        assert items(world) and data(world)
        await world.settle(120)
        assert not items(world)
        assert world.leftovers() == []


async def test_protected_trash_does_not_expire() -> None:
    async with cloud() as world:
        item = await trashed_vm(world, deletionRetention="10m")
        await world.change("TrashItem", item.name, deletionPolicy="Protect")
        await world.settle(700)
        assert items(world)[0].deleting is False and data(world)
        await world.change("TrashItem", item.name, deletionPolicy="Direct")
        await world.until(lambda: not items(world))
        assert world.leftovers() == []


async def test_emptying_the_trash_is_deleting_the_item() -> None:
    async with cloud() as world:
        item = await trashed_vm(world)
        await world.objects.delete(item)
        await world.until(lambda: not items(world))
        assert world.leftovers() == []


async def test_what_goes_with_its_storage_goes_for_good() -> None:
    async with cloud() as world:
        await running_vm(world, **DELAY)
        await world.delete("PrimaryStorage", "ps")
        await gone(world, "PrimaryStorage", "ps")
        assert not items(world)
        assert world.leftovers() == []


async def test_storage_takes_along_what_it_has_in_the_trash() -> None:
    async with cloud() as world:
        await trashed_vm(world)
        await world.delete("PrimaryStorage", "ps")
        await gone(world, "PrimaryStorage", "ps")
        assert not items(world)
        assert world.leftovers() == []


async def test_a_volume_is_recovered_by_a_manifest_that_names_no_host() -> None:
    async with cloud() as world:
        await running_vm(world)
        spec = {"size": "1Gi", "hostRef": {"name": "host-2"}, "deletionRetention": "5m", **DELAY}
        await world.apply("Volume", "data", **spec)
        await world.until(lambda: world.volume("data").status.state == "Ready")
        old = world.volume("data")
        await world.delete("Volume", "data")
        await gone(world, "Volume", "data")
        (item,) = items(world)
        assert claims(world)[f"trash/{old.uid}"] == 2**30 and old.uid in data(world)
        meta = {"name": "again", "namespace": NS, "annotations": {RECOVER_FROM: item.name}}
        body = {"kind": "Volume", "spec": {"size": "1Gi"}, "metadata": meta}
        await world.objects.create(world.registry.models["Volume"].model_validate(body))
        await world.until(lambda: world.volume("again").status.state == "Ready")
        new = world.volume("again")
        assert new.spec.host_ref is not None and new.spec.host_ref.name == "host-2"
        assert new.uid in data(world) and old.uid not in data(world)
        assert claims(world)["volume/default/again"] == 2**30
        await world.settle(400)
        assert not items(world) and new.uid in data(world), "the item's expiry touches nothing"


async def test_an_image_is_recovered_without_being_fetched_again() -> None:
    async with cloud() as world:
        await world.change("Image", "img", **DELAY)
        old = world.get("Image", "img")
        await world.delete("Image", "img")
        await gone(world, "Image", "img")
        (item,) = items(world)
        assert item.metadata.namespace == "default"
        store = world.agents.agents["images"].machine
        assert old.uid in store.images
        added = len([1 for _, action, _ in world.agents.executed if action == "image.add"])
        await recover(world, item, "img")
        await world.until(lambda: world.get("Image", "img").ready)
        new = world.get("Image", "img")
        assert new.status.checksum == old.status.checksum
        assert list(store.images) == [new.uid] and store.images.get(new.uid).file.startswith(
            new.uid
        )  # type: ignore[union-attr]
        await world.until(lambda: not items(world))
        assert len([1 for _, a, _ in world.agents.executed if a == "image.add"]) == added + 1
        await running_vm(world)


async def test_two_that_recover_one_item_do_not_share_it() -> None:
    async with cloud() as world:
        item = await trashed_vm(world)
        await recover(world, item, "one")
        await recover(world, item, "two")
        await world.settle(30)
        states = {n: world.vm(n).status.state for n in ("one", "two")}
        assert sorted(states.values()) == ["", "Running"]
        loser = next(n for n, state in states.items() if not state)
        stalled = world.vm(loser).condition("Stalled")
        assert stalled is not None and stalled.reason == "CannotRecover"
        assert len(world.domains()) == 1


async def test_who_stops_recovering_gives_the_item_back() -> None:
    async with cloud() as world:
        item = await trashed_vm(world)
        world.agents.faults = [Fault("volume.create", times=3)]
        await recover(world, item, "vm")
        await world.until(lambda: world.agents.faults[0].times < 3)
        await world.change("VirtualMachine", "vm", deletionPolicy="Direct")
        await world.delete("VirtualMachine", "vm")
        await gone(world, "VirtualMachine", "vm")
        await world.until(lambda: items(world)[0].status.state == "Kept")
        assert not [uid for uid in data(world) if uid != item.spec.disks[0].uid]


@pytest.mark.parametrize("lost", [("Host", "host-2"), ("PrimaryStorage", "ps")])
async def test_recovering_is_undone_though_what_has_the_data_is_gone(lost: tuple[str, str]) -> None:
    async with cloud() as world:
        await world.apply("Volume", "data", size="1Gi", hostRef={"name": "host-2"}, **DELAY)
        await world.until(lambda: world.volume("data").status.state == "Ready")
        old = world.volume("data").uid
        await world.delete("Volume", "data")
        await gone(world, "Volume", "data")
        world.agents.agents["host-2"].down = True
        await recover(world, items(world)[0], "again")
        await world.until(lambda: world.volume("again").status.workflow is not None)
        await world.objects.set_finalizers(world.get(*lost), [])  # by force: nobody cleans up
        await world.delete(*lost)
        await gone(world, *lost)
        await world.delete("Volume", "again")
        await gone(world, "Volume", "again")
        await world.until(lambda: items(world)[0].status.state == "Kept")
        assert list(claims(world)) == [f"trash/{old}"]


async def test_an_item_that_is_recovered_is_not_expunged_meanwhile() -> None:
    async with cloud() as world:
        item = await trashed_vm(world)
        world.agents.delay = 5.0
        await recover(world, item, "vm")
        await world.settle(1)
        await world.objects.delete(items(world)[0])
        await world.until(lambda: world.vm().status.state == "Running")
        await world.until(lambda: not items(world))
        assert data(world) == {world.volume("vm-root").uid}


async def test_recovering_what_is_gone_says_so() -> None:
    async with cloud() as world:
        await world.objects.create(
            world.registry.models["VirtualMachine"].model_validate(
                {"kind": "VirtualMachine", "spec": vm_spec(), "metadata": {
                    "name": "vm", "namespace": NS, "annotations": {RECOVER_FROM: "no-such"}}}
            )
        )  # fmt: skip
        await world.settle(5)
        stalled = world.vm().condition("Stalled")
        assert stalled is not None and "no-such does not exist any more" in stalled.message
        assert world.leftovers() == [], "no empty disk in place of the lost one"


async def test_in_a_namespace_that_goes_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cloud() as world:
        await running_vm(world, **DELAY)
        create = world.objects.create

        async def refuse(obj: Any) -> Any:
            if obj.kind == "TrashItem":
                raise Denied("forbidden: unable to create new content in namespace default "
                             "because it is being terminated")  # fmt: skip
            return await create(obj)

        monkeypatch.setattr(world.objects, "create", refuse)
        await world.delete("VirtualMachine", "vm")
        await gone(world, "VirtualMachine", "vm")
        assert not items(world) and world.leftovers() == []


@pytest.mark.parametrize("after", range(1, 40, 5))
async def test_a_controller_that_dies_loses_and_doubles_nothing(after: int) -> None:
    """Killed a few moments into the deletion, and again into the recovery."""
    async with cloud() as world:
        await running_vm(world, **DELAY)
        old = world.volume("vm-root").uid
        for moment in (0.02 * after, 0.011 * after):
            if items(world) and world.get("VirtualMachine", "vm") is None:
                await recover(world, items(world)[0], "vm")
            else:
                await world.delete("VirtualMachine", "vm")
            await world.settle(moment)
            await world.kill()
            world.controller()
            assert len(data(world)) == 1, "there is one copy of the data, always"
            await world.settle(60)
        assert world.vm().status.state == "Running" and len(data(world)) == 1
        assert data(world) == {world.volume("vm-root").uid} != {old}
        assert list(claims(world)) == ["volume/default/vm-root"]
        assert not items(world)


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.2, 0.4])
async def test_what_was_never_whole_leaves_no_trash(seconds: float) -> None:
    async with cloud() as world:
        world.agents.delay = 0.1
        await world.apply("VirtualMachine", "vm", **vm_spec(**DELAY))
        await world.settle(seconds)
        await world.delete("VirtualMachine", "vm")
        await gone(world, "VirtualMachine", "vm")
        await world.settle(5)
        assert bool(items(world)) == bool(data(world)) == bool(claims(world))


async def test_the_key_of_an_item_is_that_of_its_subject() -> None:
    async with cloud() as world:
        item = await trashed_vm(world)
        assert Key("TrashItem", NS, item.name) in world.store.keys("TrashItem")
        assert world.store.doomed_key(Key("TrashItem", NS, item.name)) is False
