"""Virtual machines on one host: the actions vm.*, on top of what a hypervisor can do.

A VM's domain is identified by the VM's uid. It exists from vm.start to vm.stop or vm.destroy; its
seed and console log lie in ``<directory>/vms/<uid>/``, and the log stays until vm.destroy.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from agents.drivers.base import DriverError
from agents.drivers.domain import (
    MACHINES,
    Accelerator,
    Devices,
    Machinery,
    devices_of,
    disk_xml,
    domain_xml,
    nic_xml,
)
from agents.ops.firmware import check_firmware
from agents.ops.network import Networks
from agents.ops.seed import write_seed
from agents.ops.subnet import interface_name, parse_mac
from agents.ops.volume import KnownStorages
from agents.wire import (
    Disk,
    Empty,
    NicDevice,
    VmArgs,
    VmDiskArgs,
    VmNicArgs,
    VmPower,
    VmRebootArgs,
    VmResult,
    VmStopArgs,
)

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
PRESS_AGAIN_SECONDS = 10.0
UNPLUG_SECONDS = 45.0
SETTLE_SECONDS = 15.0
NICS = {"virtio", "e1000", "e1000e", "rtl8139"}
ACTIVE: frozenset[VmPower] = frozenset({"Running", "Paused"})


@dataclass(frozen=True)
class Domain:
    """One VM as the hypervisor has it. live, stored: its definitions (XML), None where not."""

    uid: str
    power: VmPower
    live: str | None
    stored: str | None

    @property
    def active(self) -> bool:
        return self.live is not None


class Hypervisor(Protocol):
    """Domains of ours by uid. All raise DriverError (``hypervisor`` when it fails or is gone);
    acting on a domain that went away meanwhile raises ``not-found``."""

    async def find(self, uid: str) -> Domain | None:
        """Raises ``conflict`` if a domain has this uid that Kumulus did not define."""

    async def accelerator(self) -> Accelerator: ...

    async def hypervisor_name(self) -> str: ...

    async def firmwares(self, architecture: str) -> frozenset[str]:
        """What guests' firmware the host has: ``efi``, ``bios``."""

    async def create(self, xml: str, *, paused: bool) -> None:
        """Start a domain that is not stored: if it fails nothing is left."""

    async def store(self, xml: str) -> None:
        """Keep the definition across restarts of the host."""

    async def forget(self, uid: str) -> None:
        """Remove the stored definition and all that goes with it."""

    async def pull(self, uid: str) -> None:
        """End it at once."""

    async def press_power(self, uid: str) -> None: ...

    async def ask_reboot(self, uid: str) -> None: ...

    async def reset(self, uid: str) -> None: ...

    def reboots(self, uid: str) -> int:
        """How often it was seen to start anew since the connection was made."""

    async def suspend(self, uid: str) -> None: ...

    async def resume(self, uid: str) -> None: ...

    async def plug(self, uid: str, device: str, *, live: bool) -> None:
        """Add a device to the running domain, or (live False) to the stored definition."""

    async def unplug(self, uid: str, device: str, *, live: bool) -> None: ...


