"""kill -9 of the agent in the middle of its work, and of libvirtd: the end is the same."""

from __future__ import annotations

import asyncio
import re

import pytest

from agents.wire import Inventory, VolumeCreateArgs
from tests.integration.libvirt.bench import DISK_BYTES, Bench, Failed, Guest, Net, eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
]

# The moments, in seconds after the operation was accepted, at which the agent dies. They spread
# over seed, definition and QEMU's start, and over download, verification and creation.
MOMENTS = (0.0, 0.03, 0.08, 0.2, 0.5)


async def killed_at(bench: Bench, moment: float) -> None:
    await asyncio.sleep(moment)
    bench.host.kill_agent()
    await bench.host.start_agent()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_volume_create_survives_a_killed_agent(bench: Bench, moment: float) -> None:
    guest = Guest(bench)
    image = await bench.stored_image()
    args = VolumeCreateArgs(path=guest.storage, size=DISK_BYTES, image=image)
    operation = await bench.begin("volume.create", guest.root, args)
    await killed_at(bench, moment)
    result = await bench.end("volume.create", operation)
    assert result["size"] == DISK_BYTES
    check = await bench.host.run("qemu-img", "check", result["path"])
    assert "No errors" in check
    cached = [p.name for p in (bench.host.storage / "cache").iterdir()]
    assert cached == [f"{image.uid}.qcow2"], "one image, no leftovers"
    volumes = [p.name for p in (bench.host.storage / "volumes").iterdir()]
    assert volumes == [f"{guest.root}.qcow2"], "one volume, no leftovers"
    await guest.delete_disk()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_vm_start_survives_a_killed_agent(bench: Bench, moment: float) -> None:
    net = Net(bench, 50, "brcrash")
    guest = Guest(bench, [net.nic(5)], hostname="crash")
    await guest.make_disk()
    await net.ensure(5)
    operation = await bench.begin("vm.start", guest.uid, guest.args())
    await killed_at(bench, moment)
    assert (await bench.end("vm.start", operation))["state"] == "Running"
    assert (await bench.host.run("virsh", "list", "--uuid")).split() == [guest.uid]
    assert (await bench.host.run("virsh", "list", "--persistent", "--uuid")).split() == [guest.uid]
    assert (await bench.host.run("ps", "ax", "-o", "comm")).count("qemu-system") == 1
    assert (await bench.inventory()).taps == [net.nic(5).device]
    home = bench.host.state / "vms" / guest.uid
    assert sorted(p.name for p in home.iterdir()) == ["console.log", "seed.iso"]
    await bench.do("vm.destroy", guest.uid)
    await net.release(5)
    await guest.delete_disk()
    await bench.forget_images()
    assert await bench.inventory() == Inventory()


async def test_libvirtd_dies_and_comes_back(bench: Bench) -> None:
    """Guests go on without it; the agent says what is wrong, and connects again by itself."""
    guest = Guest(bench)
    await guest.make_disk()
    await bench.do("vm.start", guest.uid, guest.args())
    pid = (await bench.host.run("cat", "/run/libvirtd.pid")).strip()
    await bench.host.run("kill", "-9", pid)
    async with asyncio.timeout(5):
        status, body = await bench.client.ask("GET", bench.host.name, "ping")
    assert status >= 500
    assert body["code"] == "hypervisor", "said at once, not after all attempts"
    with pytest.raises(Failed, match=r"hypervisor: .*libvirt"):
        await bench.do("vm.pause", guest.uid)
    await bench.host.run("libvirtd", "-d", "-p", "/run/libvirtd.pid")

    async def running() -> bool:
        try:
            return (await bench.ping()).vms == {guest.uid: "Running"}
        except (AssertionError, TimeoutError):
            return False

    await eventually(running, "the agent sees the guest again")
    assert (await bench.do("vm.pause", guest.uid)).state == "Paused"
    await bench.do("vm.destroy", guest.uid)
    await guest.delete_disk()


async def test_a_guest_that_dies_is_seen(bench: Bench) -> None:
    guest = Guest(bench)
    await guest.make_disk()
    await bench.do("vm.start", guest.uid, guest.args())
    listed = await bench.host.run("ps", "ax", "-o", "pid,args")
    pids = re.findall(r"^ *(\d+) .*qemu-system", listed, re.MULTILINE)
    assert len(pids) == 1
    await bench.host.run("kill", "-9", pids[0])

    async def crashed() -> bool:
        return (await bench.ping()).vms == {guest.uid: "Crashed"}

    await eventually(crashed, "the ping says that it crashed")
    assert (await bench.do("vm.start", guest.uid, guest.args())).state == "Running"
    await bench.do("vm.destroy", guest.uid)
    await guest.delete_disk()
