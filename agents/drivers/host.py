"""A host's driver put together: volumes, networks, VMs and facts, over a hypervisor."""

from __future__ import annotations

import asyncio
import logging
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from agents.drivers.base import Actions, DriverContext, DriverError
from agents.drivers.domain import Accelerator
from agents.ops.facts import boot_id, facts_of, read_machine
from agents.ops.fetch import fetch_image
from agents.ops.network import Networks
from agents.ops.vm import Hypervisor, VirtualMachines
from agents.ops.volume import KnownStorages, Volumes
from agents.wire import (
    CachePruneArgs,
    Empty,
    Facts,
    ImageSource,
    Inventory,
    NetworkArgs,
    NetworkReleaseArgs,
    Ping,
    StorageArgs,
    StorageRemoveArgs,
    VmArgs,
    VmDiskArgs,
    VmNicArgs,
    VmPower,
    VmRebootArgs,
    VmStopArgs,
    VolumeCreateArgs,
    VolumeDeleteArgs,
    Wire,
)

log = logging.getLogger(__name__)

PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "qemu-img": "qemu-utils",
}
Choice = Literal["auto", "kvm", "qemu"]


class HostHypervisor(Hypervisor, Protocol):
    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def powers(self) -> dict[str, VmPower]: ...

    async def disk_user(self, path: str) -> str | None: ...

    async def version(self) -> str: ...


@dataclass(frozen=True)
class HostOptions:
    """accelerator None: find out."""

    uri: str = "qemu:///system"
    directory: Path = Path("/var/lib/kumulus")
    accelerator: Accelerator | None = None

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> HostOptions:
        """Raises DriverError ``invalid`` for what is no option."""
        unknown = set(options) - {"uri", "directory", "accelerator"}
        if unknown:
            raise DriverError("invalid", f"no option of the libvirt driver: {', '.join(unknown)}")
        directory = Path(options.get("directory", cls.directory))
        if not directory.is_absolute():
            raise DriverError("invalid", f"option directory: {directory} must be absolute")
        return cls(
            uri=options.get("uri", cls.uri),
            directory=directory,
            accelerator=_accelerator(options.get("accelerator", "auto")),
        )


def _accelerator(choice: str) -> Accelerator | None:
    if choice not in get_args(Choice):
        raise DriverError("invalid", f"option accelerator: {choice} is not auto, kvm or qemu")
    return {"auto": None, "kvm": "kvm", "qemu": "qemu"}[choice]


class HostDriver:
    """agents.drivers.base.Driver for role host."""

    def __init__(
        self, context: DriverContext, options: HostOptions, hypervisor: HostHypervisor
    ) -> None:
        self._context = context
        self._directory = options.directory
        self._hypervisor = hypervisor
        self._networks = Networks(options.directory / "networks")
        self._storages = KnownStorages(options.directory / "storages.json")
        self._volumes = Volumes(self._storages, self._fetch, hypervisor.disk_user)
        self._vms = VirtualMachines(hypervisor, self._networks, self._storages, options.directory)
        self._actions = self._table()

    def _table(self) -> Actions:
        actions, volumes, networks, vms = Actions(), self._volumes, self._networks, self._vms
        actions.on("storage.ensure", StorageArgs, volumes.ensure_storage)
        actions.on("storage.remove", StorageRemoveArgs, volumes.remove_storage)
        actions.on("image.prune", CachePruneArgs, volumes.prune)
        actions.on("volume.create", VolumeCreateArgs, volumes.create)
        actions.on("volume.delete", VolumeDeleteArgs, volumes.delete)
        actions.on("network.ensure", NetworkArgs, networks.ensure)
        actions.on("network.release", NetworkReleaseArgs, networks.release)
        actions.on("vm.start", VmArgs, vms.start)
        actions.on("vm.stop", VmStopArgs, vms.stop)
        actions.on("vm.reboot", VmRebootArgs, vms.reboot)
        actions.on("vm.pause", Empty, vms.pause)
        actions.on("vm.resume", Empty, vms.resume)
        actions.on("vm.destroy", Empty, vms.destroy)
        actions.on("vm.attach-disk", VmDiskArgs, vms.attach_disk)
        actions.on("vm.detach-disk", VmDiskArgs, vms.detach_disk)
        actions.on("vm.attach-nic", VmNicArgs, vms.attach_nic)
        actions.on("vm.detach-nic", VmNicArgs, vms.detach_nic)
        return actions

    async def open(self) -> None:
        """Programs, directory, libvirt, KVM or not; then what a restart left undone."""
        _require_programs()
        await asyncio.to_thread(_prepare, self._directory)
        await asyncio.to_thread(self._storages.load)
        await self._hypervisor.open()
        await self._volumes.tidy()
        await self._networks.restore()

    async def close(self) -> None:
        await self._hypervisor.close()

    async def execute(self, action: str, resource: str, args: Wire) -> Wire:
        return await self._actions.run(action, resource, args)

    async def ping(self) -> Ping:
        powers = await self._hypervisor.powers()
        return Ping(boot_id=await asyncio.to_thread(boot_id), vms=powers)

    async def facts(self) -> Facts:
        name = await self._hypervisor.hypervisor_name()
        return facts_of(await read_machine(), name, await self._hypervisor.version())

    async def inventory(self) -> Inventory:
        volumes, images = await self._volumes.inventory()
        bridges, taps, dhcp = await self._networks.inventory()
        vms = sorted(await self._hypervisor.powers())
        return Inventory(
            vms=vms, volumes=volumes, images=images, bridges=bridges, taps=taps, dhcp=dhcp
        )

    async def image_file(self, file: str) -> Path:
        raise DriverError("not-found", f"a host stores no images for others: {file}")

    async def _fetch(self, image: ImageSource, destination: Path) -> None:
        tls = self._context.client_tls
        if tls is None:
            raise DriverError("unsupported", "this agent has no certificate to fetch images with")
        await fetch_image(image, destination, tls)


def _require_programs() -> None:
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        packages = " ".join(sorted(set(missing)))
        raise DriverError("unsupported", f"the host lacks programs: apt-get install {packages}")


def _prepare(directory: Path) -> None:
    """QEMU and dnsmasq run as users of their own and must be able to pass through."""
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    for place in (directory, *directory.parents):
        if not place.stat().st_mode & stat.S_IXOTH:
            raise DriverError(
                "invalid",
                f"option directory: QEMU and dnsmasq cannot pass through {place}; "
                f"chmod o+x {place}, or choose another directory",
            )
