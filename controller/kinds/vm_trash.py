"""A VM's way into the trash and out of it (``controller.kinds.trash``).

Its owned volumes go into the trash with it, in one item. A recovered VM makes them again, each of
which takes over its data; a volume that the VM made but that outlived it is its again; a user's
volumes were never its. It asks for the addresses that it had; what others got meanwhile is
replaced.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from controller.errors import Exhausted, Terminal
from controller.kinds.l3_network import claim_ip
from controller.kinds.support import RETRY_FAILED, key_of, together
from controller.kinds.trash import (
    KEPT_BY,
    RECOVER_DISK,
    RECOVER_FROM,
    adopt,
    is_delayed,
    item_kept,
    keep,
    manifest,
    recovers,
)
from controller.kinds.vm_disks import owned_volumes
from controller.kinds.vm_model import (
    ROOT,
    VM_UID,
    is_created,
    live_nics,
    made_by,
    made_volume,
    nic_owner,
    show_first_ip,
    volume_name,
    volume_of,
    wanted_disks,
)
from controller.kinds.vm_networks import MACS
from controller.kinds.volume_trash import trashed
from controller.reconcile.actuator import Context
from controller.workflow.step import Scope, Step
from crds.refs import ObjectRef
from crds.v1alpha1.trash_item import TrashedDisk, TrashedNic, TrashItem
from crds.v1alpha1.virtual_machine import DiskStatus, NicStatus, VirtualMachine
from crds.v1alpha1.volume import Volume

DESTROYING = ("vm-destroy", "vm-trash")


def destroying(vm: VirtualMachine, ctx: Context) -> str:
    """The flow that deletes ``vm``: what was begun is finished."""
    running = ctx.flows.running(vm)
    if running in DESTROYING:
        return running
    return "vm-trash" if is_created(vm) and is_delayed(vm, ctx) else "vm-destroy"


class KeepInTrash(Step):
    """Write down what is to be kept, then tell the volumes that their data are no longer theirs.

    The mark is on the volume before it is deleted, so whoever sees the deletion sees the mark. Its
    owner reference goes: a garbage collector must not judge the volume by a VM that is gone.
    """

    name = "keep-in-trash"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        disks = _disks(vm, ctx)
        if not any(disk.name == ROOT for disk in disks) and not item_kept(vm, ctx):
            return  # it was still being made, or all of this was done before
        item = await keep(vm, ctx, disks=disks, nics=_nics(vm))
        if item is None:
            return
        marks = {"annotations": {KEPT_BY: item.name}, "ownerReferences": None}
        found = [volume_of(vm, disk.volume, ctx.store) for disk in item.spec.disks]
        mine = [volume for volume in found if volume is not None and made_by(vm, volume)]
        await together(ctx.objects.patch(key_of(v), {"metadata": marks}) for v in mine)
        ctx.events.normal(vm, "Trashed", f"kept in TrashItem {item.name}")


def _disks(vm: VirtualMachine, ctx: Context) -> list[TrashedDisk]:
    """What can be kept of the volumes that go with it, the root disk first."""
    owned, found = owned_volumes(vm), []
    for disk in sorted(vm.status.disks, key=lambda d: not d.root):
        volume = volume_of(vm, disk.volume_ref.name, ctx.store)
        if volume is not None and volume.name in owned and made_by(vm, volume):
            found.append(trashed(volume, disk=disk.name, owned=disk.owned))
    return [disk for disk in found if disk is not None]


def _nics(vm: VirtualMachine) -> list[TrashedNic]:
    return [
        TrashedNic(name=nic.name, network=nic.l3_network_ref.name, mac=nic.mac, ip=nic.ip)
        for nic in vm.status.nics
    ]


# -- out of the trash


def to_be_recovered(vm: VirtualMachine, ctx: Context) -> bool:
    return recovers(vm) and not is_created(vm) and ctx.flows.running(vm) is None


async def restore(vm: VirtualMachine, ctx: Context) -> None:
    """Make ``vm`` a stopped VM with the disks and addresses that the item has. Raises Terminal,
    and what the ledger and the API raise; it runs again from the start then."""
    item = await adopt(vm, ctx)
    if not any(disk.name == ROOT for disk in item.spec.disks):
        raise Terminal(
            f"TrashItem {item.name} has no root disk",
            reason="CannotRecover",
            retry_after=RETRY_FAILED,
        )
    await together(_remake(vm, item, disk, ctx) for disk in item.spec.disks)
    await _take_back(vm, item, ctx)
    vm.status.nics = [nic for nic in [await _nic(vm, n, ctx) for n in item.spec.nics] if nic]
    show_first_ip(vm)
    root = next(disk for disk in item.spec.disks if disk.name == ROOT)
    _settle(vm, item, root, ctx)
    ctx.events.normal(vm, "Recovered", f"what was VM {item.spec.subject.name}")


def _settle(vm: VirtualMachine, item: TrashItem, root: TrashedDisk, ctx: Context) -> None:
    status, storage = vm.status, ctx.store.get("PrimaryStorage", root.primary_storage_ref.name)
    status.primary_storage_ref = root.primary_storage_ref
    status.zone_ref = storage.spec.zone_ref if storage else None
    status.last_host = root.host_ref.name
    status.disks = [
        DiskStatus(
            name=disk.name,
            volume_ref=ObjectRef(name=volume_name(vm.name, disk.name)),
            root=disk.name == ROOT,
            owned=disk.owned,
        )
        for disk in item.spec.disks
    ]
    status.state = "Stopped"


async def _remake(vm: VirtualMachine, item: TrashItem, disk: TrashedDisk, ctx: Context) -> None:
    """The Volume that takes the data over, made or found."""
    kept = Volume.model_validate(manifest(disk.manifest))
    places = {"host_ref": disk.host_ref, "primary_storage_ref": disk.primary_storage_ref}
    spec = kept.spec.model_copy(update=places)
    volume = made_volume(vm, disk.name, spec, owned=disk.owned)
    volume.metadata.labels = kept.metadata.labels
    marks = {RECOVER_FROM: item.name, RECOVER_DISK: disk.name}
    volume.metadata.annotations = {
        **kept.metadata.annotations,
        **volume.metadata.annotations,
        **marks,
    }
    made = await ctx.objects.create(volume)
    if not made_by(vm, made):
        raise Terminal(
            f"there is a volume {made.name} already; recover the VM under another name",
            reason="VolumeExists",
            retry_after=RETRY_FAILED,
        )


async def _take_back(vm: VirtualMachine, item: TrashItem, ctx: Context) -> None:
    """Volumes that the VM made and that stayed when it was deleted."""
    for disk in wanted_disks(vm):
        volume = volume_of(vm, disk.volume, ctx.store) if disk.make is not None else None
        if volume is not None and volume.metadata.annotations.get(VM_UID) == item.spec.subject.uid:
            marks = {"annotations": {VM_UID: vm.uid}}
            await ctx.objects.patch(key_of(volume), {"metadata": marks})


async def _nic(vm: VirtualMachine, nic: TrashedNic, ctx: Context) -> NicStatus | None:
    """The NIC with the addresses that it had; None where it gets new ones at the next start."""
    live = {spec.name: l3 for spec, l3 in live_nics(vm, ctx.store)}
    l3 = live.get(nic.name)
    if l3 is None or l3.name != nic.network or not (nic.mac and nic.ip):
        return None
    owner = nic_owner(vm, nic.name)
    try:
        await ctx.ledger.claim_value(MACS, owner, nic.mac)
        await claim_ip(l3, owner, ctx, wanted=int(IPv4Address(nic.ip)))
    except Exhausted:
        await ctx.ledger.release(owner, MACS)
        why = f"NIC {nic.name} had {nic.mac} and {nic.ip}, which another has now; it gets others"
        ctx.events.warning(vm, "AddressTaken", why)
        return None
    ref = ObjectRef(name=l3.name)
    return NicStatus(name=nic.name, l3_network_ref=ref, mac=nic.mac, ip=nic.ip)
