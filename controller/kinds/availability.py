"""What Disabled and Maintenance do to others: states go down from zone to cluster to host.

::

    Zone Disabled        → its clusters and primary storage are, too; a Disabled cluster's hosts are
    Disabled             → nothing new is placed there; what is there goes on
    host Maintenance     → its VMs are stopped, and started elsewhere if their disks can be there
    storage Maintenance, → VMs with a disk on it are stopped, and wait until it is back
    or detached
    L2 network detached  → NICs on it are unplugged where it is missing (``vm_model.live_nics``)

A state that comes from above is shown in ``status.state``; the spec stays as people wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controller.errors import Waiting
from controller.keys import Key
from controller.kinds.support import RETRY_FAILED
from controller.kinds.vm_model import volume_of
from controller.reconcile.actuator import Store
from crds.base import Resource
from crds.v1alpha1.primary_storage import PrimaryStorage
from crds.v1alpha1.virtual_machine import VirtualMachine
from crds.v1alpha1.volume import Volume


def inherited(own: Any, above: Resource | None) -> tuple[Any, str]:
    """(the state that holds, why if it is not its own): what is below the Disabled is Disabled."""
    if own == "Enabled" and above is not None and above.status.state == "Disabled":
        return "Disabled", f"{above.kind} {above.name} is Disabled"
    return own, ""


def enabled(obj: Resource | None, what: str) -> None:
    """Raises Waiting if nothing new may use ``obj``; what is not there is for others to miss."""
    if obj is not None and "Disabled" in (obj.spec.state, obj.status.state):
        raise Waiting(
            f"{obj.kind} {obj.name} is Disabled; enable it, or {what}",
            reason=f"{obj.kind}Disabled",
            retry_after=RETRY_FAILED,
        )


def takes_new(storage: PrimaryStorage) -> bool:
    """May new volumes be made on it?"""
    return storage.spec.state == "Enabled" and storage.status.state != "Disabled"


# -- storage that VMs cannot have


def storages_away(vm: VirtualMachine, store: Store) -> list[str]:
    """Why ``vm`` cannot run: the storage of its disks that is in maintenance, or that does not
    serve the cluster where it is."""
    found = []
    for disk in vm.status.disks:
        volume = volume_of(vm, disk.volume_ref.name, store)
        why = storage_away(volume, vm.status.cluster_ref, store) if volume else ""
        if why:
            found.append(why)
    return list(dict.fromkeys(found))


def storage_away(volume: Volume, cluster: Any, store: Store) -> str:
    """Why nothing may run from ``volume`` (in this cluster, if one is given); "": it may."""
    ref = volume.spec.primary_storage_ref
    storage: PrimaryStorage | None = store.get("PrimaryStorage", ref.name) if ref else None
    if storage is None:
        return ""
    if storage.spec.state == "Maintenance":
        return f"PrimaryStorage {storage.name} is in Maintenance"
    name = cluster.name if cluster is not None else _cluster_of(volume, store)
    if name and all(each.name != name for each in storage.spec.cluster_refs):
        return f"PrimaryStorage {storage.name} is not attached to cluster {name}"
    return ""


def _cluster_of(volume: Volume, store: Store) -> str:
    """The cluster of the host that holds the data."""
    ref = volume.spec.host_ref
    host = store.get("Host", ref.name) if ref else None
    return host.spec.cluster_ref.name if host is not None else ""


def check_storages(vm: VirtualMachine, store: Store) -> None:
    """Raises Waiting while the VM's disks may not be used."""
    away = storages_away(vm, store)
    if away:
        raise Waiting("; ".join(away), reason="StorageAway", retry_after=RETRY_FAILED)


def users_running(storage: Key, store: Store) -> set[Key]:
    """VMs that run with a disk on ``storage``."""
    return {vm for vm in users_of(storage, store) if _has_host(vm, store)}


def users_of(storage: Key, store: Store) -> Iterator[Key]:
    """VMs that have a disk on ``storage``."""
    for volume, where in store.users(storage, "Volume"):
        if where.path[0] == "spec":
            for vm, disk in store.users(volume, "VirtualMachine"):
                if disk.path[0] == "status":
                    yield vm


def _has_host(vm: Key, store: Store) -> bool:
    return any(ref.path == ("status", "hostRef") for ref, _ in store.targets(vm))
