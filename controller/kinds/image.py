"""Image: fetched into its backup storage once, then immutable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agents.wire import Empty, ImageAddArgs, ImageAddResult, ImageRemoveArgs, ImageSource
from controller.errors import FlowFailed, Terminal, Waiting
from controller.kinds.availability import enabled
from controller.kinds.primary_storage import places, prune_caches
from controller.kinds.support import (
    RETRY_FAILED,
    answers,
    clean_up,
    failed_before,
    key_of,
    store_endpoint,
)
from controller.kinds.trash import adopt, is_delayed, keep, recovers
from controller.reconcile.actuator import Actuator, Context, Outcome, Store
from controller.reconcile.holdings import Holding, store_place
from controller.workflow.step import Scope, Step
from crds.base import format_quantity
from crds.refs import ObjectRef, Reference
from crds.v1alpha1.backup_storage import BackupStorage
from crds.v1alpha1.image import Image


def image_source(image: Image, ctx: Context) -> ImageSource:
    """Where a host fetches ``image`` from. Raises Waiting while nobody serves it."""
    storage = ctx.store.get("BackupStorage", image.spec.backup_storage_ref.name)
    if storage is None or storage.status.status != "Connected":
        name = image.spec.backup_storage_ref.name
        raise Waiting(
            f"image {image.name} is on BackupStorage {name}, which is not connected",
            reason="ImageUnreachable",
            retry_after=RETRY_FAILED,
        )
    endpoint = store_endpoint(storage, ctx)
    return ImageSource(
        uid=image.uid,
        store=storage.name,
        address=endpoint.address,
        port=endpoint.port,
        file=f"{image.uid}.{image.spec.format}",
        format=image.spec.format,
        checksum=image.status.checksum,
        virtual_size=image.status.virtual_size,
    )


def is_offered(uid: str, ctx: Context) -> bool:
    """May volumes be made from the image of this uid?"""
    return any(image.uid == uid and not image.deleting for image in ctx.store.list("Image"))


def _storage(scope: Scope[Image]) -> BackupStorage | None:
    found: BackupStorage | None = scope.ctx.store.get(
        "BackupStorage", scope.obj.spec.backup_storage_ref.name
    )
    return found


async def remove_file(scope: Scope[Any], uid: str, kept_in: ObjectRef, *, part: str = "") -> None:
    """Remove the file of the image ``uid`` from its backup storage, unless nobody is left there
    to ask."""
    obj, ctx = scope.obj, scope.ctx
    storage: BackupStorage | None = ctx.store.get("BackupStorage", kept_in.name)
    if storage is None or not await answers(storage, ctx):
        where = f"the image's file was left on {kept_in.name}, which is gone"
        ctx.events.warning(obj, "LeftBehind", where)
        return
    await ctx.agents.run(
        store_endpoint(storage, ctx),
        "image.remove",
        uid,
        ImageRemoveArgs(path=storage.spec.path),
        Empty,
        operation=scope.operation(part),
        owner=key_of(obj),
    )


async def _add(
    scope: Scope[Image], storage: BackupStorage, adopted: str | None = None
) -> ImageAddResult:
    """Have the storage fetch the image, or take over the bits of the image of that uid."""
    image = scope.obj
    return await scope.ctx.agents.run(
        store_endpoint(storage, scope.ctx),
        "image.add",
        image.uid,
        ImageAddArgs(
            path=storage.spec.path,
            url=image.spec.url,
            format=image.spec.format,
            checksum=image.spec.checksum,
            adopt=adopted,
        ),
        ImageAddResult,
        operation=scope.operation(),
        owner=key_of(image),
    )


def _show(image: Image, stored: ImageAddResult) -> None:
    status = image.status
    status.virtual_size, status.actual_size = stored.virtual_size, stored.actual_size
    status.checksum, status.size = stored.checksum, format_quantity(stored.virtual_size)


class AddImage(Step):
    name = "add-image"

    async def run(self, scope: Scope[Image]) -> None:
        image, storage = scope.obj, _storage(scope)
        if storage is None:
            raise Waiting(f"BackupStorage {image.spec.backup_storage_ref.name} does not exist")
        enabled(storage, "choose another")
        image.status.state = "Downloading"
        _show(image, await _add(scope, storage))

    async def rollback(self, scope: Scope[Image]) -> None:
        """The checksum goes, too: it says that the image is there."""
        await remove_file(scope, scope.obj.uid, scope.obj.spec.backup_storage_ref, part="undo")
        status = scope.obj.status
        status.checksum = status.size = ""
        status.virtual_size = status.actual_size = 0


class AdoptImage(Step):
    name = "adopt-image"
    no_rollback = "the bits are the TrashItem's or the image's, and both find them again"

    async def run(self, scope: Scope[Image]) -> None:
        image, storage = scope.obj, _storage(scope)
        item = await adopt(image, scope.ctx)
        if storage is None or item.spec.backup_storage_ref != image.spec.backup_storage_ref:
            raise Terminal(
                f"the bits are not on BackupStorage {image.spec.backup_storage_ref.name}",
                reason="CannotRecover",
            )
        _show(image, await _add(scope, storage, item.spec.subject.uid))


class RemoveImage(Step):
    name = "remove-image"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[Image]) -> None:
        await remove_file(scope, scope.obj.uid, scope.obj.spec.backup_storage_ref)


class PruneCaches(Step):
    """Hosts' copies go, too; those that volumes are based on go with the last of these."""

    name = "prune-caches"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[Image]) -> None:
        await prune_caches(scope, scope.obj.uid, places(scope.ctx))


async def _kept(image: Image, ctx: Context) -> bool:
    """Are the bits of an image that is being deleted to stay, in a TrashItem?"""
    running = ctx.flows.running(image)
    if running in ("image-delete", "image-trash"):
        return running == "image-trash"
    if running is not None or not image.status.checksum or not is_delayed(image, ctx):
        return False
    return await keep(image, ctx, backup_storage=image.spec.backup_storage_ref) is not None


class ImageActuator(Actuator[Image]):
    model = Image

    async def reconcile(self, obj: Image, ctx: Context) -> Outcome:
        if not obj.status.checksum or ctx.flows.running(obj):
            await self._add(obj, ctx)
        obj.status.state = "Ready" if obj.spec.state == "Enabled" else "Disabled"
        return Outcome(reason=obj.status.state)

    async def delete(self, obj: Image, ctx: Context) -> Outcome:
        obj.status.state = "Deleting"
        await clean_up("image-trash" if await _kept(obj, ctx) else "image-delete", obj, ctx)
        return Outcome()

    def holdings(self, obj: Image, store: Store) -> Iterable[Holding]:
        """Its file in the backup storage, and copies on hosts."""
        place = store_place(obj.spec.backup_storage_ref.name)
        going = obj.deleting or obj.status.workflow is not None
        if obj.status.checksum or going:
            yield Holding(place, "images", obj.uid, needed=not going)
            yield Holding("host/", "images", obj.uid, needed=False)

    def waits_for(self, obj: Image, reference: Reference) -> bool:
        return not obj.status.state

    async def _add(self, obj: Image, ctx: Context) -> None:
        early = None if ctx.flows.running(obj) else failed_before(obj, ctx)
        if early:
            raise early
        try:
            wanted = "image-adopt" if recovers(obj) else "image-add"
            await ctx.flows.run(ctx.flows.running(obj) or wanted, obj, ctx)
        except FlowFailed as failure:
            obj.status.state = "Error"
            failure.retry_after = RETRY_FAILED
            raise
        ctx.events.normal(obj, "Added", f"{obj.status.size} in {obj.spec.format}")
