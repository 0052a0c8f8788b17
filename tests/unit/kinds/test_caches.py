"""What hosts keep for volumes to come goes when nobody needs it any more."""

from __future__ import annotations

import pytest

from agents.wire import ImageSource, VolumeCreateArgs
from controller.keys import Key
from tests.support.fakes import Fault
from tests.unit.kinds.world import World, cloud, running_vm

pytestmark = pytest.mark.looptime


def _cached(world: World) -> dict[str, list[str]]:
    """host → uids of the images on it; hosts without any are left out."""
    found = {n: a.machine.inventory().images for n, a in world.agents.agents.items()}
    return {n: images for n, images in found.items() if images and n != "images"}


def _kept(world: World) -> list[str]:
    """Hosts that have a storage directory."""
    hosts = {n: a.machine for n, a in world.agents.agents.items() if n != "images"}
    return sorted(name for name, machine in hosts.items() if len(machine.storages))


def _message(world: World, kind: str, name: str) -> str:
    ready = world.get(kind, name).condition("Ready")
    return f"{ready.reason}: {ready.message}" if ready is not None else ""


async def _delete(world: World, kind: str, name: str, seconds: float = 30) -> None:
    await world.delete(kind, name)
    await world.until(lambda: world.get(kind, name) is None, seconds)


async def test_a_deleted_image_goes_from_every_host() -> None:
    async with cloud(2) as world:
        await running_vm(world)
        await _delete(world, "VirtualMachine", "vm")
        assert len(_cached(world)) == 1, "kept for the next one"
        await _delete(world, "Image", "img")
        assert _cached(world) == {}


async def test_a_deleted_images_last_volume_takes_it_along() -> None:
    async with cloud(1) as world:
        image = world.get("Image", "img").uid
        await world.apply("Volume", "a", imageRef={"name": "img"}, hostRef={"name": "host-1"})
        await world.apply("Volume", "b", imageRef={"name": "img"}, hostRef={"name": "host-1"})
        await world.until(lambda: world.volume("a").ready and world.volume("b").ready)
        await _delete(world, "Image", "img")
        await _delete(world, "Volume", "a")
        assert _cached(world) == {"host-1": [image]}
        await _delete(world, "Volume", "b")
        assert _cached(world) == {}


async def test_another_image_of_the_same_name_is_another_image() -> None:
    async with cloud(1) as world:
        await world.apply("Volume", "v", imageRef={"name": "img"}, hostRef={"name": "host-1"})
        await world.until(lambda: world.volume("v").status.state == "Ready")
        await _delete(world, "Image", "img")
        spec = {"backupStorageRef": {"name": "images"}, "url": "http://x.test/b.qcow2"}
        await world.apply("Image", "img", **spec)
        await world.until(lambda: world.get("Image", "img").ready)
        await _delete(world, "Volume", "v")
        assert _cached(world) == {}


async def test_an_image_is_deleted_though_a_host_is_away() -> None:
    async with cloud(2) as world:
        vm = await running_vm(world)
        away = world.domains()[vm.uid]
        await _delete(world, "VirtualMachine", "vm")
        world.agents.agents[away].down = True
        await _delete(world, "Image", "img", seconds=60)
        assert list(_cached(world)) == [away]
        world.agents.agents[away].down = False
        await world.until(lambda: world.host(away).ready, seconds=30)
        await world.until(lambda: _cached(world) == {}, seconds=10)


async def test_a_cached_image_that_cannot_be_removed_holds_up_nobody() -> None:
    async with cloud(1) as world:
        await running_vm(world)
        await _delete(world, "VirtualMachine", "vm")
        world.agents.faults = [Fault("image.prune", message="io error")]
        await _delete(world, "Image", "img")
        assert "LeftBehind" in world.events.reasons("img")


async def test_deleted_storage_leaves_nothing_on_hosts() -> None:
    async with cloud(2) as world:
        await running_vm(world)
        await _delete(world, "VirtualMachine", "vm")
        assert _kept(world) == ["host-1", "host-2"]
        await _delete(world, "PrimaryStorage", "ps")
        assert (_cached(world), _kept(world)) == ({}, [])


async def test_a_directory_that_another_storage_uses_stays() -> None:
    async with cloud(1) as world:
        cluster = [{"name": "c"}]
        await world.apply(
            "PrimaryStorage", "same", zoneRef={"name": "z"}, path="/data", clusterRefs=cluster
        )
        await world.until(lambda: world.get("PrimaryStorage", "same").ready)
        await _delete(world, "PrimaryStorage", "ps")
        assert _kept(world) == ["host-1"]
        await _delete(world, "PrimaryStorage", "same")
        assert _kept(world) == []


