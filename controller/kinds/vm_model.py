"""What a VirtualMachine means: its size, its disks, its NICs and where it is. No I/O but reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from controller.errors import Terminal, Waiting
from controller.kinds.support import digest
from controller.kinds.vm_tags import wanted_nics
from controller.reconcile.actuator import Context, Store
from controller.workflow.step import Scope
from crds.base import API_VERSION, FINALIZER, GROUP, ObjectMeta, OwnerReference, parse_quantity
from crds.refs import ObjectRef
from crds.v1alpha1.host import Host
from crds.v1alpha1.l3_network import L3Network
from crds.v1alpha1.virtual_machine import DataDisk, DiskStatus, Nic, NicStatus, VirtualMachine
from crds.v1alpha1.volume import Volume, VolumeSpec

ROOT = "root"
VM_NAME = f"{GROUP}/vm"
VM_UID = f"{GROUP}/vm-uid"
"""Annotations of a volume that a VM made: whose it is, even after the VM is gone."""

_MAX_NAME = 63


# -- size


def size_of(vm: VirtualMachine, store: Store) -> tuple[int, int]:
    """(vCPUs, bytes of memory) of the next start. A deleted offering leaves what was before."""
    spec, status = vm.spec, vm.status
    if spec.instance_offering_ref is not None:
        offering = store.get("InstanceOffering", spec.instance_offering_ref.name)
        if offering is not None:
            return offering.spec.cpu, offering.spec.memory
        if not status.memory:
            raise Waiting(f"InstanceOffering {spec.instance_offering_ref.name} does not exist")
        return status.cpu, parse_quantity(status.memory)
    if spec.cpu is None or spec.memory is None:
        raise Terminal("give an instanceOfferingRef, or both cpu and memory", reason="InvalidSpec")
    return spec.cpu, spec.memory


# -- disks


@dataclass(frozen=True)
class WantedDisk:
    """A disk that the spec asks for. ``make`` returns the Volume to create (which most looks at a
    VM do not ask for); None: it is the user's."""

    name: str
    volume: str
    owned: bool = False
    make: Callable[[], Volume] | None = None

    @property
    def root(self) -> bool:
        return self.name == ROOT


def wanted_disks(vm: VirtualMachine) -> list[WantedDisk]:
    """The root disk, then the data disks (but for one that takes the root disk's name)."""
    data = [disk for disk in vm.spec.data_disks if disk.name != ROOT]
    return [_root_disk(vm), *(_data_disk(vm, disk) for disk in data)]


def _root_disk(vm: VirtualMachine) -> WantedDisk:
    def make() -> Volume:
        root = vm.spec.root_disk
        spec = VolumeSpec(
            type="Root",
            image_ref=vm.spec.image_ref,
            size=root.size,
            disk_offering_ref=root.disk_offering_ref,
            primary_storage_ref=root.primary_storage_ref,
        )
        return made_volume(vm, ROOT, spec, owned=True)

    return WantedDisk(ROOT, volume_name(vm.name, ROOT), owned=True, make=make)


def _data_disk(vm: VirtualMachine, disk: DataDisk) -> WantedDisk:
    if disk.volume_ref is not None:
        return WantedDisk(disk.name, disk.volume_ref.name)

    def make() -> Volume:
        spec = VolumeSpec(type="Data", size=disk.size, disk_offering_ref=disk.disk_offering_ref)
        return made_volume(vm, disk.name, spec, owned=disk.delete_with_vm)

    return WantedDisk(disk.name, volume_name(vm.name, disk.name), disk.delete_with_vm, make)


