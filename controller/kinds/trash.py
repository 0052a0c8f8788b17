"""Delayed deletion: what a deleted object leaves behind, and how a new object takes it over.

A deletionTimestamp cannot be taken back, so nothing here holds a deletion up: that would keep the
name, let ``kubectl delete``, Helm and Flux wait for days, and still not bring the object back.
Instead the deletion is carried out at once, but for the data. Those go, with the manifest, into a
TrashItem, which is the durable record of who has them now::

    Volume (uid a) ──delete──► TrashItem: data of a ──recover──► Volume (uid b), data renamed to b

    deleting     1. the TrashItem is made (found, if it was made before a crash)
                 2. the claim on the space becomes the item's: at no time is it free in between
                 3. the finalizer goes, and with it the object; the data were not touched
    recovering   1. a new object names the item in the annotation RECOVER_FROM
                 2. it marks the item as taken (ADOPTED_BY), under the item's resourceVersion: of
                    two, or of one and the item's expiry, the API server lets one win
                 3. claim and data are handed over; agents rename the data from the old uid to the
                    new one, so that nothing has two identities afterwards
                 4. the item sees that it has nothing left and goes

Each step is found done when it is repeated. It works by objects alone: on the embedded server, on
any other, with and without the admission webhook. Trash is deleted at last by deleting the item:
by its expiry, by people, or with the storage or namespace that it is in.

An object that is deleted along with what its data lie on is deleted for good, and so is all of a
namespace that is being deleted (no object can be made there any more).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from controller.clock import utc
from controller.errors import Terminal, Transient
from controller.keys import Key
from controller.kinds.support import RETRY_FAILED, digest, key_of
from controller.kinds.vm_model import VM_UID
from controller.reconcile.actuator import Context
from controller.rights import on
from crds.base import FINALIZER, GROUP, ObjectMeta, RecoverableSpec, Resource, duration_seconds
from crds.refs import ObjectRef
from crds.v1alpha1.trash_item import Subject, TrashedDisk, TrashedNic, TrashItem, TrashItemSpec

RIGHTS = (on(TrashItem, "create"),)
RECOVER_FROM = f"{GROUP}/recover-from"
RECOVER_DISK = f"{GROUP}/recover-disk"
"""Annotations of a new object: the TrashItem whose data it takes; a VM's volume: which disk."""
ADOPTED_BY = f"{GROUP}/adopted-by"
"""Annotation of a TrashItem: the name and the uid of the object that recovers it, name/uid."""
KEPT_BY = f"{GROUP}/kept-by"
"""Annotation of a VM's volume that is deleted: the TrashItem that has its data."""

HOME = "default"
"""The namespace of items of kinds that have none, as Kubernetes' Events have it."""
DAY = 86400
_RETENTION = {"VirtualMachine": 7 * DAY}
_DEFAULT_RETENTION = 3 * DAY
_TERMINATING = "being terminated"


def trash_owner(uid: str) -> str:
    """Who owns the space of a trashed volume in the ledger."""
    return f"trash/{uid}"


def is_delayed(obj: Resource, ctx: Context) -> bool:
    """Are its data to be kept? Not if it is deleted along with what they lie on."""
    return obj.spec.deletion_policy == "Delay" and not ctx.store.goes_along(obj)


async def keep(
    obj: Resource,
    ctx: Context,
    *,
    disks: Iterable[TrashedDisk] = (),
    nics: Iterable[TrashedNic] = (),
    backup_storage: ObjectRef | None = None,
) -> TrashItem | None:
    """The TrashItem of ``obj``, made or found; None where none can be made any more."""
    subject = Subject(
        kind=key_of(obj).kind,
        name=obj.name,
        uid=obj.uid,
        manifest=manifest_of(obj),
    )
    spec = TrashItemSpec(
        subject=subject,
        expires_at=utc(ctx.clock.now() + _retention(obj.spec, subject.kind)),
        disks=list(disks),
        nics=list(nics),
        backup_storage_ref=backup_storage,
    )
    name, namespace = _item_name(obj), _home(obj)
    meta = ObjectMeta(name=name, namespace=namespace, finalizers=[FINALIZER])
    try:
        item: TrashItem = await ctx.objects.create(TrashItem(metadata=meta, spec=spec))
    except Transient as error:
        if error.reason == "Forbidden" and _TERMINATING in error.message:
            return None
        raise
    return item


