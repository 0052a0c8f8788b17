"""Steps that find a VM its place: image, host and storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.errors import Exhausted, KumulusError, Terminal, Waiting
from controller.kinds.allocation.filters import fitting
from controller.kinds.allocation.gather import candidates
from controller.kinds.allocation.model import Candidate, NewDisk, Request, place_disks
from controller.kinds.allocation.strategies import DEFAULT, ranked
from controller.kinds.availability import check_storages, enabled
from controller.kinds.image import image_source
from controller.kinds.primary_storage import STORAGE
from controller.kinds.support import RETRY_FAILED, exact_quantity, key_of
from controller.kinds.vm_model import (
    ROOT,
    WantedDisk,
    going,
    home,
    is_created,
    live_nics,
    named,
    new_disks,
    size_of,
    volume_of,
    wanted_disks,
)
from controller.kinds.vm_plan import HOST_STEPS
from controller.kinds.volume import volume_size
from controller.kinds.volume_place import BYTES, claim_owner
from controller.reconcile.actuator import Context
from controller.workflow.step import Scope, Step
from crds.refs import ObjectRef
from crds.v1alpha1.virtual_machine import VirtualMachine
from crds.v1alpha1.volume import Volume


class SelectImage(Step):
    """Is there an image to make the root disk from, and may it (and the offering) be used?"""

    name = "select-image"
    no_rollback = "it only looks"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        vm.status.state = "Created"
        _names_free(vm)
        image = ctx.store.get("Image", vm.spec.image_ref.name)
        if going(image):
            raise Waiting(f"Image {vm.spec.image_ref.name} does not exist")
        if image.spec.media_type != "RootVolumeTemplate":
            raise Terminal(
                f"image {image.name} is a {image.spec.media_type}; a root disk needs a "
                "RootVolumeTemplate",
                reason="WrongMediaType",
            )
        if image.spec.state != "Enabled":
            raise Waiting(f"Image {image.name} is Disabled; enable it", reason="ImageDisabled")
        _offering_enabled(vm, ctx)
        enabled(
            ctx.store.get("BackupStorage", image.spec.backup_storage_ref.name), "use another image"
        )
        image_source(image, ctx)


def _names_free(vm: VirtualMachine) -> None:
    if any(disk.name == ROOT for disk in vm.spec.data_disks):
        raise Terminal("a data disk cannot be called root; rename it", reason="InvalidSpec")


def _offering_enabled(vm: VirtualMachine, ctx: Context) -> None:
    ref = vm.spec.instance_offering_ref
    offering = ctx.store.get("InstanceOffering", ref.name) if ref else None
    if offering is not None and offering.spec.state != "Enabled":
        raise Waiting(f"InstanceOffering {offering.name} is Disabled", reason="OfferingDisabled")
    sizes = [disk.disk_offering_ref for disk in vm.spec.data_disks]
    for size in (vm.spec.root_disk.disk_offering_ref, *sizes):
        enabled(ctx.store.get("DiskOffering", size.name) if size else None, "choose another")


class AllocateHost(Step):
    """Claim a host and the space for the disks there together.

    Raises Waiting while no host has room (whoever makes room wakes the VM), Terminal once every
    host that has was tried and failed.
    """

    name = "allocate-host"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        if vm.status.host_ref is not None:
            return
        check_storages(vm, ctx.store)
        await ctx.ledger.release(vm.uid, "host/")  # of a controller that died here
        request = request_for(vm, ctx)
        fit, dropped = fitting(request, await candidates(ctx))
        for candidate in await ranked(_strategy(vm, ctx), request, fit, ctx.allocators):
            try:
                await _claim(scope, request, candidate)
            except Exhausted as lost:  # another VM was quicker
                dropped[candidate.name] = lost.message
            else:
                _settle(vm, request, candidate, ctx)
                return
        raise _nowhere(vm, request, dropped, ctx)

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        _remember_failure(vm)
        await ctx.ledger.release(vm.uid, "host/")
        await release_unused_space(vm, ctx)
        vm.status.host_ref = vm.status.cluster_ref = None
        vm.status.state = "Stopped" if is_created(vm) else "Created"
        if not is_created(vm):
            vm.status.primary_storage_ref = vm.status.zone_ref = None


class AllocateStorage(Step):
    """Claim the space for disks that are added to a VM, on the host that it belongs to."""

    name = "allocate-storage"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = home(vm, ctx)
        here = next((c for c in await candidates(ctx) if c.name == host.name), None)
        disks = _to_place(vm, new_disks(vm, ctx.store), ctx)
        if here is not None and disks:
            await _claim_space(scope, Request(0, 0, new_disks=disks), here)

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        await release_unused_space(scope.obj, scope.ctx)


def request_for(vm: VirtualMachine, ctx: Context) -> Request:
    """What ``vm`` needs of a host. Raises Waiting if that cannot be told yet."""
    cpu, memory = size_of(vm, ctx.store)
    image = ctx.store.get("Image", vm.spec.image_ref.name)
    store = image and ctx.store.get("BackupStorage", image.spec.backup_storage_ref.name)
    zones = [ref.name for ref in store.spec.zone_refs] if store and not is_created(vm) else []
    placement = vm.spec.placement
    return Request(
        cpu=cpu,
        memory=memory,
        architecture=image.spec.architecture if image else None,
        networks=frozenset(l3.spec.l2_network_ref.name for _, l3 in live_nics(vm, ctx.store)),
        host=named(placement.host_ref),
        cluster=named(placement.cluster_ref),
        zone=named(placement.zone_ref),
        image_zones=frozenset(zones),
        volume_hosts=_volume_hosts(vm, ctx),
        new_disks=() if is_created(vm) else _to_place(vm, wanted_disks(vm), ctx),
        excluded=frozenset(vm.status.excluded_hosts),
        last_host=vm.status.last_host,
        selector=placement.host_selector,
    )


def _volume_hosts(vm: VirtualMachine, ctx: Context) -> dict[str, str]:
    """The hosts of the disks that exist. Raises Waiting if one's data cannot be reached."""
    names = [disk.volume_ref.name for disk in vm.status.disks]
    names = names if is_created(vm) else [disk.volume for disk in wanted_disks(vm)]
    hosts = {}
    for name in names:
        volume = volume_of(vm, name, ctx.store)
        if volume is not None and volume.status.state == "Unavailable":
            ready = volume.condition("Ready")
            raise Waiting(
                f"volume {name}: {ready.message if ready else 'its data cannot be reached'}",
                reason="VolumeUnavailable",
            )
        if volume is not None and volume.spec.host_ref:
            hosts[name] = volume.spec.host_ref.name
    return hosts