def made_volume(vm: VirtualMachine, disk: str, spec: VolumeSpec, *, owned: bool) -> Volume:
    """The Volume that ``vm`` makes for a disk."""
    owner = OwnerReference(
        api_version=API_VERSION, kind="VirtualMachine", name=vm.name, uid=vm.uid, controller=True
    )
    meta = ObjectMeta(
        name=volume_name(vm.name, disk),
        namespace=vm.metadata.namespace,
        finalizers=[FINALIZER],
        annotations={VM_NAME: vm.name, VM_UID: vm.uid},
        owner_references=[owner] if owned else [],
    )
    return Volume(kind="Volume", metadata=meta, spec=spec)


def volume_name(vm: str, disk: str) -> str:
    """``<vm>-<disk>``, shortened to what a name may be."""
    name = f"{vm}-{disk}"
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 11]}-{digest(name)}"


def made_by(vm: VirtualMachine, volume: Volume | None) -> bool:
    return volume is not None and volume.metadata.annotations.get(VM_UID) == vm.uid


def volume_of(vm: VirtualMachine, name: str, store: Store) -> Volume | None:
    found: Volume | None = store.get("Volume", name, vm.metadata.namespace or "")
    return found


def disk_devices(disks: Iterable[DiskStatus]) -> dict[str, str]:
    """Disk → device in the guest. What has one keeps it; root is vda, others take the next."""
    devices = {d.name: d.device for d in disks if d.device}
    names = (f"vd{chr(ord('a') + i)}" for i in range(26))
    free = [name for name in names if name not in devices.values()]
    for disk in sorted(disks, key=lambda d: not d.root):
        if disk.name not in devices:
            devices[disk.name] = free.pop(0)
    return devices


def is_created(vm: VirtualMachine) -> bool:
    """Does it have a root disk? Then no missing image or offering keeps it from living on."""
    return any(disk.root for disk in vm.status.disks)


def stale_disks(vm: VirtualMachine, store: Store) -> list[DiskStatus]:
    """Data disks to detach: no longer in the spec, or their volume is being deleted."""
    wanted = {disk.name: disk.volume for disk in wanted_disks(vm)}
    return [
        disk
        for disk in vm.status.disks
        if not disk.root
        and (
            wanted.get(disk.name) != disk.volume_ref.name
            or going(volume_of(vm, disk.volume_ref.name, store))
        )
    ]


def new_disks(vm: VirtualMachine, store: Store) -> list[WantedDisk]:
    """Data disks to attach: those that the spec has more. A volume that goes is none."""
    present = {disk.name for disk in vm.status.disks if disk.device or not vm.status.host_ref}
    return [
        disk
        for disk in wanted_disks(vm)
        if disk.name not in present and not _cannot_come(vm, disk, store)
    ]


def _cannot_come(vm: VirtualMachine, disk: WantedDisk, store: Store) -> bool:
    volume = volume_of(vm, disk.volume, store)
    if disk.make is None:
        return volume is None or volume.deleting
    return volume is not None and volume.deleting


# -- NICs


def nic_owner(vm: VirtualMachine, nic: str) -> str:
    """Who owns a NIC's MAC and address in the ledger."""
    return f"{vm.uid}/{nic}"


def tap_name(vm: VirtualMachine, nic: str) -> str:
    return "vn" + digest(vm.uid, nic)


def live_nics(vm: VirtualMachine, store: Store) -> list[tuple[Nic, L3Network]]:
    """NICs of the spec whose network is there and stays, and reaches where the VM runs."""
    found = [(nic, store.get("L3Network", nic.l3_network_ref.name)) for nic in wanted_nics(vm)]
    return [
        (nic, l3)
        for nic, l3 in found
        if l3 is not None and not l3.deleting and _reaches(l3, vm.status.cluster_ref, store)
    ]


def _reaches(l3: L3Network, cluster: ObjectRef | None, store: Store) -> bool:
    """Is the network attached to the cluster? Of an L2 network that is not there, nothing is
    known, and nothing is unplugged for it."""
    l2 = store.get("L2Network", l3.spec.l2_network_ref.name)
    if cluster is None or l2 is None:
        return True
    return any(ref.name == cluster.name for ref in l2.spec.cluster_refs)