async def test_a_deleted_zone_leaves_nothing_on_its_hosts() -> None:
    async with cloud(2) as world:
        await running_vm(world)
        await _delete(world, "VirtualMachine", "vm")
        world.agents.delay = 3.0  # the hosts have to wait for it
        await _delete(world, "Zone", "z", seconds=60)
        assert (_cached(world), _kept(world)) == ({}, [])
        assert world.get("Host", "host-1") is None


async def test_a_host_waits_for_storage_that_goes_and_says_so() -> None:
    async with cloud(2) as world:
        world.agents.faults = [Fault("storage.remove", host="host-1", message="busy disk")]
        await world.delete("PrimaryStorage", "ps")
        await world.delete("Host", "host-1")
        await world.settle(5)
        assert "waiting for PrimaryStorage ps to clean up" in _message(world, "Host", "host-1")
        assert "busy disk" in _message(world, "PrimaryStorage", "ps")
        world.agents.faults = []
        await world.until(lambda: world.get("Host", "host-1") is None, seconds=60)
        assert _kept(world) == []


async def test_a_detached_cluster_is_cleaned_up_and_can_come_back() -> None:
    async with cloud(2) as world:
        await running_vm(world)
        await _delete(world, "VirtualMachine", "vm")
        world.agents.faults = [Fault("storage.remove", host="host-1", message="busy disk")]
        await world.change("PrimaryStorage", "ps", clusterRefs=[])
        await world.until(lambda: _kept(world) == ["host-1"], seconds=10)
        assert world.get("PrimaryStorage", "ps").status.total_capacity == "0"
        assert "host-1, which it left: host-1: busy disk" in _message(world, "PrimaryStorage", "ps")
        world.agents.faults = []
        await world.until(lambda: _kept(world) == [], seconds=60)
        assert _cached(world) == {}
        await world.change("PrimaryStorage", "ps", clusterRefs=[{"name": "c"}])
        await running_vm(world)
        assert _kept(world) == ["host-1", "host-2"]


async def test_a_detached_cluster_keeps_the_volumes_it_has() -> None:
    async with cloud(1) as world:
        await world.apply("Volume", "v", imageRef={"name": "img"}, hostRef={"name": "host-1"})
        await world.until(lambda: world.volume("v").status.state == "Ready")
        await world.change("PrimaryStorage", "ps", clusterRefs=[])
        await world.settle(60)
        assert list(_cached(world)) == _kept(world) == ["host-1"]
        await _delete(world, "Volume", "v")
        await world.until(lambda: _kept(world) == [], seconds=60)


async def test_a_host_that_stays_does_not_wait_for_storage_that_stays() -> None:
    async with cloud(2) as world:
        await _delete(world, "Host", "host-1", seconds=5)
        assert _kept(world) == ["host-1", "host-2"], "volumes may come back with it"


@pytest.mark.parametrize("what", [("PrimaryStorage", "ps"), ("Zone", "z")])
async def test_a_silent_host_is_given_up(what: tuple[str, str]) -> None:
    async with cloud(2) as world:
        world.agents.agents["host-1"].down = True
        await _delete(world, *what, seconds=150)
        assert _kept(world) == ["host-1"]
        assert "LeftBehind" in world.events.reasons("ps")


async def test_what_a_controller_dies_of_is_done_by_the_next() -> None:
    async with cloud(2) as world:
        await running_vm(world)
        await _delete(world, "VirtualMachine", "vm")
        world.agents.delay = 2.0
        await world.delete("Zone", "z")
        await world.settle(1)
        await world.kill()
        await world.settle(10)
        world.controller()
        await world.until(lambda: world.get("Zone", "z") is None, seconds=90)
        assert (_cached(world), _kept(world)) == ({}, [])


async def test_what_nobody_knows_goes_when_a_host_connects() -> None:
    async with cloud(1) as world:
        agent = world.agents.agents["host-1"]
        old = ImageSource(
            uid="forgotten", store="s", address="a", port=1, file="f", format="qcow2",
            checksum="sha256:0", virtual_size=1,
        )  # fmt: skip
        volume = VolumeCreateArgs(path="/data", size=2**30, image=old)
        agent.machine.volume_create("unknown", volume)
        agent.reboot("boot-2")
        await world.until(lambda: world.host("host-1").status.boot_id == "boot-2", seconds=30)
        world.wake(Key("PrimaryStorage", "", "ps"))
        await world.settle(5)
        assert _cached(world) == {"host-1": ["forgotten"]}, "a volume is over it"
        agent.machine.volumes.drop("unknown")
        agent.reboot("boot-3")
        await world.until(lambda: _cached(world) == {}, seconds=60)
