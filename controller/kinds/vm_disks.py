"""Steps that deal with a VM's disks. The bits are made and removed by the Volume's actuator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from agents.wire import Disk, VmDiskArgs, VmResult
from controller.errors import Terminal, Waiting
from controller.kinds.primary_storage import STORAGE
from controller.kinds.support import (
    RETRY_FAILED,
    answers,
    key_of,
    on_host,
    on_host_if_there,
    together,
)
from controller.kinds.vm_model import (
    ROOT,
    WantedDisk,
    disk_devices,
    home,
    host_of,
    is_created,
    made_by,
    named,
    new_disks,
    placed_host,
    stale_disks,
    volume_name,
    volume_of,
    wanted_disks,
)
from controller.kinds.volume_place import claim_owner
from controller.reconcile.actuator import Context
from controller.rights import on
from controller.workflow.step import Scope, Step
from crds.refs import ObjectRef
from crds.v1alpha1.host import Host
from crds.v1alpha1.virtual_machine import DiskStatus, VirtualMachine
from crds.v1alpha1.volume import Volume

RIGHTS = (on(Volume, "create", "delete", "get", "patch"),)


class CreateVolumes(Step):
    """A Volume object for each new disk, bound to the VM's host; existing ones are bound to it.

    A disk without a device in ``status.disks`` was never plugged in: rolling back removes it and,
    if this VM made it, its Volume.
    """

    name = "create-volumes"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = home(vm, ctx)
        disks = new_disks(vm, ctx.store) if is_created(vm) else wanted_disks(vm)
        known = {disk.name for disk in vm.status.disks}
        volumes = await together(_provide(scope, disk, host) for disk in disks)
        for disk, volume in zip(disks, volumes, strict=True):
            if disk.root:
                vm.status.primary_storage_ref = volume.spec.primary_storage_ref
            if disk.name not in known:
                ref = ObjectRef(name=disk.volume)
                vm.status.disks.append(
                    DiskStatus(name=disk.name, volume_ref=ref, root=disk.root, owned=disk.owned)
                )

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        vm.status.disks = [disk for disk in vm.status.disks if disk.device]
        kept = {disk.volume_ref.name for disk in vm.status.disks}
        names = [d.volume for d in wanted_disks(vm) if d.make is not None and d.volume not in kept]
        await remove_volumes(vm, names, ctx)


class AwaitVolumes(Step):
    """Pause until the disks are there. Raises Terminal if one cannot be made on this host."""

    name = "await-volumes"
    no_rollback = "it only waits"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        for disk in vm.status.disks:
            _check(volume_of(vm, disk.volume_ref.name, ctx.store), disk.volume_ref.name)


class AttachDisks(Step):
    """Plug the disks that have no device yet into the running guest."""

    name = "attach-disks"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = host_of(vm, ctx.store)
        if host is None:
            return
        devices = disk_devices(vm.status.disks)
        for disk in [disk for disk in vm.status.disks if not disk.device]:
            args = VmDiskArgs(disk=_wire(vm, disk, devices[disk.name], ctx))
            await on_host(scope, host, "vm.attach-disk", args, VmResult, part=disk.name)
            disk.device = devices[disk.name]
            ctx.events.normal(vm, "DiskAttached", f"{disk.name} as {disk.device}")

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = await placed_host(scope)
        if host is None or not await answers(host, ctx):
            return
        devices = disk_devices(vm.status.disks)
        for disk in [disk for disk in vm.status.disks if not disk.device]:
            volume = volume_of(vm, disk.volume_ref.name, ctx.store)
            if volume is not None and volume.status.path:
                args = VmDiskArgs(disk=_wire(vm, disk, devices[disk.name], ctx))
                part = f"undo-{disk.name}"
                await on_host_if_there(scope, host, "vm.detach-disk", args, part=part)


class DetachDisks(Step):
    """Unplug the disks that are to go, and let their volumes go."""

    name = "detach-disks"
    no_rollback = "what the spec does not want any more is not plugged in again"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = host_of(vm, ctx.store)
        for disk in stale_disks(vm, ctx.store):
            if host is not None and await answers(host, ctx) and disk.device:
                args = VmDiskArgs(disk=_wire(vm, disk, disk.device, ctx))
                await on_host_if_there(scope, host, "vm.detach-disk", args, part=disk.name)
            vm.status.disks.remove(disk)
            ctx.events.normal(vm, "DiskDetached", f"{disk.name}, volume {disk.volume_ref.name}")


class DeleteVolumes(Step):
    """Let go of all volumes, and delete those that go with the VM. Waits until they are gone."""

    name = "delete-volumes"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        owned = owned_volumes(vm)
        vm.status.disks = []
        await remove_volumes(vm, sorted(owned), ctx)
        for name in owned:
            owner = claim_owner(vm.metadata.namespace or "", name)
            if volume_of(vm, name, ctx.store) is None:
                await ctx.ledger.release(owner, STORAGE)


def owned_volumes(vm: VirtualMachine) -> set[str]:
    """Names of the volumes that go with ``vm``."""
    owned = {d.volume_ref.name for d in vm.status.disks if d.owned}
    owned |= {volume_name(vm.name, ROOT)}
    return owned | {volume_name(vm.name, d.name) for d in vm.spec.data_disks if d.delete_with_vm}


async def remove_volumes(vm: VirtualMachine, names: Iterable[str], ctx: Context) -> None:
    """Delete those volumes that ``vm`` made. Raises Waiting until they are gone."""
    found = [volume_of(vm, name, ctx.store) for name in names]
    mine = [volume for volume in found if volume is not None and made_by(vm, volume)]
    await together(ctx.objects.delete(volume) for volume in mine if not volume.deleting)
    left = [v.name for v in mine if volume_of(vm, v.name, ctx.store) is not None]
    if left:
        raise Waiting(f"volume {', '.join(left)} is being deleted", reason="DeletingVolumes")


def wire_disks(vm: VirtualMachine, ctx: Context) -> list[Disk]:
    """All disks as the agent starts the VM with, root first."""
    devices = disk_devices(vm.status.disks)
    disks = sorted(vm.status.disks, key=lambda d: devices[d.name])
    return [_wire(vm, disk, devices[disk.name], ctx) for disk in disks]


def _wire(vm: VirtualMachine, disk: DiskStatus, device: str, ctx: Context) -> Disk:
    name = disk.volume_ref.name
    volume = volume_of(vm, name, ctx.store)
    # In the middle of a flow it may have a path, and lose it again by the rollback.
    if volume is None or not volume.status.path or volume.status.workflow is not None:
        raise Waiting(f"volume {name} is not there", reason="WaitingForVolume")
    form = "raw" if volume.status.format == "raw" else "qcow2"
    return Disk(volume=volume.uid, path=volume.status.path, device=device, format=form)


async def _provide(scope: Scope[VirtualMachine], disk: WantedDisk, host: Host) -> Volume:
    """The disk's Volume, made or found, bound to ``host``."""
    vm, ctx = scope.obj, scope.ctx
    volume = volume_of(vm, disk.volume, ctx.store)
    if volume is None:
        volume = await _make(scope, disk, host)
    _check_use(vm, disk, volume, ctx)
    if volume.spec.host_ref is None:
        volume = await _bind(volume, host, await _claimed_storage(scope, disk), ctx)
    if named(volume.spec.host_ref) != host.name:
        raise Terminal(
            f"volume {volume.name} is on host {named(volume.spec.host_ref)}, the VM on {host.name}",
            reason="VolumeElsewhere",
        )
    return volume


