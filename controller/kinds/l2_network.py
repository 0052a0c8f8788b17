"""L2Network: a broadcast domain; on a host a bridge, made when the first NIC needs it."""

from __future__ import annotations

from collections.abc import Iterable

from controller.kinds.support import wake_unscheduled
from controller.reconcile.actuator import Actuator, Context, Outcome, Store
from controller.reconcile.holdings import Holding
from crds.refs import Reference
from crds.v1alpha1.l2_network import L2Network


def bridge_name(network: L2Network) -> str:
    """Interface names have at most 15 characters: ``br`` and 10 hex digits of the uid."""
    return "br" + network.uid.replace("-", "")[:10]


class L2NetworkActuator(Actuator[L2Network]):
    model = L2Network

    async def reconcile(self, obj: L2Network, ctx: Context) -> Outcome:
        obj.status.state = "Ready"
        obj.status.bridge = bridge_name(obj)
        wake_unscheduled(ctx)  # It may have been attached to another cluster.
        return Outcome()

    async def delete(self, obj: L2Network, ctx: Context) -> Outcome:
        """Nothing is left on hosts: bridges went with the last NIC on them."""
        obj.status.state = "Deleting"
        return Outcome()

    def holdings(self, obj: L2Network, store: Store) -> Iterable[Holding]:
        """Nothing of its own."""
        return ()

    def waits_for(self, obj: L2Network, reference: Reference) -> bool:
        return not obj.status.state