def skipped_nics(vm: VirtualMachine, store: Store) -> list[str]:
    """For people: NICs that cannot be, and why."""
    live = {nic.name for nic, _ in live_nics(vm, store)}
    return [
        f"NIC {nic.name} waits for L3Network {nic.l3_network_ref.name}, which "
        + ("is not in this cluster" if _is_there(nic, store) else "does not exist")
        for nic in vm.spec.nics
        if nic.name not in live
    ]


def _is_there(nic: Nic, store: Store) -> bool:
    return not going(store.get("L3Network", nic.l3_network_ref.name))


def stale_nics(vm: VirtualMachine, store: Store) -> list[NicStatus]:
    """NICs to detach: no longer in the spec, specified anew, or their network is going."""
    live = {nic.name: (nic, l3) for nic, l3 in live_nics(vm, store)}
    gone = (None, None)
    return [nic for nic in vm.status.nics if not _as_specified(nic, *live.get(nic.name, gone))]


def _as_specified(nic: NicStatus, spec: Nic | None, l3: L3Network | None) -> bool:
    return (
        spec is not None
        and l3 is not None
        and (spec.ip is not None or _in_ranges(nic.ip, l3))
        and spec.l3_network_ref.name == nic.l3_network_ref.name
        and (spec.ip is None or nic.ip in ("", spec.ip))
        and (spec.mac is None or nic.mac in ("", spec.mac))
    )


def _in_ranges(ip: str, l3: L3Network) -> bool:
    """Is an address that was given out still one to give out? A range that was taken away takes
    its NICs' addresses along: they get others."""
    spans = [(IPv4Address(span.start), IPv4Address(span.end)) for span in l3.spec.ranges]
    return not ip or not spans or any(a <= IPv4Address(ip) <= b for a, b in spans)


def new_nics(vm: VirtualMachine, store: Store) -> list[Nic]:
    """NICs to attach."""
    done = {n.name for n in vm.status.nics if n.ip and (n.device or not vm.status.host_ref)}
    return [nic for nic, _ in live_nics(vm, store) if nic.name not in done]


def show_first_ip(vm: VirtualMachine) -> None:
    vm.status.ip = next((nic.ip for nic in vm.status.nics if nic.ip), "")


# -- place


def host_of(vm: VirtualMachine, store: Store) -> Host | None:
    """The host that its status names, if that is in the API."""
    ref = vm.status.host_ref
    found: Host | None = store.get("Host", ref.name) if ref else None
    return found


async def placed_host(scope: Scope[Any]) -> Host | None:
    """Where the VM is, or was about to be when a controller died before it wrote that down."""
    vm, ctx = scope.obj, scope.ctx
    if vm.status.host_ref is not None:
        return host_of(vm, ctx.store)
    claims = await ctx.ledger.claims(owner=vm.uid, prefix="host/")
    uids = {claim.scope.partition("/")[2] for claim in claims}
    return next((host for host in ctx.store.list("Host") if host.uid in uids), None)


def home(vm: VirtualMachine, ctx: Context) -> Host:
    """The host for its disks: where it runs, or (stopped) where its root disk is.

    Raises Waiting while that is not in the API.
    """
    name = vm.status.host_ref.name if vm.status.host_ref else _root_host(vm, ctx.store)
    host: Host | None = ctx.store.get("Host", name) if name else None
    if host is None:
        raise Waiting(f"host {name or 'of its root disk'} does not exist", reason="HostMissing")
    return host


def _root_host(vm: VirtualMachine, store: Store) -> str:
    root = next((d for d in vm.status.disks if d.root), None)
    volume = volume_of(vm, root.volume_ref.name, store) if root else None
    return volume.spec.host_ref.name if volume and volume.spec.host_ref else ""


def named(ref: ObjectRef | None) -> str | None:
    return ref.name if ref else None


def going(obj: Any) -> bool:
    return obj is None or obj.deleting
