"""Reads what allocation needs from the store and the ledger."""

from __future__ import annotations

from controller.kinds.allocation.model import Candidate, Storage
from controller.kinds.availability import takes_new
from controller.kinds.host import host_scope
from controller.kinds.primary_storage import STORAGE, serves, storage_scope
from controller.ledger.base import Pool
from controller.reconcile.actuator import Context
from crds.v1alpha1.host import Host
from crds.v1alpha1.primary_storage import PrimaryStorage


async def candidates(ctx: Context) -> list[Candidate]:
    """Every host as it is now."""
    pools = {p.scope: p for prefix in ("host/", STORAGE) for p in await ctx.ledger.pools(prefix)}
    storages = [s for s in ctx.store.list("PrimaryStorage") if not s.deleting]
    clusters = {c.name: c for c in ctx.store.list("Cluster")}
    zones = {z.name: z for z in ctx.store.list("Zone")}
    attached = _attached_networks(ctx)
    found = []
    for host in ctx.store.list("Host"):
        cluster = clusters.get(host.spec.cluster_ref.name)
        zone = zones.get(cluster.spec.zone_ref.name) if cluster else None
        pool = pools.get(host_scope(host))
        capacity = pool.capacity if pool else {}
        found.append(
            Candidate(
                name=host.name,
                uid=host.uid,
                cluster=host.spec.cluster_ref.name,
                zone=zone.name if zone else "",
                state="Deleting" if host.deleting else host.spec.state,
                status=host.status.status,
                cluster_enabled=cluster is not None and cluster.spec.state == "Enabled",
                zone_enabled=zone is not None and zone.spec.state == "Enabled",
                architecture=host.status.architecture,
                networks=attached.get(host.spec.cluster_ref.name, frozenset()),
                free={k: pool.free(k) for k in capacity} if pool else {},
                used=pool.used if pool else {},
                storages=_storages(host, storages, pools),
                labels=host.metadata.labels,
                tags=(*(tag.name for tag in host.spec.tags), *host.spec.system_tags),
            )
        )
    return found


def _attached_networks(ctx: Context) -> dict[str, frozenset[str]]:
    """Cluster → L2 networks attached to it."""
    attached: dict[str, set[str]] = {}
    for network in ctx.store.list("L2Network"):
        for ref in network.spec.cluster_refs:
            attached.setdefault(ref.name, set()).add(network.name)
    return {cluster: frozenset(names) for cluster, names in attached.items()}


def _storages(
    host: Host, storages: list[PrimaryStorage], pools: dict[str, Pool]
) -> tuple[Storage, ...]:
    """Those that serve the host and have a pool there."""
    seen = []
    for storage in storages:
        scope = storage_scope(storage, host)
        if scope in pools and serves(storage, host.spec.cluster_ref.name):
            free = pools[scope].free("bytes")
            seen.append(Storage(storage.name, scope, free, takes_new(storage)))
    return tuple(seen)