async def _make(scope: Scope[VirtualMachine], disk: WantedDisk, host: Host) -> Volume:
    if disk.make is None:
        raise Waiting(f"Volume {disk.volume} does not exist")
    storage = await _claimed_storage(scope, disk)
    volume = disk.make()
    volume.spec.host_ref = ObjectRef(name=host.name)
    volume.spec.primary_storage_ref = ObjectRef(name=storage) if storage else None
    return cast(Volume, await scope.ctx.objects.create(volume))


def _check_use(vm: VirtualMachine, disk: WantedDisk, volume: Volume, ctx: Context) -> None:
    """May the VM use ``volume``? Raises Waiting or Terminal otherwise."""
    if volume.deleting:
        raise Waiting(f"an old volume {volume.name} is being deleted", reason="DeletingVolumes")
    if disk.make is not None and not made_by(vm, volume):
        raise Terminal(
            f"there is a volume {volume.name} already; attach it as a data disk by volumeRef, "
            "delete it, or rename the VM or disk",
            reason="VolumeExists",
        )
    _refuse_shared(vm, volume, ctx)


def _refuse_shared(vm: VirtualMachine, volume: Volume, ctx: Context) -> None:
    for user, ref in ctx.store.users(key_of(volume), "VirtualMachine"):
        if ref.path[0] == "status" and user != key_of(vm):
            raise Waiting(
                f"volume {volume.name} is attached to VM {user.name}; detach it there",
                reason="VolumeInUse",
                retry_after=RETRY_FAILED,
            )


async def _bind(volume: Volume, host: Host, storage: str | None, ctx: Context) -> Volume:
    """Bind a user's volume to a host, for good: its bits are made there."""
    spec: dict[str, object] = {"hostRef": {"name": host.name}}
    if storage and volume.spec.primary_storage_ref is None:
        spec["primaryStorageRef"] = {"name": storage}
    return cast(Volume, await ctx.objects.patch(key_of(volume), {"spec": spec}))


async def _claimed_storage(scope: Scope[VirtualMachine], disk: WantedDisk) -> str | None:
    """The primary storage on which allocation claimed the disk's space: it told us in this pass,
    or the ledger knows."""
    ctx = scope.ctx
    owner = claim_owner(scope.obj.metadata.namespace or "", disk.volume)
    if owner in (scope.data or {}):
        return str((scope.data or {})[owner])
    claims = await ctx.ledger.claims(owner=owner, prefix=STORAGE)
    uids = {claim.scope.split("/")[1] for claim in claims}
    return next((s.name for s in ctx.store.list("PrimaryStorage") if s.uid in uids), None)


def _check(volume: Volume | None, name: str) -> None:
    """Raises Waiting or Terminal unless the volume is there."""
    if volume is None or volume.deleting:
        raise Waiting(f"volume {name} does not exist", reason="WaitingForVolume")
    if volume.status.state == "Ready":
        return
    if volume.status.state in ("", "NotInstantiated", "Creating"):
        raise Waiting(f"volume {name} is being made", reason="WaitingForVolume")
    ready = volume.condition("Ready")
    why = ready.message if ready and ready.message else volume.status.state
    if volume.status.state == "Error":
        raise Terminal(f"volume {name}: {why}", reason="VolumeFailed")
    raise Waiting(f"volume {name}: {why}", reason="WaitingForVolume")
