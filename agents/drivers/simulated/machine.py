"""A pretended hypervisor: it refuses what a real one would refuse.

Pure and synchronous: an action either changes the records or raises DriverError and changes
nothing.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from typing import Any

from agents.drivers.base import DriverError
from agents.drivers.simulated.records import (
    Address,
    Bridge,
    Change,
    Domain,
    Nic,
    Note,
    Shelf,
    Storage,
    StoredImage,
    Subnet,
    Volume,
)
from agents.drivers.simulated.usage import Usage, memory_of
from agents.wire import (
    CachePruneArgs,
    Disk,
    Empty,
    ImageSource,
    Inventory,
    Lease,
    NetworkArgs,
    NetworkReleaseArgs,
    NicDevice,
    StorageRemoveArgs,
    StorageResult,
    VmArgs,
    VmPower,
    VmResult,
    VolumeCreateArgs,
    VolumeDeleteArgs,
    VolumeResult,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
QCOW2_OVERHEAD = 200 * 1024
"""Bytes that an empty qcow2 takes."""
HYPERVISOR = "Simulator"


@dataclass(frozen=True)
class Capacity:
    """Of one pretended machine. memory and disk in bytes; image: bytes of a pretended image
    (virtual, on disk). memory_overcommit: guests' memory over the machine's, 1: none."""

    cpu: int = 32
    cpu_sockets: int = 2
    memory: int = 128 * 2**30
    memory_overcommit: float = 1.0
    disk: int = 2 * 2**40
    image: tuple[int, int] = (2 * 2**30, 300 * 2**20)


class Machine:
    """State and rules of one host."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.usage = Usage()
        self.storages = Shelf("storage", Storage)
        self.volumes = Shelf("volume", Volume, self.usage.stored)
        self.images = Shelf("image", StoredImage, self.usage.stored)
        self.bridges = Shelf("bridge", Bridge)
        self.subnets = Shelf("subnet", Subnet)
        self.addresses = Shelf("address", Address, self.usage.address)
        self.vms = Shelf("vm", Domain, self.usage.vm)
        self.notes = Shelf("note", Note)

    def changes(self) -> list[Change]:
        """What has to be saved since the last call."""
        return [change for shelf in self._shelves() for change in shelf.changes()]

    def load(self, kind: str, key: str, data: bytes) -> None:
        """Put back one saved record."""
        next(shelf for shelf in self._shelves() if shelf.kind == kind).load(key, data)

    def power(self) -> dict[str, VmPower]:
        return {uid: vm.power for uid, vm in self.vms.items()}

    def inventory(self) -> Inventory:
        return Inventory(
            vms=sorted(self.vms),
            volumes=sorted(self.volumes),
            images=sorted(self.images),
            bridges=sorted(self.bridges),
            taps=sorted(self.usage.taps),
            dhcp=sorted(key for key, a in self.addresses.items() if self._serves_dhcp(a.network)),
        )

    def boot(self, boot_id: str) -> None:
        """The machine restarts: guests that ran are off; definitions and disks stay."""
        self.notes.put("boot-id", Note(boot_id))
        for uid, vm in list(self.vms.items()):
            self.vms.put(uid, replace(vm, power="Stopped"))

    def crash(self, uid: str) -> None:
        """A guest dies by itself."""
        self.vms.put(uid, replace(self._vm(uid), power="Crashed"))

    # Storage

    def make_storage(self, path: str) -> StorageResult:
        _no_dots(path)
        self.storages.put(path, Storage(path))
        return StorageResult(total=self.capacity.disk, available=self.available())

    def available(self) -> int:
        """Bytes left on the disk."""
        return self.capacity.disk - self.usage.bytes

    def volume_create(self, resource: str, args: VolumeCreateArgs) -> VolumeResult:
        there = self.volumes.get(resource)
        if there is not None:
            return VolumeResult(path=there.path, size=there.size)
        self.check_storage(args.path)
        if args.adopt is not None:
            return self._adopt_volume(args.adopt, resource, args.path)
        if args.image is not None and args.image.virtual_size > args.size:
            raise DriverError(
                "invalid",
                f"a volume of {args.size} bytes cannot hold image {args.image.uid} of "
                f"{args.image.virtual_size} bytes; make it at least as large",
            )
        fetched = self._to_fetch(args.image)
        needed = QCOW2_OVERHEAD + sum(image.actual for _, image in fetched)
        if needed > self.available():
            raise DriverError(
                "no-space",
                f"{args.path} has {self.available()} bytes left and {needed} are needed; "
                "free some or use another host",
            )
        for uid, image in fetched:
            self.images.put(uid, replace(image, storage=args.path))
        path = f"{args.path}/volumes/{resource}.qcow2"
        base = args.image.uid if args.image else None
        self.volumes.put(resource, Volume(args.path, path, args.size, QCOW2_OVERHEAD, base))
        return VolumeResult(path=path, size=args.size)

    def volume_delete(self, resource: str, args: VolumeDeleteArgs) -> Empty:
        self._refuse_used(resource)
        self.volumes.drop(resource)
        return Empty()

    def _adopt_volume(self, old: str, new: str, storage: str) -> VolumeResult:
        self._refuse_used(old)
        known = self.volumes.get(old)
        if known is None or known.storage != storage:
            raise DriverError("not-found", f"there are no data of volume {old} in {storage}")
        self.volumes.drop(old)
        adopted = replace(known, path=f"{storage}/volumes/{new}.qcow2")
        self.volumes.put(new, adopted)
        return VolumeResult(path=adopted.path, size=adopted.size)

    def _refuse_used(self, volume: str) -> None:
        user = self.usage.disks.get(volume)
        if user is not None:
            raise DriverError(
                "conflict", f"volume {volume} is in use by VM {user}; stop it or detach the disk"
            )

    def image_prune(self, resource: str, args: CachePruneArgs) -> Empty:
        if resource not in self._bases():
            self.images.drop(resource)
        return Empty()

    def storage_remove(self, resource: str, args: StorageRemoveArgs) -> Empty:
        _no_dots(args.path)
        cached = [uid for uid, image in self.images.items() if image.storage == args.path]
        for uid in set(cached) - self._bases():
            self.images.drop(uid)
        if not any(volume.storage == args.path for _, volume in self.volumes.items()):
            self.storages.drop(args.path)
        return Empty()

    # Network

    def network_ensure(self, resource: str, args: NetworkArgs) -> Empty:
        bridge = self.bridges.get(args.bridge)
        if bridge is not None and bridge.id != args.bridge_id:
            raise DriverError(
                "conflict",
                f"bridge {args.bridge} belongs to network {bridge.id}, not {args.bridge_id}",
            )
        network = _cidr(args.cidr)
        subnet = Subnet(args.bridge, args.cidr, args.dhcp_server)
        there = self.subnets.get(resource) or subnet
        if (there.bridge, there.cidr) != (args.bridge, args.cidr):
            raise DriverError(
                "conflict",
                f"subnet {there.cidr} of network {resource} is on bridge {there.bridge}; "
                f"release it before it becomes {args.cidr} on {args.bridge}",
            )
        if args.lease is not None:
            self._check_lease(resource, args.lease, network)
            address = Address(resource, args.lease.mac, args.lease.ip)
            self.addresses.put(f"{resource}/{args.lease.mac}", address)
        if bridge is None:
            self.bridges.put(args.bridge, Bridge(args.bridge_id, args.physical_interface))
        if self.subnets.get(resource) != subnet:
            self.subnets.put(resource, subnet)
        return Empty()

    def network_release(self, resource: str, args: NetworkReleaseArgs) -> Empty:
        if args.mac is not None:
            self.addresses.drop(f"{resource}/{args.mac}")
        if args.mac is None or not self.usage.leases[resource]:
            self._drop_subnet(resource)
        used = any(other.bridge == args.bridge for _, other in self.subnets.items())
        if not used and not self.usage.on_bridge[args.bridge]:
            self.bridges.drop(args.bridge)
        return Empty()

    # VMs

    def vm_start(self, resource: str, args: VmArgs) -> VmResult:
        there = self.vms.get(resource)
        if there is not None and there.power in ("Running", "Paused"):
            return _result(there.power)
        if not args.disks:
            raise DriverError("invalid", f"VM {args.name} has no disk to boot from")
        _check_distinct("device", [disk.device for disk in args.disks])
        _check_distinct("volume", [disk.volume for disk in args.disks])
        _check_distinct("MAC", [nic.mac for nic in args.nics])
        _check_distinct("tap", [nic.device for nic in args.nics])
        for disk in args.disks:
            self._check_disk(resource, disk)
        for nic in args.nics:
            self._check_nic(resource, nic)
        self._check_memory(resource, args.memory)
        power: VmPower = "Paused" if args.paused else "Running"
        nics = [Nic(nic.mac, nic.bridge, nic.device) for nic in args.nics]
        disks = {disk.device: disk.volume for disk in args.disks}
        name = f"{args.namespace}/{args.name}"
        host, boot = args.hostname or "", args.boot_mode or ""
        domain = Domain(name, args.cpu, args.memory, power, disks, nics, host, boot)
        self.vms.put(resource, domain)
        return _result(power)

    def vm_remove(self, resource: str) -> VmResult:
        """Stop and destroy end alike: the definition goes, the disks stay."""
        self.vms.drop(resource)
        return _result("Stopped")

    def vm_reboot(self, resource: str) -> VmResult:
        vm = self._vm(resource)
        if vm.power != "Running":
            raise _wrong_power(resource, vm, "Running")
        return _result("Running")

    def vm_pause(self, resource: str) -> VmResult:
        return self._switch(resource, "Running", "Paused")

    def vm_resume(self, resource: str) -> VmResult:
        return self._switch(resource, "Paused", "Running")

    def vm_attach_disk(self, resource: str, disk: Disk) -> VmResult:
        vm = self._vm(resource)
        if vm.disks.get(disk.device) != disk.volume:
            if disk.device in vm.disks or disk.volume in vm.disks.values():
                raise DriverError(
                    "conflict",
                    f"VM {resource} has {vm.disks}; neither {disk.device} nor volume "
                    f"{disk.volume} can be attached twice",
                )
            self._check_disk(resource, disk)
            self.vms.put(resource, replace(vm, disks={**vm.disks, disk.device: disk.volume}))
        return _result(vm.power)

    def vm_detach_disk(self, resource: str, disk: Disk) -> VmResult:
        vm = self._vm(resource)
        left = {device: uid for device, uid in vm.disks.items() if uid != disk.volume}
        if not left:
            raise DriverError("conflict", f"{disk.device} is the only disk of VM {resource}")
        self.vms.put(resource, replace(vm, disks=left))
        return _result(vm.power)

    def vm_attach_nic(self, resource: str, nic: NicDevice) -> VmResult:
        vm = self._vm(resource)
        if all(other.mac != nic.mac for other in vm.nics):
            self._check_nic(resource, nic)
            _check_distinct("tap", [nic.device, *(other.device for other in vm.nics)])
            nics = [*vm.nics, Nic(nic.mac, nic.bridge, nic.device)]
            self.vms.put(resource, replace(vm, nics=nics))
        return _result(vm.power)

    def vm_detach_nic(self, resource: str, nic: NicDevice) -> VmResult:
        vm = self._vm(resource)
        self.vms.put(resource, replace(vm, nics=[n for n in vm.nics if n.mac != nic.mac]))
        return _result(vm.power)

    # Rules

    def _shelves(self) -> tuple[Shelf[Any], ...]:
        return (
            self.storages,
            self.volumes,
            self.images,
            self.bridges,
            self.subnets,
            self.addresses,
            self.vms,
            self.notes,
        )

    def _bases(self) -> set[str]:
        """Images that volumes are over."""
        return {volume.image for _, volume in self.volumes.items() if volume.image}

    def _serves_dhcp(self, network: str) -> bool:
        subnet = self.subnets.get(network)
        return subnet is not None and subnet.dhcp_server is not None

    def _drop_subnet(self, uid: str) -> None:
        for key in [key for key, a in self.addresses.items() if a.network == uid]:
            self.addresses.drop(key)
        self.subnets.drop(uid)

    def _vm(self, uid: str) -> Domain:
        vm = self.vms.get(uid)
        if vm is None:
            raise DriverError("not-found", f"no VM {uid} is defined on this host; start it first")
        return vm

    def _switch(self, uid: str, before: VmPower, after: VmPower) -> VmResult:
        vm = self._vm(uid)
        if vm.power not in (before, after):
            raise _wrong_power(uid, vm, before)
        self.vms.put(uid, replace(vm, power=after))
        return _result(after)

    def _to_fetch(self, image: ImageSource | None) -> list[tuple[str, StoredImage]]:
        if image is None or image.uid in self.images:
            return []
        actual = min(self.capacity.image[1], image.virtual_size)
        cached = StoredImage("", image.file, image.virtual_size, actual, image.checksum)
        return [(image.uid, cached)]

    def check_storage(self, path: str) -> None:
        """Raises DriverError unless the directory was made ready."""
        _no_dots(path)
        if path not in self.storages:
            raise DriverError(
                "not-found", f"{path} is no storage of this host; storage.ensure makes it one"
            )

    def _check_disk(self, uid: str, disk: Disk) -> None:
        volume = self.volumes.get(disk.volume)
        if volume is None or volume.path != disk.path:
            raise DriverError("not-found", f"disk {disk.device}: there is no file {disk.path}")
        user = self.usage.disks.get(disk.volume)
        if user not in (None, uid):
            raise DriverError(
                "conflict", f"disk {disk.device}: volume {disk.volume} is in use by VM {user}"
            )

    def _check_nic(self, uid: str, nic: NicDevice) -> None:
        if nic.bridge not in self.bridges:
            raise DriverError(
                "not-found", f"NIC {nic.mac}: there is no bridge {nic.bridge}; network.ensure first"
            )
        holder = self.usage.ports.get((nic.bridge, nic.mac), uid)
        if holder != uid:
            raise DriverError(
                "conflict", f"MAC {nic.mac} is VM {holder}'s on bridge {nic.bridge} already"
            )
        holder = self.usage.taps.get(nic.device, uid)
        if holder != uid:
            raise DriverError("conflict", f"tap {nic.device} is VM {holder}'s already")

    def _check_lease(self, uid: str, lease: Lease, network: Network) -> None:
        try:
            inside = ipaddress.ip_address(lease.ip) in network
        except ValueError as error:
            raise DriverError("invalid", f"lease.ip: {error}") from None
        if not inside:
            raise DriverError("invalid", f"lease.ip: {lease.ip} is not in {network}")
        holder = self.usage.addresses.get((uid, lease.ip), lease.mac)
        if holder != lease.mac:
            raise DriverError(
                "conflict", f"{lease.ip} is leased to {holder} on this network already"
            )

    def _check_memory(self, uid: str, memory: int) -> None:
        there = self.vms.get(uid)
        used = self.usage.memory - (memory_of(there) if there else 0)
        limit = int(self.capacity.memory * self.capacity.memory_overcommit)
        if used + memory > limit:
            raise DriverError(
                "hypervisor",
                f"cannot set up guest memory: {memory} bytes asked for, {limit - used} of {limit} "
                "left; start it on another host",
            )


def _result(power: VmPower) -> VmResult:
    return VmResult(state=power, hypervisor=HYPERVISOR)


def _wrong_power(uid: str, vm: Domain, wanted: str) -> DriverError:
    return DriverError("conflict", f"VM {uid} is {vm.power}, not {wanted}")


def _check_distinct(what: str, values: list[str]) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise DriverError("conflict", f"{what} {twice} is given to the VM twice")


def _no_dots(path: str) -> None:
    if any(part in (".", "..") for part in path.split("/")):
        raise DriverError("invalid", f"path {path} must not contain . or .. parts")


def _cidr(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise DriverError("invalid", f"cidr: {error}") from None
