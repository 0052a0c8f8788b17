"""Volume: a disk on the primary storage of one host.

::

    NotInstantiated → Creating → Ready ⇄ Unavailable (its host was deleted, or came back)

A volume is declared before it is made: it is bound to a host by ``spec.hostRef``, which a VM that
attaches it sets (or a user), and is then made there. Its space is claimed in the ledger under its
name, not its uid: so a VM's flow can claim it together with the host, before the Volume exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agents.wire import Empty, ImageSource, VolumeCreateArgs, VolumeDeleteArgs, VolumeResult
from controller.errors import Exhausted, FlowFailed, Terminal, Waiting
from controller.keys import Key
from controller.kinds.availability import enabled, takes_new
from controller.kinds.image import image_source, is_offered
from controller.kinds.primary_storage import STORAGE, prune_caches, serves, storage_scope
from controller.kinds.support import (
    RETRY_FAILED,
    clean_up,
    failed_before,
    host_endpoint,
    key_of,
    on_host,
)
from controller.kinds.trash import recovers
from controller.kinds.volume_place import (
    BYTES,
    bound_host,
    bound_storage,
    owner_of,
    placed,
    reachable,
    show_bits,
    show_no_bits,
    tell_left_behind,
)
from controller.kinds.volume_trash import bind_to_trash, is_recovering, kept
from controller.reconcile.actuator import Actuator, Context, News, Outcome, Store
from controller.reconcile.holdings import LEDGER, Holding, host_place
from controller.rights import on
from controller.workflow.step import Scope, Step
from crds.base import format_quantity
from crds.refs import ObjectRef, Reference
from crds.v1alpha1.host import Host
from crds.v1alpha1.image import Image
from crds.v1alpha1.primary_storage import PrimaryStorage
from crds.v1alpha1.volume import Volume

RIGHTS = (on(Volume, "patch"),)


def volume_size(volume: Volume, ctx: Context) -> int:
    """Bytes: its own size, else its offering's, else its image's; never less than the image.

    Raises Waiting if what says so is missing, Terminal if the size is too small.
    """
    spec, image = volume.spec, _image(volume, ctx)
    size = spec.size
    if size is None and spec.disk_offering_ref:
        offering = ctx.store.get("DiskOffering", spec.disk_offering_ref.name)
        if offering is None:
            raise Waiting(f"DiskOffering {spec.disk_offering_ref.name} does not exist")
        size = offering.spec.size
    least = image.status.virtual_size if image else 0
    if size is not None and size < least:
        raise Terminal(
            f"{format_quantity(size)} are too small for image "
            f"{image.name if image else ''}, which needs {format_quantity(least)}",
            reason="VolumeTooSmall",
        )
    return size if size is not None else least


def _image(volume: Volume, ctx: Context) -> Image | None:
    ref = volume.spec.image_ref
    if ref is None:
        return None
    image: Image | None = ctx.store.get("Image", ref.name)
    if image is None or not image.status.checksum:
        raise Waiting(f"Image {ref.name} is not there yet")
    return image


class ClaimStorage(Step):
    name = "claim-storage"

    async def run(self, scope: Scope[Volume]) -> None:
        volume, ctx = scope.obj, scope.ctx
        host, storage = placed(volume, ctx)
        pool, amounts = storage_scope(storage, host), {BYTES: volume_size(volume, ctx)}
        if not await ctx.ledger.claims(owner=owner_of(volume), prefix=pool):  # else its VM has it
            _may_be_new(volume, storage, ctx)
        where = f"primary storage {storage.name} on host {host.name}"
        try:
            await ctx.ledger.claim_amounts(pool, owner_of(volume), amounts)
        except Exhausted as error:
            if not await ctx.ledger.pools(pool):  # made when both are connected, which wakes us
                raise Waiting(f"{where} is not connected", reason="StorageNotConnected") from None
            raise Exhausted(f"{where}: {error.message}") from error

    async def rollback(self, scope: Scope[Volume]) -> None:
        await scope.ctx.ledger.release(owner_of(scope.obj), STORAGE)


def _may_be_new(volume: Volume, storage: PrimaryStorage, ctx: Context) -> None:
    """Raises Waiting if what it is made from or made on takes nothing new."""
    ref = volume.spec.disk_offering_ref
    enabled(ctx.store.get("DiskOffering", ref.name) if ref else None, "choose another")
    if not takes_new(storage):
        state = storage.status.state or storage.spec.state
        raise Waiting(f"PrimaryStorage {storage.name} is {state}", reason="StorageDisabled")


class CreateBits(Step):
    """Also finds bits that are there already."""

    name = "create-bits"

    async def run(self, scope: Scope[Volume]) -> None:
        volume, ctx = scope.obj, scope.ctx
        host, storage = placed(volume, ctx)
        if not _returning(volume):
            volume.status.state = "Creating"
        volume.status.host_ref = ObjectRef(name=host.name)
        image = _image(volume, ctx)
        volume.status.image_uid = image.uid if image else ""
        source: ImageSource | None = image_source(image, ctx) if image else None
        size = volume_size(volume, ctx)
        args = VolumeCreateArgs(path=storage.spec.path, size=size, image=source)
        made = await on_host(scope, host, "volume.create", args, VolumeResult)
        show_bits(volume, host, made)

    async def rollback(self, scope: Scope[Volume]) -> None:
        if _returning(scope.obj):
            scope.obj.status.host_ref = None
            return
        await _delete_bits(scope, "undo")
        show_no_bits(scope.obj)


def _returning(volume: Volume) -> bool:
    """Were its data there before this flow? Then no failure is a reason to delete them."""
    return volume.status.state == "Unavailable"


class DeleteBits(Step):
    name = "delete-bits"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[Volume]) -> None:
        await _delete_bits(scope)


class ReleaseStorage(Step):
    name = "release-storage"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[Volume]) -> None:
        await scope.ctx.ledger.release(owner_of(scope.obj), STORAGE)


class PruneBase(Step):
    """The image that was kept on the host for this volume goes, if the Image is gone already."""

    name = "prune-base"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[Volume]) -> None:
        volume, ctx = scope.obj, scope.ctx
        host, storage = bound_host(volume, ctx.store), bound_storage(volume, ctx.store)
        uid = volume.status.image_uid
        if uid and host and storage and not is_offered(uid, ctx):
            await prune_caches(scope, uid, [(storage, host)])


async def _delete_bits(scope: Scope[Volume], part: str = "") -> None:
    """Delete the bits where the volume is bound to, unless nobody is left there to ask."""
    volume, ctx = scope.obj, scope.ctx
    place = await reachable(volume, ctx)
    if place is None:
        tell_left_behind(volume, ctx)
    else:
        host, storage = place
        args = VolumeDeleteArgs(path=storage.spec.path)
        await on_host(scope, host, "volume.delete", args, Empty, part=part)
    volume.status.host_ref = None


def _attached(vm: News, store: Store) -> Iterable[Key]:
    """Volumes that a VM takes, or took until now: they show whose they are."""
    return vm.refs("Volume")


def _to_be_filled(storage: News, store: Store) -> Iterable[Key]:
    """Volumes that are still to be filled with an image that this storage keeps."""
    return [
        volume
        for image, _ in store.users(storage.key, "Image")
        for volume, _ in store.users(image, "Volume")
        if (known := store.entry(volume)) and known.state != "Ready"
    ]


class VolumeActuator(Actuator[Volume]):
    model = Volume
    partitioned = True
    watches = {"VirtualMachine": _attached, "BackupStorage": _to_be_filled}

    async def reconcile(self, obj: Volume, ctx: Context) -> Outcome:
        flow = ctx.flows.running(obj)
        if flow is not None:
            return await self._create(flow, obj, ctx)
        _show_vm(obj, ctx)
        if is_recovering(obj):
            await bind_to_trash(obj, ctx)
        if obj.spec.host_ref is None:
            obj.status.state = "NotInstantiated"
            return Outcome(reason="NotInstantiated", message="it is made when a VM attaches it")
        host = bound_host(obj, ctx.store)
        if host is None or host.deleting:
            return await _unavailable(obj, ctx)
        if obj.status.state == "Ready":
            return Outcome()
        if obj.spec.primary_storage_ref is None:
            await _choose_storage(obj, host, ctx)
        if obj.status.bytes:
            await _find_again(obj, host, ctx)
        flow = "volume-adopt" if is_recovering(obj) else "volume-create"
        return await self._create(flow, obj, ctx)

    async def delete(self, obj: Volume, ctx: Context) -> Outcome:
        """Called when no VM has it attached any more."""
        obj.status.state = "Deleting"
        if not await kept(obj, ctx):
            await clean_up("volume-delete", obj, ctx)
        return Outcome()

    def holdings(self, obj: Volume, store: Store) -> Iterable[Holding]:
        return _holdings(obj, store)

    def waits_for(self, obj: Volume, reference: Reference) -> bool:
        made = obj.status.workflow is not None or obj.status.state not in ("", "NotInstantiated")
        return not made and not recovers(obj)

    async def _create(self, flow: str, obj: Volume, ctx: Context) -> Outcome:
        early = None if ctx.flows.running(obj) else failed_before(obj, ctx)
        if early:
            raise early
        try:
            await ctx.flows.run(flow, obj, ctx)
        except FlowFailed as failure:
            obj.status.state = "Unavailable" if obj.status.bytes else "Error"
            failure.retry_after = RETRY_FAILED
            raise
        obj.status.state = "Ready"
        _show_vm(obj, ctx)
        return Outcome()


def _holdings(volume: Volume, store: Store) -> Iterator[Holding]:
    """Its space, its bits, and the image on the host that these are based on."""
    spec, status = volume.spec, volume.status
    host, storage = bound_host(volume, store), bound_storage(volume, store)
    ready = status.state == "Ready" and not volume.deleting and status.workflow is None
    scope = storage_scope(storage, host) if storage and host else STORAGE
    if spec.host_ref is not None or status.workflow is not None:
        yield Holding(LEDGER, scope, owner_of(volume), needed=ready)
    if status.workflow is not None or volume.deleting or status.bytes:
        place = host_place(spec.host_ref.name) if spec.host_ref else "host/"
        yield Holding(place, "volumes", volume.uid, needed=ready)
        if status.image_uid:
            yield Holding(place, "images", status.image_uid, needed=False)


def _show_vm(volume: Volume, ctx: Context) -> None:
    users = ctx.store.users(key_of(volume), "VirtualMachine")
    names = [vm.name for vm, ref in users if ref.path[0] == "status"]
    volume.status.vm_ref = ObjectRef(name=names[0]) if names else None


async def _unavailable(volume: Volume, ctx: Context) -> Outcome:
    """Its host is going or gone, the volume is not: let go, and wait for the host to return."""
    if ctx.store.doomed(volume):
        return Outcome(False, "Deleting", "it is deleted together with its host")
    name = volume.spec.host_ref.name if volume.spec.host_ref else ""
    if volume.status.state != "Unavailable":
        ctx.events.warning(volume, "Unavailable", f"host {name} was deleted; the data stay on it")
    volume.status.state = "Unavailable"
    volume.status.host_ref = None
    await ctx.ledger.release(owner_of(volume), STORAGE)
    return Outcome(
        False,
        "HostDeleted",
        f"the data are on the disk of host {name}, which was deleted; add a host of that name "
        "that has the disk, and the volume is back",
    )


async def _choose_storage(volume: Volume, host: Host, ctx: Context) -> None:
    """Bind it to the primary storage with most room on ``host``."""
    roomy = []
    for storage in ctx.store.list("PrimaryStorage"):
        if serves(storage, host.spec.cluster_ref.name) and takes_new(storage):
            pools = await ctx.ledger.pools(storage_scope(storage, host))
            roomy += [(pool.free(BYTES), storage.name) for pool in pools]
    if not roomy:
        raise Waiting(
            f"no primary storage serves host {host.name}; attach one to cluster "
            f"{host.spec.cluster_ref.name}",
            reason="NoPrimaryStorage",
            retry_after=RETRY_FAILED,
        )
    ref = {"name": max(roomy)[1]}
    await ctx.objects.patch(key_of(volume), {"spec": {"primaryStorageRef": ref}})
    raise Waiting(f"bound to primary storage {ref['name']}", reason="Binding")


async def _find_again(volume: Volume, host: Host, ctx: Context) -> None:
    """Data that were once on a host must still be there: an empty disk must not replace them.

    Raises Waiting while the host is not connected, Terminal if the data are not on it.
    """
    if host.status.status != "Connected":
        raise Waiting(f"host {host.name} is not connected", reason="HostDisconnected")
    inventory = await ctx.agents.inventory(host_endpoint(host, ctx))
    if volume.uid not in inventory.volumes:
        raise Terminal(
            f"the data are not on host {host.name}; bring the disk that has them, or delete the "
            "volume",
            reason="DataMissing",
            retry_after=RETRY_FAILED,
        )