def item_kept(obj: Resource, ctx: Context) -> bool:
    """Is its TrashItem there already?"""
    return ctx.store.get("TrashItem", _item_name(obj), _home(obj)) is not None


def _retention(spec: RecoverableSpec, kind: str) -> int:
    if spec.deletion_retention is not None:
        return duration_seconds(spec.deletion_retention)
    return _RETENTION.get(kind, _DEFAULT_RETENTION)


def _item_name(obj: Resource) -> str:
    return f"{obj.name}-{digest(obj.uid, length=8)}"


def manifest_of(obj: Resource) -> str:
    """What somebody would apply to have ``obj`` again."""
    hidden = {RECOVER_FROM, RECOVER_DISK, KEPT_BY}
    annotations = {k: v for k, v in obj.metadata.annotations.items() if k not in hidden}
    meta = {"labels": obj.metadata.labels, "annotations": annotations}
    return json.dumps({"metadata": meta, "spec": obj.spec.wire()}, sort_keys=True)


# -- recovering


def recovers(obj: Resource) -> bool:
    return RECOVER_FROM in obj.metadata.annotations


def item_of(obj: Resource, ctx: Context) -> TrashItem:
    """The item that ``obj`` is to be recovered from. Raises Terminal if there is none for it."""
    kind, namespace, name = item_key(obj)
    item: TrashItem | None = ctx.store.get(kind, name, namespace)
    if item is None or (item.deleting and not is_mine(item, obj)):
        raise _lost(
            f"TrashItem {name} does not exist any more: it expired, was deleted or was recovered "
            f"by another; remove the annotation {RECOVER_FROM} to start afresh"
        )
    return item


async def adopt(obj: Resource, ctx: Context) -> TrashItem:
    """Take its item for ``obj``. Raises Terminal if another has it, Conflict for a quicker one."""
    item = item_of(obj, ctx)
    if item.spec.subject.kind != key_of(obj).kind:
        raise _lost(f"TrashItem {item.name} is of a {item.spec.subject.kind}; recover it as that")
    taken = item.metadata.annotations.get(ADOPTED_BY)
    if taken not in (None, _mark(obj)):
        raise _lost(f"TrashItem {item.name} is being recovered by another object, {taken}")
    if taken is None:
        await mark_taken(item, _mark(obj), ctx)
        ctx.events.normal(obj, "Recovering", f"from TrashItem {item.name}")
    return item


def is_mine(item: TrashItem, obj: Resource) -> bool:
    """Did ``obj``, or the VM that it is a volume of, take the item?"""
    taken = item.metadata.annotations.get(ADOPTED_BY, "").rpartition("/")[2]
    return taken in (obj.uid, obj.metadata.annotations.get(VM_UID, obj.uid))


async def mark_taken(item: TrashItem, by: str | None, ctx: Context) -> None:
    """Write down who takes ``item``, or that nobody does. Raises Conflict if it has changed."""
    meta = {"annotations": {ADOPTED_BY: by}, "resourceVersion": item.metadata.resource_version}
    await ctx.objects.patch(key_of(item), {"metadata": meta})


def _mark(obj: Resource) -> str:
    return f"{obj.name}/{obj.uid}"


async def adopter_of(item: TrashItem, ctx: Context) -> Any:
    """Who recovers ``item``, or None: nobody, or it went away. The API is asked: data hang on it,
    and another replica may be at work on that object."""
    name, _, uid = item.metadata.annotations.get(ADOPTED_BY, "").partition("/")
    kind = item.spec.subject.kind
    namespace = "" if kind == "Image" else item.metadata.namespace or HOME
    found = await ctx.objects.read(Key(kind, namespace, name)) if uid else None
    return found if found is not None and found.uid == uid else None


def _lost(message: str) -> Terminal:
    return Terminal(message, reason="CannotRecover", retry_after=RETRY_FAILED)


def item_key(obj: Resource) -> Key:
    """The item that a recovering object names."""
    return Key("TrashItem", _home(obj), obj.metadata.annotations[RECOVER_FROM])


def _home(obj: Resource) -> str:
    """The namespace of its item."""
    return obj.metadata.namespace or HOME


def manifest(text: str) -> dict[str, Any]:
    """What manifest_of wrote: metadata and spec."""
    found: dict[str, Any] = json.loads(text)
    return found
