"""VM actions against a hypervisor in memory: idempotent, and the same after a kill at any point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agents.drivers.base import DriverError
from agents.drivers.domain import devices_of
from agents.ops.volume import KnownStorages, Storage
from agents.wire import (
    Disk,
    Empty,
    NicDevice,
    VmArgs,
    VmDiskArgs,
    VmNicArgs,
    VmRebootArgs,
    VmStopArgs,
)
from tests.unit.agents_libvirt.fakes import FakeHypervisor, FakeNetworks, Killed

pytest.importorskip("pycdlib")
from agents.ops.vm import VirtualMachines

pytestmark = pytest.mark.looptime
UID = "6f1c7a2e-0000-4000-8000-0123456789ab"
VOLUME, OTHER = "volume-1", "volume-2"


class Host:
    def __init__(self, directory: Path, hypervisor: FakeHypervisor | None = None) -> None:
        self.directory = directory
        self.hypervisor = hypervisor or FakeHypervisor()
        self.networks = FakeNetworks()
        self.storage = Storage(directory / "storage")
        storages = KnownStorages(directory / "storages.json")
        storages.add(self.storage)
        self.vms = VirtualMachines(self.hypervisor, cast("Any", self.networks), storages, directory)

    def disk(self, volume: str = VOLUME, device: str = "vda") -> Disk:
        return Disk(volume=volume, path=str(self.storage.volume(volume)), device=device)

    def nic(self, last: int = 1) -> NicDevice:
        return NicDevice(mac=f"52:54:00:00:00:{last:02x}", bridge="br0", device=f"vnic{last}")

    def args(self, **changes: Any) -> VmArgs:
        wanted: dict[str, Any] = {
            "name": "web",
            "namespace": "shop",
            "cpu": 1,
            "memory": 1 << 27,
            "disks": [self.disk()],
            "nics": [self.nic()],
            "hostname": "web",
            "user_data": "#cloud-config\n",
        }
        return VmArgs(**{**wanted, **changes})

    def files(self) -> set[str]:
        home = self.directory / "vms"
        return (
            {str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()}
            if home.exists()
            else set()
        )


Act = Callable[[Host], Awaitable[Any]]
ACTIONS: dict[str, Act] = {
    "start": lambda h: h.vms.start(UID, h.args()),
    "stop": lambda h: h.vms.stop(UID, VmStopArgs()),
    "force": lambda h: h.vms.stop(UID, VmStopArgs(force=True)),
    "destroy": lambda h: h.vms.destroy(UID, Empty()),
    "pause": lambda h: h.vms.pause(UID, Empty()),
    "resume": lambda h: h.vms.resume(UID, Empty()),
    "reboot": lambda h: h.vms.reboot(UID, VmRebootArgs()),
    "attach-disk": lambda h: h.vms.attach_disk(UID, VmDiskArgs(disk=h.disk(OTHER, "vdb"))),
    "detach-disk": lambda h: h.vms.detach_disk(UID, VmDiskArgs(disk=h.disk(OTHER, "vdb"))),
    "attach-nic": lambda h: h.vms.attach_nic(UID, VmNicArgs(nic=h.nic(2))),
    "detach-nic": lambda h: h.vms.detach_nic(UID, VmNicArgs(nic=h.nic(2))),
}
BEFORE = {
    "start": [],
    "resume": ["start", "pause"],
    "detach-disk": ["start", "attach-disk"],
    "detach-nic": ["start", "attach-nic"],
}


async def prepared(host: Host, action: str) -> None:
    for before in BEFORE.get(action, ["start"]):
        await ACTIONS[before](host)
    host.hypervisor.changes.clear()


def state(host: Host) -> tuple[object, ...]:
    return {
        uid: (d.power, d.live, d.stored) for uid, d in host.hypervisor.domains.items()
    }, host.files()


@pytest.mark.parametrize("action", ACTIONS)
async def test_twice_is_once(tmp_path: Path, action: str) -> None:
    host = Host(tmp_path)
    await prepared(host, action)
    await ACTIONS[action](host)
    once = state(host)
    host.hypervisor.changes.clear()
    await ACTIONS[action](host)
    assert state(host) == once
    if action != "reboot":
        assert host.hypervisor.changes == [], "the second time there is nothing to do"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
async def test_killed_at_any_change_it_ends_the_same(
    tmp_path: Path, action: str, after: bool
) -> None:
    whole = Host(tmp_path / "whole")
    await prepared(whole, action)
    await ACTIONS[action](whole)
    assert whole.hypervisor.changes, "there is something to be killed at"
    for number in range(1, len(whole.hypervisor.changes) + 1):
        directory = tmp_path / f"killed-{number}"
        host = Host(directory)
        await prepared(host, action)
        host.hypervisor.die_at, host.hypervisor.after = number, after
        with pytest.raises(Killed):
            await ACTIONS[action](host)
        host.hypervisor.die_at = None
        again = Host(directory, host.hypervisor)
        await ACTIONS[action](again)
        assert _comparable(again) == _comparable(whole)


def _comparable(host: Host) -> object:
    domains = {
        uid: (d.power, d.live and devices_of(d.live).nics, d.stored and devices_of(d.stored).nics,
              d.live and sorted(devices_of(d.live).disks), d.stored is None)
        for uid, d in host.hypervisor.domains.items()
    }  # fmt: skip
    return domains, host.files()


async def test_a_running_vm_is_left_as_it_is(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await ACTIONS["start"](host)
    host.hypervisor.changes.clear()
    await host.vms.start(UID, host.args(cpu=4))
    assert host.hypervisor.changes == []


async def test_a_guest_that_is_still_booting_hears_a_later_press(tmp_path: Path) -> None:
    host = Host(tmp_path, FakeHypervisor(deaf=2))
    await ACTIONS["start"](host)
    await ACTIONS["stop"](host)
    assert host.hypervisor.changes.count("press") == 3
    assert "pull" not in host.hypervisor.changes


async def test_a_deaf_guest_is_pulled_when_its_time_is_over(tmp_path: Path, looptime: Any) -> None:
    host = Host(tmp_path, FakeHypervisor(deaf=99))
    await ACTIONS["start"](host)
    await host.vms.stop(UID, VmStopArgs(timeout=25))
    assert 25 <= looptime <= 27
    assert host.hypervisor.changes.count("pull") == 1
    assert host.hypervisor.domains == {}


async def test_a_paused_guest_is_woken_to_shut_down(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await ACTIONS["start"](host)
    await ACTIONS["pause"](host)
    await ACTIONS["stop"](host)
    assert host.hypervisor.changes[-3:] == ["resume", "press", "forget"]


async def test_a_guest_that_does_not_reboot_is_reset(tmp_path: Path) -> None:
    host = Host(tmp_path, FakeHypervisor(deaf=1))
    await ACTIONS["start"](host)
    assert (await host.vms.reboot(UID, VmRebootArgs(timeout=5))).state == "Running"
    assert host.hypervisor.changes[-1] == "reset"


async def test_a_device_is_asked_for_until_the_guest_lets_go(tmp_path: Path) -> None:
    host = Host(tmp_path, FakeHypervisor(stubborn=3))
    await ACTIONS["start"](host)
    await ACTIONS["attach-disk"](host)
    await ACTIONS["detach-disk"](host)
    host.hypervisor.stubborn = 99
    await ACTIONS["attach-disk"](host)
    with pytest.raises(DriverError, match="did not release") as caught:
        await ACTIONS["detach-disk"](host)
    assert caught.value.code == "timeout"


@pytest.mark.parametrize("action", ["pause", "resume", "reboot", "attach-disk", "attach-nic"])
async def test_what_needs_a_running_vm_says_so(tmp_path: Path, action: str) -> None:
    with pytest.raises(DriverError, match="start it first") as caught:
        await ACTIONS[action](Host(tmp_path))
    assert caught.value.code == "conflict"


async def test_only_volumes_of_known_storages_are_disks(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for path in ("/etc/shadow", f"{host.storage.root}/volumes/../x", str(host.storage.volume("b"))):
        disk = Disk(volume=VOLUME, path=path, device="vda")
        with pytest.raises(DriverError, match="is no volume"):
            await host.vms.start(UID, host.args(disks=[disk]))
    assert host.hypervisor.changes == []


async def test_bridges_and_uids_are_checked_before_anything_is_done(tmp_path: Path) -> None:
    host = Host(tmp_path)
    nic = host.nic().model_copy(update={"bridge": "br9"})
    with pytest.raises(DriverError, match="no bridge br9"):
        await host.vms.start(UID, host.args(nics=[nic]))
    with pytest.raises(DriverError, match="is no UUID"):
        await host.vms.start("../x", host.args())
    assert host.hypervisor.changes == []
    assert host.files() == set()


async def test_the_console_outlives_a_stop_but_not_the_vm(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await ACTIONS["start"](host)
    (tmp_path / "vms" / UID / "console.log").write_text("boot")
    await ACTIONS["stop"](host)
    assert host.files() == {f"{UID}/console.log"}
    await ACTIONS["destroy"](host)
    assert host.files() == set()
    assert host.networks.sweeps == 2