class VirtualMachines:
    def __init__(
        self, hypervisor: Hypervisor, networks: Networks, storages: KnownStorages, directory: Path
    ) -> None:
        self._hypervisor = hypervisor
        self._networks = networks
        self._storages = storages
        self._directory = directory / "vms"

    async def start(self, uid: str, args: VmArgs) -> VmResult:
        self._check(uid, args)
        domain = await self._hypervisor.find(uid)
        if domain is not None and domain.active:
            if domain.stored is None and domain.live is not None:
                await self._hypervisor.store(domain.live)
            return await self._result(domain.power)
        for nic in args.nics:
            await self._check_bridge(nic)
        await check_firmware(args, self._hypervisor.firmwares)
        machinery = await self._machinery(uid, args)
        if domain is not None:
            await self._hypervisor.forget(uid)
        xml = domain_xml(uid, args, machinery)
        await self._hypervisor.create(xml, paused=args.paused)
        await self._hypervisor.store(xml)
        return await self._result("Paused" if args.paused else "Running")

    async def stop(self, uid: str, args: VmStopArgs) -> VmResult:
        domain = await self._find(uid)
        if domain is not None and domain.active:
            if not args.force:
                await self._shut_down(domain, args.timeout)
            await self._pull(uid)
        return await self._undefine(uid)

    async def destroy(self, uid: str, _: Empty) -> VmResult:
        domain = await self._find(uid)
        if domain is not None and domain.active:
            await self._pull(uid)
        result = await self._undefine(uid)
        await asyncio.to_thread(shutil.rmtree, self._home(uid), ignore_errors=True)
        return result

    async def reboot(self, uid: str, args: VmRebootArgs) -> VmResult:
        """The guest's own way; when it does not obey, the reset button."""
        domain = await self._active(uid)
        if domain.power == "Paused":
            await self._hypervisor.resume(uid)
        before = self._hypervisor.reboots(uid)
        await self._hypervisor.ask_reboot(uid)

        async def rebooted() -> bool:
            return self._hypervisor.reboots(uid) > before

        if not await _until(rebooted, args.timeout):
            log.info("the guest did not reboot in time: reset", extra={"vm": uid})
            await self._hypervisor.reset(uid)
        if not await _until(lambda: self._has_power(uid, "Running"), SETTLE_SECONDS):
            raise DriverError("hypervisor", "the VM did not come back after its reboot")
        return await self._result("Running")

    async def pause(self, uid: str, _: Empty) -> VmResult:
        domain = await self._active(uid)
        if domain.power != "Paused":
            await self._hypervisor.suspend(uid)
        return await self._result("Paused")

    async def resume(self, uid: str, _: Empty) -> VmResult:
        domain = await self._active(uid)
        if domain.power == "Paused":
            await self._hypervisor.resume(uid)
        return await self._result("Running")

    async def attach_disk(self, uid: str, args: VmDiskArgs) -> VmResult:
        disk = args.disk
        self._check_disk(disk)

        def has(devices: Devices) -> bool:
            holder = devices.disks.get(disk.device)
            if holder is not None and holder != disk.path:
                raise DriverError("conflict", f"{disk.device} of the VM is taken by {holder}")
            return holder is not None

        return await self._plug(uid, disk_xml(disk), has)

    async def detach_disk(self, uid: str, args: VmDiskArgs) -> VmResult:
        disk = args.disk
        return await self._unplug(
            uid, disk_xml(disk), lambda devices: devices.disks.get(disk.device) == disk.path
        )

    async def attach_nic(self, uid: str, args: VmNicArgs) -> VmResult:
        nic = _checked_nic(args.nic)
        await self._check_bridge(nic)
        return await self._plug(uid, nic_xml(nic), lambda devices: nic.mac in devices.nics)

    async def detach_nic(self, uid: str, args: VmNicArgs) -> VmResult:
        nic = _checked_nic(args.nic)
        result = await self._unplug(uid, nic_xml(nic), lambda devices: nic.mac in devices.nics)
        await self._networks.sweep()
        return result

    async def _plug(self, uid: str, device: str, has: Callable[[Devices], bool]) -> VmResult:
        domain = await self._active(uid)
        for definition, live in ((domain.live, True), (domain.stored, False)):
            if definition is not None and not has(devices_of(definition)):
                await self._hypervisor.plug(uid, device, live=live)
        return await self._result(domain.power)

    async def _unplug(self, uid: str, device: str, has: Callable[[Devices], bool]) -> VmResult:
        """The stored definition first: what a restart would bring back is gone in any case."""
        domain = await self._find(uid)
        if domain is None:
            return await self._result("Stopped")
        if domain.stored is not None and has(devices_of(domain.stored)):
            await self._hypervisor.unplug(uid, device, live=False)
        if domain.live is not None and has(devices_of(domain.live)):
            await self._unplug_live(uid, device, has)
        return await self._result(domain.power)

    async def _unplug_live(self, uid: str, device: str, has: Callable[[Devices], bool]) -> None:
        """The guest has to let go; it is asked again until it does."""

        async def gone() -> bool:
            domain = await self._hypervisor.find(uid)
            return domain is None or domain.live is None or not has(devices_of(domain.live))

        async def ask() -> None:
            try:
                await self._hypervisor.unplug(uid, device, live=True)
            except DriverError:
                if not await gone():
                    raise

        if not await _until(gone, UNPLUG_SECONDS, first=ask):
            raise DriverError(
                "timeout",
                f"the guest did not release the device in {UNPLUG_SECONDS:g} s; unmount it in the "
                "guest, or stop the VM",
            )

    async def _shut_down(self, domain: Domain, seconds: float) -> None:
        """Press the power button, and again (a guest that is still booting misses it)."""
        if domain.power == "Paused":
            await self._hypervisor.resume(domain.uid)

        async def press() -> None:
            try:
                await self._hypervisor.press_power(domain.uid)
            except DriverError as error:
                if error.code not in ("not-found", "conflict"):
                    raise

        if not await _until(lambda: self._is_off(domain.uid), seconds, first=press):
            log.info("the guest did not shut down in time: pulled", extra={"vm": domain.uid})

    async def _is_off(self, uid: str) -> bool:
        domain = await self._hypervisor.find(uid)
        return domain is None or not domain.active

    async def _has_power(self, uid: str, power: VmPower) -> bool:
        domain = await self._hypervisor.find(uid)
        return domain is not None and domain.power == power

    async def _pull(self, uid: str) -> None:
        """It may have ended by itself, and a domain that is not stored is gone then."""
        if await self._is_off(uid):
            return
        try:
            await self._hypervisor.pull(uid)
        except DriverError:
            if not await self._is_off(uid):
                raise

    async def _undefine(self, uid: str) -> VmResult:
        if await self._find(uid) is not None:
            await self._hypervisor.forget(uid)
        await asyncio.to_thread(_unlink, self._seed(uid))
        await self._networks.sweep()
        return await self._result("Stopped")

    async def _find(self, uid: str) -> Domain | None:
        _check_uid(uid)
        return await self._hypervisor.find(uid)

    async def _active(self, uid: str) -> Domain:
        domain = await self._find(uid)
        if domain is None or not domain.active:
            raise DriverError("conflict", "the VM does not run on this host; start it first")
        return domain

    async def _result(self, power: VmPower) -> VmResult:
        return VmResult(state=power, hypervisor=await self._hypervisor.hypervisor_name())

    async def _machinery(self, uid: str, args: VmArgs) -> Machinery:
        """The VM's own files, made new."""
        seed = self._seed(uid) if args.user_data or args.hostname else None
        await asyncio.to_thread(_make_home, self._home(uid))
        if seed is None:
            await asyncio.to_thread(_unlink, self._seed(uid))
        else:
            await asyncio.to_thread(write_seed, seed, uid, args.hostname, args.user_data)
        accelerator = await self._hypervisor.accelerator()
        return Machinery(accelerator, self._home(uid) / "console.log", seed)

    def _check(self, uid: str, args: VmArgs) -> None:
        _check_uid(uid)
        if args.architecture not in MACHINES:
            known = ", ".join(MACHINES)
            raise DriverError(
                "unsupported", f"architecture: {args.architecture} is none of {known}"
            )
        for disk in args.disks:
            self._check_disk(disk)
        for nic in args.nics:
            _checked_nic(nic)

    def _check_disk(self, disk: Disk) -> None:
        """A guest gets the volumes of this host's storages, and no other file."""
        if not self._storages.owns_volume(disk.volume, disk.path):
            raise DriverError(
                "invalid", f"disk {disk.device}: {disk.path} is no volume {disk.volume} of ours"
            )

    async def _check_bridge(self, nic: NicDevice) -> None:
        if not await self._networks.has_bridge(nic.bridge):
            raise DriverError("not-found", f"the host has no bridge {nic.bridge}: network.ensure")

    def _home(self, uid: str) -> Path:
        return self._directory / uid

    def _seed(self, uid: str) -> Path:
        return self._home(uid) / "seed.iso"


