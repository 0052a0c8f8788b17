"""Where a volume is: its host, its primary storage, and the claim on its space."""

from __future__ import annotations

from agents.wire import VolumeResult
from controller.errors import Waiting
from controller.kinds.support import answers
from controller.reconcile.actuator import Context, Store
from crds.base import format_quantity
from crds.refs import ObjectRef
from crds.v1alpha1.host import Host
from crds.v1alpha1.primary_storage import PrimaryStorage
from crds.v1alpha1.volume import Volume

BYTES = "bytes"


def claim_owner(namespace: str, name: str) -> str:
    """Who owns a volume's space in the ledger."""
    return f"volume/{namespace}/{name}"


def owner_of(volume: Volume) -> str:
    return claim_owner(volume.metadata.namespace or "", volume.name)


def bound_host(volume: Volume, store: Store) -> Host | None:
    """The host that it is bound to, if it is in the API."""
    ref = volume.spec.host_ref
    found: Host | None = store.get("Host", ref.name) if ref else None
    return found


def bound_storage(volume: Volume, store: Store) -> PrimaryStorage | None:
    ref = volume.spec.primary_storage_ref
    found: PrimaryStorage | None = store.get("PrimaryStorage", ref.name) if ref else None
    return found


def placed(volume: Volume, ctx: Context) -> tuple[Host, PrimaryStorage]:
    """Host and storage of a bound volume. Raises Waiting if one of them went away meanwhile."""
    host, storage = bound_host(volume, ctx.store), bound_storage(volume, ctx.store)
    if host is None or storage is None:
        raise Waiting("its host or primary storage does not exist any more")
    return host, storage


async def reachable(volume: Volume, ctx: Context) -> tuple[Host, PrimaryStorage] | None:
    """Host and storage of a bound volume; None if nobody is left there to clean up. Raises what
    support.answers raises."""
    host, storage = bound_host(volume, ctx.store), bound_storage(volume, ctx.store)
    if host is None or storage is None or not await answers(host, ctx):
        return None
    return host, storage


def show_bits(volume: Volume, host: Host, made: VolumeResult) -> None:
    status = volume.status
    status.host_ref = ObjectRef(name=host.name)
    status.path, status.format = made.path, made.format
    status.bytes, status.size = made.size, format_quantity(made.size)


def show_no_bits(volume: Volume) -> None:
    status = volume.status
    status.path = status.format = status.size = status.image_uid = ""
    status.bytes, status.host_ref = 0, None


def tell_left_behind(volume: Volume, ctx: Context) -> None:
    """Tell where bits are that nobody could clean up, if there are any."""
    if volume.status.path and volume.spec.host_ref:
        left = f"{volume.status.path} was left on host {volume.spec.host_ref.name}"
        ctx.events.warning(volume, "LeftBehind", f"{left}, which is not reachable any more")
