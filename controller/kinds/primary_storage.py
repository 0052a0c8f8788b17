"""PrimaryStorage, type Local: a directory and a capacity pool on each host of its clusters."""

from __future__ import annotations

from collections.abc import Iterable

from agents.wire import StorageArgs, StorageResult
from controller.errors import AgentFailed, AgentUnreachable
from controller.keys import Key
from controller.kinds.support import host_endpoint, jitter, key_of, together, wake_unscheduled
from controller.reconcile.actuator import Actuator, Context, Outcome, Store
from crds.base import format_quantity
from crds.refs import Reference
from crds.v1alpha1.cluster import Cluster
from crds.v1alpha1.host import Host
from crds.v1alpha1.primary_storage import PrimaryStorage

REFRESH = 30.0
"""Seconds after which free space is counted again."""


def storage_scope(storage: PrimaryStorage, host: Host) -> str:
    """The pool of bytes that volumes on this host claim from."""
    return f"storage/{storage.uid}/{host.uid}"


def serves(storage: PrimaryStorage, cluster: str) -> bool:
    return any(ref.name == cluster for ref in storage.spec.cluster_refs)


def _of_host(host: Host, store: Store) -> Iterable[Key]:
    return _of(host.spec.cluster_ref.name, store)


def _of_cluster(cluster: Cluster, store: Store) -> Iterable[Key]:
    return _of(cluster.name, store)


def _of(cluster: str, store: Store) -> Iterable[Key]:
    return [key_of(s) for s in store.list("PrimaryStorage") if serves(s, cluster)]


class PrimaryStorageActuator(Actuator[PrimaryStorage]):
    """Makes its directory on each connected host, once per connection of the host."""

    model = PrimaryStorage
    watches = {"Host": _of_host, "Cluster": _of_cluster}

    def __init__(self) -> None:
        self._ensured: dict[str, set[str]] = {}  # uid → ids of the operations done

    async def reconcile(self, obj: PrimaryStorage, ctx: Context) -> Outcome:
        obj.status.state = obj.spec.state
        hosts = [h for h in ctx.store.list("Host") if serves(obj, h.spec.cluster_ref.name)]
        connected = [h for h in hosts if h.status.status == "Connected" and not h.deleting]
        await self._drop_strangers(obj, hosts, ctx)
        problems = [p for p in await together(self._ensure(obj, h, ctx) for h in connected) if p]
        await _count(obj, ctx)
        obj.status.hosts = len(connected) - len(problems)
        obj.status.status = "Connected" if obj.status.hosts else "Disconnected"
        return _outcome(obj, problems)

    async def delete(self, obj: PrimaryStorage, ctx: Context) -> Outcome:
        """Its volumes are gone by now; the empty directories stay."""
        obj.status.state = "Deleting"
        for pool in await ctx.ledger.pools(f"storage/{obj.uid}/"):
            await ctx.ledger.drop_pool(pool.scope)
        self._ensured.pop(obj.uid, None)
        return Outcome()

    def waits_for(self, obj: PrimaryStorage, reference: Reference) -> bool:
        return not obj.status.state

    async def _ensure(self, obj: PrimaryStorage, host: Host, ctx: Context) -> str:
        """The directory and the pool on one host. Returns what is wrong, if anything."""
        since = host.status.connected_at
        operation = f"{obj.uid}.{host.uid}.{int(since.timestamp()) if since else 0}"
        done = self._ensured.setdefault(obj.uid, set())
        if operation in done:
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
        done.add(operation)
        _wake_those_it_serves(obj, host, ctx)
        return ""

    async def _drop_strangers(
        self, obj: PrimaryStorage, hosts: Iterable[Host], ctx: Context
    ) -> None:
        """Hosts that left (their cluster was detached) offer no room any more; what volumes
        claimed there stays claimed until they are deleted."""
        mine = {storage_scope(obj, host) for host in hosts}
        for pool in await ctx.ledger.pools(f"storage/{obj.uid}/"):
            if pool.scope not in mine and not any(pool.used.values()):
                await ctx.ledger.drop_pool(pool.scope)


def _wake_those_it_serves(obj: PrimaryStorage, host: Host, ctx: Context) -> None:
    """VMs that look for a place, and volumes that are to be made on ``host`` or came back there."""
    wake_unscheduled(ctx)
    for volume, _ in ctx.store.referrers(obj, "Volume"):
        bound = volume.spec.host_ref is not None and volume.spec.host_ref.name == host.name
        if bound and volume.status.state != "Ready":
            ctx.wake(key_of(volume))


def _bytes(obj: PrimaryStorage, room: StorageResult, ctx: Context) -> int:
    reserved = obj.spec.reserved_capacity
    kept = ctx.tuning.reserved_storage if reserved is None else reserved
    return int(max(0, room.total - kept) * ctx.tuning.storage_ratio)


async def _count(obj: PrimaryStorage, ctx: Context) -> None:
    pools = await ctx.ledger.pools(f"storage/{obj.uid}/")
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