def _check_uid(uid: str) -> None:
    """libvirt knows domains by UUID, written in one way."""
    try:
        canonical = str(UUID(uid)) == uid
    except ValueError:
        canonical = False
    if not canonical:
        raise DriverError("invalid", f"resource: {uid!r} is no UUID")


def _checked_nic(nic: NicDevice) -> NicDevice:
    interface_name("bridge", nic.bridge)
    interface_name("device", nic.device)
    if nic.model not in NICS:
        raise DriverError("unsupported", f"model: {nic.model} is none of {', '.join(sorted(NICS))}")
    return nic.model_copy(update={"mac": parse_mac("mac", nic.mac)})


def _make_home(home: Path) -> None:
    home.mkdir(mode=0o711, parents=True, exist_ok=True)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _until(
    condition: Callable[[], Awaitable[bool]],
    seconds: float,
    *,
    first: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Poll ``condition`` for up to ``seconds``; ``first`` is done before, and again every
    PRESS_AGAIN_SECONDS."""
    loop = asyncio.get_running_loop()
    end, again = loop.time() + seconds, loop.time()
    while True:
        if first is not None and loop.time() >= again:
            await first()
            again = loop.time() + PRESS_AGAIN_SECONDS
        if await condition():
            return True
        if loop.time() >= end:
            return False
        await asyncio.sleep(POLL_SECONDS)
