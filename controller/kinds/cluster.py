"""Cluster: hosts of one hypervisor."""

from __future__ import annotations

from collections.abc import Iterable

from controller.keys import Key
from controller.kinds.availability import inherited
from controller.reconcile.actuator import Actuator, Context, News, Outcome, Store
from crds.refs import Reference
from crds.v1alpha1.cluster import Cluster


def _cluster_of(host: News, store: Store) -> Iterable[Key]:
    return host.refs("Cluster")


class ClusterActuator(Actuator[Cluster]):
    """Counts its hosts. Disabled, also by its zone, keeps new VMs out."""

    model = Cluster
    watches = {"Host": _cluster_of}

    async def reconcile(self, obj: Cluster, ctx: Context) -> Outcome:
        hosts = [host for host, _ in ctx.store.referrers(obj, "Host")]
        obj.status.hosts = len(hosts)
        obj.status.connected_hosts = sum(h.status.status == "Connected" for h in hosts)
        zone = ctx.store.get("Zone", obj.spec.zone_ref.name)
        obj.status.state, why = inherited(obj.spec.state, zone)
        return Outcome(reason=obj.status.state, message=why)

    async def delete(self, obj: Cluster, ctx: Context) -> Outcome:
        obj.status.state = "Deleting"
        return Outcome()

    def waits_for(self, obj: Cluster, reference: Reference) -> bool:
        return not obj.status.state
