"""A guest from its image to nothing left, through the agent's interface alone."""

from __future__ import annotations

from uuid import uuid4

import pytest

from agents.wire import (
    CachePruneArgs,
    Disk,
    Inventory,
    VmDiskArgs,
    VmNicArgs,
    VmRebootArgs,
    VmStopArgs,
    VolumeCreateArgs,
    VolumeDeleteArgs,
)
from tests.integration.libvirt.bench import Bench, Guest, Net, eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
]

USER_DATA = "#!/bin/sh\necho user data says $((40 + 2))\n"


async def test_life_of_a_vm(bench: Bench) -> None:
    net = Net(bench, 20, "brlife")
    guest = Guest(bench, [net.nic(5)], user_data=USER_DATA, hostname="guest-5")
    await guest.make_disk()
    await net.ensure(5)
    started = await bench.do("vm.start", guest.uid, guest.args())
    assert started.state == "Running"

    await guest.says("READY")
    console = guest.console()
    assert "GUEST boot=1" in console
    assert f"SEED hostname=guest-5 instance={guest.uid}" in console
    assert (
        f"DHCP eth0 {net.ip(5)}/24 gw={net.ip(1)} dns=192.0.2.53 domain=guests.example mtu=1450 "
        f"from={net.ip(2)}" in console
    )
    await guest.says("user data says 42")
    await eventually(lambda: net.answers(5), "the guest answers")
    assert await net.get(5, "/user-data") == USER_DATA
    assert (await bench.ping()).vms[guest.uid] == "Running"

    await _pauses(bench, net, guest)
    await _plugs_a_disk(bench, guest)
    await _plugs_a_nic(bench, net, guest)
    await _reboots(bench, net, guest)
    await _stops_and_starts(bench, net, guest)
    await _ends(bench, net, guest)


async def _pauses(bench: Bench, net: Net, guest: Guest) -> None:
    for _ in range(2):  # again is the same
        assert (await bench.do("vm.pause", guest.uid)).state == "Paused"
    assert (await bench.ping()).vms[guest.uid] == "Paused"
    assert not await net.answers(5)
    for _ in range(2):
        assert (await bench.do("vm.resume", guest.uid)).state == "Running"
    await eventually(lambda: net.answers(5), "the guest answers after the pause")


async def _plugs_a_disk(bench: Bench, guest: Guest) -> None:
    uid = str(uuid4())
    made = await bench.do("volume.create", uid, VolumeCreateArgs(path=guest.storage, size=32 << 20))
    disk = VmDiskArgs(disk=Disk(volume=uid, path=made.path, device="vdb"))
    for _ in range(2):
        await bench.do("vm.attach-disk", guest.uid, disk)
    await guest.says(f"DISK vdb serial={uid.replace('-', '')[:20]} bytes={32 << 20}")
    for _ in range(2):
        await bench.do("vm.detach-disk", guest.uid, disk)
    await guest.says("DISK vdb gone")
    await bench.do("volume.delete", uid, VolumeDeleteArgs(path=guest.storage))


async def _plugs_a_nic(bench: Bench, net: Net, guest: Guest) -> None:
    nic = VmNicArgs(nic=net.nic(6))
    await net.ensure(6)
    for _ in range(2):
        await bench.do("vm.attach-nic", guest.uid, nic)
    await guest.says(f"DHCP eth1 {net.ip(6)}/24")
    assert sorted((await bench.inventory()).taps) == [net.nic(5).device, net.nic(6).device]
    for _ in range(2):
        await bench.do("vm.detach-nic", guest.uid, nic)
    await guest.says("NIC eth1 gone")
    await net.release(6)
    assert (await bench.inventory()).taps == [net.nic(5).device]
    await eventually(lambda: net.answers(5), "the first NIC still works")


async def _reboots(bench: Bench, net: Net, guest: Guest) -> None:
    assert (await bench.do("vm.reboot", guest.uid, VmRebootArgs())).state == "Running"
    await guest.says("GUEST boot=2")
    assert "POWER BUTTON" in guest.console(), "it was asked, not reset"
    await eventually(lambda: net.answers(5), "the guest answers after the reboot")


async def _stops_and_starts(bench: Bench, net: Net, guest: Guest) -> None:
    presses = guest.console().count("POWER BUTTON")
    for _ in range(2):
        assert (await bench.do("vm.stop", guest.uid, VmStopArgs())).state == "Stopped"
    assert guest.console().count("POWER BUTTON") == presses + 1
    assert guest.uid not in (await bench.ping()).vms
    assert guest.uid not in await bench.host.run("virsh", "list", "--all", "--uuid")
    assert not (bench.host.state / "vms" / guest.uid / "seed.iso").exists()
    assert (await bench.inventory()).taps == []
    for _ in range(2):
        assert (await bench.do("vm.start", guest.uid, guest.args())).state == "Running"
    await guest.says("GUEST boot=3")
    await eventually(lambda: net.answers(5), "the guest answers after the start")


async def _ends(bench: Bench, net: Net, guest: Guest) -> None:
    assert (await bench.inventory()) == Inventory(
        vms=[guest.uid],
        volumes=[guest.root],
        images=[bench.image.uid if bench.image else ""],
        bridges=[net.l2],
        taps=[net.nic(5).device],
        dhcp=[f"{net.uid}/{net.nic(5).mac}"],
    )
    prune = CachePruneArgs(path=guest.storage)
    assert bench.image is not None
    await bench.do("image.prune", bench.image.uid, prune)
    assert (await bench.inventory()).images == [bench.image.uid], "a volume is based on it"
    for _ in range(2):
        await bench.do("vm.destroy", guest.uid)
        await net.release(5)
        await guest.delete_disk()
        await bench.do("image.prune", bench.image.uid, prune)
    assert await bench.inventory() == Inventory()
    await nothing_is_left(bench)


async def nothing_is_left(bench: Bench) -> None:
    """Asked of the machine itself, not of the agent."""
    host = bench.host
    assert (await host.run("virsh", "list", "--all", "--name")).strip() == ""
    assert (await host.run("ip", "netns", "list")).strip() == ""
    assert (await host.run("ip", "-br", "link")).split()[0] == "lo"
    assert len((await host.run("ip", "-br", "link")).splitlines()) == 1
    assert (await host.run("nft", "list", "ruleset")).strip() == ""
    assert "dnsmasq" not in await host.run("ps", "ax", "-o", "comm")
    assert "qemu" not in await host.run("ps", "ax", "-o", "comm")
    left = [p for place in ("volumes", "cache") for p in (host.storage / place).iterdir()]
    left += list((host.state / "networks").iterdir()) + list((host.state / "vms").iterdir())
    assert left == []