def _to_place(vm: VirtualMachine, disks: Iterable[WantedDisk], ctx: Context) -> tuple[NewDisk, ...]:
    """Those whose Volume is not bound to a host yet. Raises Waiting for a volume not there."""
    found = ((disk, _to_make(vm, disk, ctx)) for disk in disks)
    return tuple(
        NewDisk(
            owner=claim_owner(vm.metadata.namespace or "", disk.volume),
            size=volume_size(volume, ctx),
            storage=named(volume.spec.primary_storage_ref),
        )
        for disk, volume in found
        if volume is not None
    )


def _to_make(vm: VirtualMachine, disk: WantedDisk, ctx: Context) -> Volume | None:
    """The volume as it is or will be, unless it is bound to a host already."""
    volume = volume_of(vm, disk.volume, ctx.store) or (disk.make() if disk.make else None)
    if volume is None:
        raise Waiting(f"Volume {disk.volume} does not exist")
    return volume if volume.spec.host_ref is None else None


def _strategy(vm: VirtualMachine, ctx: Context) -> str:
    ref = vm.spec.instance_offering_ref
    offering = ctx.store.get("InstanceOffering", ref.name) if ref else None
    return offering.spec.allocator_strategy if offering else DEFAULT


async def _claim(scope: Scope[VirtualMachine], request: Request, host: Candidate) -> None:
    """Host and space or neither. Raises Exhausted."""
    ledger, owner = scope.ctx.ledger, scope.obj.uid
    await ledger.claim_amounts(host.scope, owner, request.amounts)
    try:
        await _claim_space(scope, request, host)
    except Exhausted:
        await ledger.release(owner, host.scope)
        raise


async def _claim_space(scope: Scope[VirtualMachine], request: Request, host: Candidate) -> None:
    """Space for all new disks or none. Raises Exhausted. Tells create-volumes where it is."""
    ledger, plan = scope.ctx.ledger, place_disks(request, host)
    if isinstance(plan, str):
        raise Exhausted(f"{host.name}: {plan}")
    try:
        for disk, storage in plan:
            await ledger.claim_amounts(storage.scope, disk.owner, {BYTES: disk.size})
    except Exhausted:
        for disk, storage in plan:
            await ledger.release(disk.owner, storage.scope)
        raise
    if scope.data is not None:
        scope.data.update({disk.owner: storage.name for disk, storage in plan})


def _settle(vm: VirtualMachine, request: Request, host: Candidate, ctx: Context) -> None:
    status = vm.status
    status.host_ref = ObjectRef(name=host.name)
    status.cluster_ref, status.zone_ref = ObjectRef(name=host.cluster), ObjectRef(name=host.zone)
    status.cpu, status.memory = request.cpu, exact_quantity(request.memory)
    status.state = "Starting"
    ctx.observed.unscheduled.discard(key_of(vm))
    ctx.events.normal(vm, "Scheduled", f"on host {host.name}")


def _nowhere(
    vm: VirtualMachine, request: Request, dropped: Mapping[str, str], ctx: Context
) -> KumulusError:
    """Why no host will do: for good if each that would was tried, else only for now."""
    tried = dict(f.split(": ", 1) for f in vm.status.start_failures if ": " in f)
    causes = {**dropped, **{host: cause for host, cause in tried.items() if host in dropped}}
    reasons = "; ".join(f"{host}: {cause}" for host, cause in sorted(causes.items()))
    if request.excluded:
        return Terminal(f"no host is left: {reasons}", reason="NoHostLeft")
    ctx.observed.unscheduled.add(key_of(vm))
    message = f"no host fits: {reasons}" if reasons else "there is no host; add one"
    return Waiting(message, reason="Unschedulable", retry_after=RETRY_FAILED)


def _remember_failure(vm: VirtualMachine) -> None:
    """Keep this start away from a host where it failed."""
    failure = vm.status.workflow.failure if vm.status.workflow else None
    if vm.status.host_ref is None or failure is None or failure.step not in HOST_STEPS:
        return
    name = vm.status.host_ref.name
    if failure.reason != "Cancelled" and name not in vm.status.excluded_hosts:
        vm.status.excluded_hosts.append(name)
        cause = failure.message.removeprefix(f"host {name}: ")
        vm.status.start_failures.append(f"{name}: {cause}")


async def release_unused_space(vm: VirtualMachine, ctx: Context) -> None:
    """Give back what was claimed for volumes that were not made."""
    for disk in wanted_disks(vm):
        volume = volume_of(vm, disk.volume, ctx.store)
        if volume is None or volume.spec.host_ref is None:
            owner = claim_owner(vm.metadata.namespace or "", disk.volume)
            await ctx.ledger.release(owner, STORAGE)
