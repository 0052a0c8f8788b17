"""A volume's way into the trash and out of it (``controller.kinds.trash``)."""

from __future__ import annotations

from agents.wire import VolumeCreateArgs, VolumeResult
from controller.errors import AgentFailed, Terminal, Waiting
from controller.kinds.primary_storage import STORAGE
from controller.kinds.support import RETRY_FAILED, key_of, on_host
from controller.kinds.trash import (
    KEPT_BY,
    RECOVER_DISK,
    adopt,
    is_delayed,
    is_mine,
    item_of,
    keep,
    manifest_of,
    recovers,
    trash_owner,
)
from controller.kinds.vm_model import VM_UID
from controller.kinds.volume_place import (
    owner_of,
    placed,
    reachable,
    show_bits,
    show_no_bits,
    tell_left_behind,
)
from controller.reconcile.actuator import Context
from controller.workflow.step import Scope, Step
from crds.v1alpha1.host import Host
from crds.v1alpha1.primary_storage import PrimaryStorage
from crds.v1alpha1.trash_item import TrashedDisk
from crds.v1alpha1.volume import Volume

# -- into the trash


def trashed(volume: Volume, *, disk: str = "", owned: bool = False) -> TrashedDisk | None:
    """What a TrashItem says of ``volume``; None if there are no data to keep."""
    spec, status = volume.spec, volume.status
    if not status.path or spec.host_ref is None or spec.primary_storage_ref is None:
        return None
    return TrashedDisk(
        name=disk or volume.name,
        volume=volume.name,
        uid=volume.uid,
        manifest=manifest_of(volume),
        owned=owned,
        host_ref=spec.host_ref,
        primary_storage_ref=spec.primary_storage_ref,
        path=status.path,
        bytes=status.bytes,
        image_uid=status.image_uid,
    )


async def kept(volume: Volume, ctx: Context) -> bool:
    """Are the data of a volume that is being deleted a TrashItem's? Then they are no longer its,
    nor is the space."""
    if ctx.flows.running(volume) is not None or not await _has_item(volume, ctx):
        return False
    await ctx.ledger.hand_over(owner_of(volume), trash_owner(volume.uid), STORAGE)
    return True


async def _has_item(volume: Volume, ctx: Context) -> bool:
    disk = trashed(volume)
    if disk is None:
        return False
    if KEPT_BY in volume.metadata.annotations or await _marked_meanwhile(volume, ctx):
        return True
    return is_delayed(volume, ctx) and await keep(volume, ctx, disks=[disk]) is not None


async def _marked_meanwhile(volume: Volume, ctx: Context) -> bool:
    """Its VM may have put it into the trash just now, and the store not know it yet: whether data
    are deleted must not hang on that."""
    if VM_UID not in volume.metadata.annotations:
        return False
    found: Volume | None = await ctx.objects.read(key_of(volume))
    return found is not None and KEPT_BY in found.metadata.annotations


# -- out of the trash


def is_recovering(volume: Volume) -> bool:
    return recovers(volume) and not volume.status.path


def disk_of(volume: Volume, ctx: Context) -> TrashedDisk:
    """What the item of a recovering volume says of it. Raises Terminal."""
    item = item_of(volume, ctx)
    name = volume.metadata.annotations.get(RECOVER_DISK)
    found = next((d for d in item.spec.disks if name in (None, d.name)), None)
    if found is None:
        raise Terminal(
            f"TrashItem {item.name} has no disk {name or ''}; correct the annotation "
            f"{RECOVER_DISK}",
            reason="CannotRecover",
            retry_after=RETRY_FAILED,
        )
    return found


async def bind_to_trash(volume: Volume, ctx: Context) -> None:
    """Bind a recovering volume to where its data are. Raises Waiting when that was done."""
    if RECOVER_DISK not in volume.metadata.annotations:
        await adopt(volume, ctx)
    elif not is_mine(item_of(volume, ctx), volume):
        raise Waiting("its VM takes the TrashItem first", reason="WaitingForVM", retry_after=1.0)
    disk = disk_of(volume, ctx)
    _refuse_living(disk, volume, ctx)
    wanted = {"hostRef": disk.host_ref.wire(), "primaryStorageRef": disk.primary_storage_ref.wire()}
    here = volume.spec.wire()
    if any(here.get(field) not in (None, ref) for field, ref in wanted.items()):
        raise Terminal(
            f"the data are on host {disk.host_ref.name}, primary storage "
            f"{disk.primary_storage_ref.name}; leave hostRef and primaryStorageRef away",
            reason="CannotRecover",
            retry_after=RETRY_FAILED,
        )
    if any(field not in here for field in wanted):
        await ctx.objects.patch(key_of(volume), {"spec": wanted})
        raise Waiting(f"bound to host {disk.host_ref.name}", reason="Binding")


def _refuse_living(disk: TrashedDisk, volume: Volume, ctx: Context) -> None:
    """Whatever an item says: the data of a volume that lives are its own."""
    other = ctx.store.with_uid("Volume", disk.uid)
    if other is not None:
        soon = 1.0 if ctx.store.deleting(other) else RETRY_FAILED
        raise Waiting(f"volume {disk.volume} is still there", reason="NotInTrash", retry_after=soon)


class AdoptSpace(Step):
    name = "adopt-space"

    async def run(self, scope: Scope[Volume]) -> None:
        trash = trash_owner(disk_of(scope.obj, scope.ctx).uid)
        await scope.ctx.ledger.hand_over(trash, owner_of(scope.obj), STORAGE)

    async def rollback(self, scope: Scope[Volume]) -> None:
        try:
            trash = trash_owner(disk_of(scope.obj, scope.ctx).uid)
        except Terminal:  # the item is gone, so the space is the volume's
            return
        await scope.ctx.ledger.hand_over(owner_of(scope.obj), trash, STORAGE)


class AdoptBits(Step):
    name = "adopt-bits"

    async def run(self, scope: Scope[Volume]) -> None:
        volume, ctx = scope.obj, scope.ctx
        host, storage = placed(volume, ctx)
        disk = disk_of(volume, ctx)
        volume.status.state = "Creating"
        args = VolumeCreateArgs(path=storage.spec.path, size=disk.bytes, adopt=disk.uid)
        made = await on_host(scope, host, "volume.create", args, VolumeResult)
        volume.status.image_uid = disk.image_uid
        show_bits(volume, host, made)
        ctx.events.normal(volume, "Recovered", f"{volume.status.size} on host {host.name}")

    async def rollback(self, scope: Scope[Volume]) -> None:
        """The item has its data again: the volume may be deleted before it tries once more."""
        volume, ctx = scope.obj, scope.ctx
        try:
            disk = disk_of(volume, ctx)
        except Terminal:  # the item is gone, so the data are the volume's
            return
        place = await reachable(volume, ctx)
        if place is None:
            tell_left_behind(volume, ctx)
        else:
            await _give_back(scope, disk, *place)
        show_no_bits(volume)


async def _give_back(
    scope: Scope[Volume], disk: TrashedDisk, host: Host, storage: PrimaryStorage
) -> None:
    """Have the data renamed to what the item calls them, if they were renamed at all."""
    args = VolumeCreateArgs(path=storage.spec.path, size=disk.bytes, adopt=scope.obj.uid)
    try:
        await on_host(
            scope, host, "volume.create", args, VolumeResult, resource=disk.uid, part="undo"
        )
    except AgentFailed as failure:
        if failure.code != "not-found":
            raise
