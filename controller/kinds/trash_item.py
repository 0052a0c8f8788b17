"""TrashItem: keeps what a deleted object left behind until it is recovered or expires.

::

    Kept ──expiry, or deleted by anybody──► its data are deleted, it goes
      │▲
      ▼│ whoever recovered it went away before it was done
    Recovering ──all data are the new object's──► it goes, and touches nothing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from agents.wire import Empty, VolumeDeleteArgs
from controller.errors import Waiting
from controller.keys import Key
from controller.kinds.image import is_offered, remove_file
from controller.kinds.primary_storage import STORAGE, prune_caches
from controller.kinds.support import answers, clean_up, key_of, on_host, together
from controller.kinds.trash import (
    ADOPTED_BY,
    HOME,
    RECOVER_FROM,
    adopter_of,
    mark_taken,
    trash_owner,
)
from controller.kinds.vm_model import is_created, volume_name
from controller.reconcile.actuator import Actuator, Context, News, Outcome, Store
from controller.reconcile.holdings import LEDGER, Holding, host_place, store_place
from controller.rights import on
from controller.workflow.step import Scope, Step
from crds.refs import Reference
from crds.v1alpha1.host import Host
from crds.v1alpha1.primary_storage import PrimaryStorage
from crds.v1alpha1.trash_item import TrashedDisk, TrashItem

RIGHTS = (on(TrashItem, "delete"),)
LOOK = 3600.0
"""Seconds: the longest sleep until an item's expiry is looked at again."""


class ExpungeDisks(Step):
    name = "expunge-disks"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[TrashItem]) -> None:
        await together(_expunge(scope, disk) for disk in scope.obj.spec.disks)


class ExpungeImage(Step):
    name = "expunge-image"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[TrashItem]) -> None:
        subject, storage = scope.obj.spec.subject, scope.obj.spec.backup_storage_ref
        if storage is not None:
            _refuse_living("Image", subject.uid, scope.ctx)
            await remove_file(scope, subject.uid, storage)


async def _expunge(scope: Scope[TrashItem], disk: TrashedDisk) -> None:
    """Delete a disk's data, give its space back, and the image under it if nobody needs that."""
    item, ctx = scope.obj, scope.ctx
    _refuse_living("Volume", disk.uid, ctx)
    host: Host | None = ctx.store.get("Host", disk.host_ref.name)
    storage: PrimaryStorage | None = ctx.store.get("PrimaryStorage", disk.primary_storage_ref.name)
    if host is not None and storage is not None and await answers(host, ctx):
        args = VolumeDeleteArgs(path=storage.spec.path)
        part = f"delete-{disk.name}"
        await on_host(scope, host, "volume.delete", args, Empty, resource=disk.uid, part=part)
        if disk.image_uid and not is_offered(disk.image_uid, ctx):
            await prune_caches(scope, disk.image_uid, [(storage, host)])
    else:
        left = f"{disk.path} was left on host {disk.host_ref.name}, which is not reachable any more"
        ctx.events.warning(item, "LeftBehind", left)
    await ctx.ledger.release(trash_owner(disk.uid), STORAGE)


def _refuse_living(kind: str, uid: str, ctx: Context) -> None:
    """Whatever an item says: the data of an object that lives are its own."""
    other = ctx.store.with_uid(kind, uid)
    if other is not None:
        raise Waiting(f"{other} still has these data", reason="InUse", retry_after=5.0)


def _recovered(adopter: News, store: Store) -> Iterable[Key]:
    """The item that an object takes its data from waits for it to be done."""
    name = adopter.annotation(RECOVER_FROM)
    return [Key("TrashItem", adopter.key.namespace or HOME, name)] if name else []


class TrashItemActuator(Actuator[TrashItem]):
    model = TrashItem
    watches = {"VirtualMachine": _recovered, "Volume": _recovered, "Image": _recovered}

    async def reconcile(self, obj: TrashItem, ctx: Context) -> Outcome:
        if ADOPTED_BY in obj.metadata.annotations:
            return await _recovering(obj, ctx)
        left = obj.spec.expires_at.timestamp() - ctx.clock.now()
        obj.status.state = "Kept"
        if left <= 0:
            return await _dismiss(obj, "Expired", "its data are being deleted", ctx)
        until = f"until {obj.spec.expires_at:%Y-%m-%d %H:%M} UTC"
        return Outcome(reason="Kept", message=until, requeue_after=min(left, LOOK))

    async def delete(self, obj: TrashItem, ctx: Context) -> Outcome:
        obj.status.state = "Deleting"
        adopter = await adopter_of(obj, ctx)
        if adopter is not None and ctx.flows.running(obj) is None:
            if not await _is_done(obj, adopter, ctx):
                why = f"{key_of(adopter)} is taking the data over"
                return Outcome(False, "Recovering", why)
            return Outcome()
        await clean_up("trash-expunge", obj, ctx)
        return Outcome()

    def holdings(self, obj: TrashItem, store: Store) -> Iterable[Holding]:
        return _holdings(obj)

    def waits_for(self, obj: TrashItem, reference: Reference) -> bool:
        return False


def _holdings(item: TrashItem) -> Iterator[Holding]:
    """The data that it keeps, and their space; all may be another's once somebody recovers it."""
    kept = not item.deleting and ADOPTED_BY not in item.metadata.annotations
    for disk in item.spec.disks:
        place = host_place(disk.host_ref.name)
        yield Holding(LEDGER, STORAGE, trash_owner(disk.uid), needed=False)
        yield Holding(place, "volumes", disk.uid, needed=kept)
        if disk.image_uid:
            yield Holding(place, "images", disk.image_uid, needed=False)
    if item.spec.backup_storage_ref is not None:
        place = store_place(item.spec.backup_storage_ref.name)
        yield Holding(place, "images", item.spec.subject.uid, needed=kept)


async def _recovering(item: TrashItem, ctx: Context) -> Outcome:
    item.status.state = "Recovering"
    adopter = await adopter_of(item, ctx)
    if adopter is None:
        await mark_taken(item, None, ctx)
        return Outcome(False, "Recovering", "whoever recovered it went away; it is kept again")
    if await _is_done(item, adopter, ctx):
        return await _dismiss(item, "Recovered", f"its data are {key_of(adopter)}'s now", ctx)
    return Outcome(reason="Recovering", message=f"by {key_of(adopter)}")


async def _dismiss(item: TrashItem, reason: str, why: str, ctx: Context) -> Outcome:
    if item.spec.deletion_policy == "Protect":
        return Outcome(reason=reason, message="it stays as long as its deletionPolicy is Protect")
    await ctx.objects.delete(item)
    return Outcome(False, reason, why)


async def _is_done(item: TrashItem, adopter: Any, ctx: Context) -> bool:
    """Has everything that the item kept become its adopter's?"""
    kind = item.spec.subject.kind
    if kind == "Image":
        return bool(adopter.status.checksum) and adopter.status.workflow is None
    if kind == "Volume":
        return _is_whole(adopter)
    namespace = adopter.metadata.namespace or ""
    names = [volume_name(adopter.name, disk.name) for disk in item.spec.disks]
    if not is_created(adopter):
        return False
    volumes = [await ctx.objects.read(Key("Volume", namespace, name)) for name in names]
    return all(
        volume is not None
        and volume.metadata.annotations.get(RECOVER_FROM) == item.name
        and _is_whole(volume)
        for volume in volumes
    )


def _is_whole(volume: Any) -> bool:
    return bool(volume.status.path) and volume.status.workflow is None
