"""PrimaryStorage, type Local: a directory and a capacity pool on each host of its clusters."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from agents.wire import CachePruneArgs, Empty, StorageArgs, StorageRemoveArgs, StorageResult
from controller.errors import AgentFailed, AgentUnreachable
from controller.keys import Key
from controller.kinds.availability import inherited, users_running
from controller.kinds.support import (
    answers,
    digest,
    host_endpoint,
    jitter,
    key_of,
    on_host,
    together,
    wake_unscheduled,
)
from controller.reconcile.actuator import Actuator, Context, News, Outcome, Store
from controller.reconcile.holdings import LEDGER, POOLS, Holding
from controller.workflow.step import Scope
from crds.base import format_quantity
from crds.refs import Reference
from crds.v1alpha1.host import Host
from crds.v1alpha1.primary_storage import PrimaryStorage

LOOK = 2.0
"""Seconds between two looks at VMs that are being stopped."""
REFRESH = 30.0
"""Seconds after which free space is counted again."""


STORAGE = "storage/"
"""What every pool of bytes in the ledger begins with."""

Place = tuple[PrimaryStorage, Host]


def storage_scope(storage: PrimaryStorage, host: Host) -> str:
    """The pool of bytes that volumes on this host claim from."""
    return f"{pools_of(storage)}{host.uid}"


def pools_of(storage: PrimaryStorage) -> str:
    """What all of its pools begin with."""
    return f"{STORAGE}{storage.uid}/"


def serves(storage: PrimaryStorage, cluster: str) -> bool:
    return any(ref.name == cluster for ref in storage.spec.cluster_refs)


async def prune_caches(scope: Scope[Any], image: str, where: Iterable[Place]) -> None:
    """Remove the cached image of that uid; where volumes are based on it, it stays.

    Hosts that are away are left out: they are looked through when they connect again. Raises as
    steps do; what an agent cannot remove is not worth failing for.
    """
    await together([_prune(scope, image, *place) for place in where])


def places(ctx: Context) -> list[Place]:
    """All pairs of a primary storage and a host that it serves."""
    hosts = list(ctx.store.list("Host"))
    return [
        (storage, host)
        for storage in ctx.store.list("PrimaryStorage")
        for host in hosts
        if serves(storage, host.spec.cluster_ref.name)
    ]


async def _prune(scope: Scope[Any], image: str, storage: PrimaryStorage, host: Host) -> None:
    ctx, part = scope.ctx, digest(storage.uid, host.uid)
    if host.status.status != "Connected" or not await answers(host, ctx):
        return
    args = CachePruneArgs(path=storage.spec.path)
    try:
        await on_host(scope, host, "image.prune", args, Empty, resource=image, part=part)
    except AgentFailed as failure:
        where = f"{storage.spec.path} on host {host.name}"
        why = f"a cached image was left in {where}: {failure.message}"
        ctx.events.warning(scope.obj, "LeftBehind", why)


def _of_host(host: News, store: Store) -> Iterable[Key]:
    return [key for cluster in host.refs("Cluster") for key in _of(cluster, store)]


def _of_cluster(cluster: News, store: Store) -> Iterable[Key]:
    return _of(cluster.key, store)


def _of(cluster: Key, store: Store) -> Iterable[Key]:
    return [key for key, _ in store.users(cluster, "PrimaryStorage")]


class PrimaryStorageActuator(Actuator[PrimaryStorage]):
    """Makes its directory on each connected host, once per connection of the host and spec."""

    model = PrimaryStorage
    watches = {"Host": _of_host, "Cluster": _of_cluster}

    def __init__(self) -> None:
        self._ensured: dict[str, dict[str, str]] = {}  # uid → host's uid → operation done last

    async def reconcile(self, obj: PrimaryStorage, ctx: Context) -> Outcome:
        leaving = _show_state(obj, ctx)
        hosts = [h for h in ctx.store.list("Host") if serves(obj, h.spec.cluster_ref.name)]
        connected = [h for h in hosts if h.status.status == "Connected" and not h.deleting]
        left = [self._leave(obj, *place, ctx) for place in await _left(obj, hosts, ctx)]
        found = await together([*(self._ensure(obj, host, ctx) for host in connected), *left])
        problems = [problem for problem in found if problem]
        await _count(obj, ctx)
        obj.status.hosts = sum(not problem for problem in found[: len(connected)])
        obj.status.status = "Connected" if obj.status.hosts else "Disconnected"
        return _leaving(leaving) if leaving else _outcome(obj, problems)

    async def delete(self, obj: PrimaryStorage, ctx: Context) -> Outcome:
        """Its volumes are gone by now; what hosts keep for them goes, too."""
        obj.status.state = "Deleting"
        await together([_clear(obj, host, ctx) for host in await _used(obj, ctx)])
        for pool in await ctx.ledger.pools(pools_of(obj)):
            await ctx.ledger.drop_pool(pool.scope)
        self._ensured.pop(obj.uid, None)
        return Outcome()

    def holdings(self, obj: PrimaryStorage, store: Store) -> Iterable[Holding]:
        """A pool on each host; where it left, as long as volumes are there."""
        hosts = store.list("Host")
        return [Holding(LEDGER, POOLS, storage_scope(obj, h), needed=False) for h in hosts]

    def waits_for(self, obj: PrimaryStorage, reference: Reference) -> bool:
        return not obj.status.state

    async def _ensure(self, obj: PrimaryStorage, host: Host, ctx: Context) -> str:
        """The directory and the pool on one host. Returns what is wrong, if anything."""
        since = host.status.connected_at
        when = f"{int(since.timestamp()) if since else 0}.{obj.metadata.generation}"
        operation = f"{obj.uid}.{host.uid}.{when}"
        done = self._ensured.setdefault(obj.uid, {})
        if done.get(host.uid) == operation:
            return ""
        try:
            room = await ctx.agents.run(
                host_endpoint(host, ctx),
                "storage.ensure",
                obj.uid,
                StorageArgs(path=obj.spec.path),
                StorageResult,
                operation=operation,
                owner=key_of(obj),
            )
        except (AgentFailed, AgentUnreachable) as error:
            return f"{host.name}: {error.message}"
        await ctx.ledger.set_pool(storage_scope(obj, host), {"bytes": _bytes(obj, room, ctx)})
        await _prune_forgotten(obj, host, operation, ctx)
        done[host.uid] = operation
        _wake_those_it_serves(obj, host, ctx)
        return ""

    async def _leave(self, obj: PrimaryStorage, host: Host | None, scope: str, ctx: Context) -> str:
        """Offer no room any more on a host that left (its cluster was detached, or it is gone),
        and clean it up. Returns what is wrong, if anything."""
        await ctx.ledger.set_pool(scope, {"bytes": 0})
        if host is not None and not _shared(obj, host, ctx):
            try:
                await _clear(obj, host, ctx)
            except (AgentFailed, AgentUnreachable) as error:
                return f"{host.name}, which it left: {error.message}"
        await ctx.ledger.drop_pool(scope)
        return ""


def _show_state(obj: PrimaryStorage, ctx: Context) -> list[str]:
    """Set its state; the VMs that are still to be stopped before it is in maintenance."""
    if obj.spec.state != "Maintenance":
        zone = ctx.store.get("Zone", obj.spec.zone_ref.name)
        obj.status.state = inherited(obj.spec.state, zone)[0]
        return []
    names = sorted(vm.name for vm in users_running(key_of(obj), ctx.store))
    obj.status.state = "PreMaintenance" if names else "Maintenance"
    return names


def _leaving(names: list[str]) -> Outcome:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return Outcome(False, "Evacuating", f"VMs are being stopped: {shown}", LOOK)


async def _left(
    obj: PrimaryStorage, hosts: Iterable[Host], ctx: Context
) -> list[tuple[Host | None, str]]:
    """(host, pool) where it served and serves no more. What volumes claimed there stays claimed
    until they are deleted."""
    mine = {storage_scope(obj, host) for host in hosts}
    pools = await ctx.ledger.pools(pools_of(obj))
    empty = [p.scope for p in pools if p.scope not in mine and not any(p.used.values())]
    known = {storage_scope(obj, h): h for h in ctx.store.list("Host")} if empty else {}
    return [(known.get(scope), scope) for scope in empty]


async def _prune_forgotten(obj: PrimaryStorage, host: Host, operation: str, ctx: Context) -> None:
    """Remove cached images that were deleted while ``host`` was away. Not worth failing for."""
    known = {image.uid for image in ctx.store.list("Image")}
    endpoint, args = host_endpoint(host, ctx), CachePruneArgs(path=obj.spec.path)
    with suppress(AgentFailed, AgentUnreachable):
        forgotten = set((await ctx.agents.inventory(endpoint)).images) - known
        await together(
            [
                ctx.agents.run(
                    endpoint, "image.prune", uid, args, Empty,
                    operation=f"{operation}.{digest(uid)}", owner=key_of(obj),
                )
                for uid in sorted(forgotten)
            ]
        )  # fmt: skip


async def _used(obj: PrimaryStorage, ctx: Context) -> list[Host]:
    """The hosts that have its directory, unless another storage lives there, too."""
    pools = {pool.scope for pool in await ctx.ledger.pools(pools_of(obj))}
    return [
        host
        for host in ctx.store.list("Host")
        if (serves(obj, host.spec.cluster_ref.name) or storage_scope(obj, host) in pools)
        and host.status.connected_at is not None
        and not _shared(obj, host, ctx)
    ]


def _shared(obj: PrimaryStorage, host: Host, ctx: Context) -> bool:
    """Does another storage that stays have the same directory on ``host``?"""
    return any(
        other.uid != obj.uid
        and other.spec.path == obj.spec.path
        and serves(other, host.spec.cluster_ref.name)
        and not ctx.store.doomed(other)
        for other in ctx.store.list("PrimaryStorage")
    )


async def _clear(obj: PrimaryStorage, host: Host, ctx: Context) -> None:
    """Remove what ``host`` keeps. Raises until it is gone or nobody is left to ask."""
    try:
        if await answers(host, ctx):
            await ctx.agents.run(
                host_endpoint(host, ctx),
                "storage.remove",
                obj.uid,
                StorageRemoveArgs(path=obj.spec.path),
                Empty,
                operation=f"{obj.uid}.{host.uid}.remove.{obj.metadata.generation}",
                owner=key_of(obj),
            )
            return
    except AgentUnreachable:
        # A host that is being deleted is not pinged: ``answers`` says when to give it up.
        if host.deleting or host.status.status == "Connected":
            raise
    left = f"{obj.spec.path} was left on host {host.name}, which does not answer"
    ctx.events.warning(obj, "LeftBehind", left)


def _wake_those_it_serves(obj: PrimaryStorage, host: Host, ctx: Context) -> None:
    """VMs that look for a place, and volumes that are to be made on ``host`` or came back there."""
    wake_unscheduled(ctx)
    for volume, ref in ctx.store.users(key_of(host), "Volume"):
        known = ctx.store.entry(volume)
        here = any(target == key_of(obj) for _, target in ctx.store.targets(volume))
        if here and ref.path[0] == "spec" and known and known.state != "Ready":
            ctx.wake(volume)


def _bytes(obj: PrimaryStorage, room: StorageResult, ctx: Context) -> int:
    reserved = obj.spec.reserved_capacity
    kept = ctx.tuning.reserved_storage if reserved is None else reserved
    return int(max(0, room.total - kept) * ctx.tuning.storage_ratio)


async def _count(obj: PrimaryStorage, ctx: Context) -> None:
    pools = await ctx.ledger.pools(pools_of(obj))
    obj.status.total_capacity = format_quantity(sum(p.capacity.get("bytes", 0) for p in pools))
    free = sum(max(0, p.free("bytes")) for p in pools)
    obj.status.available_capacity = format_quantity(free)


def _outcome(obj: PrimaryStorage, problems: list[str]) -> Outcome:
    again = REFRESH * jitter(obj.uid)
    if obj.status.hosts:
        return Outcome(reason="Connected", message="; ".join(problems), requeue_after=again)
    if problems:
        return Outcome(False, "StorageFailed", "; ".join(problems), again)
    clusters = ", ".join(ref.name for ref in obj.spec.cluster_refs) or "none; set clusterRefs"
    return Outcome(False, "NoHosts", f"no host of its clusters ({clusters}) is connected", again)
