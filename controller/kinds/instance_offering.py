"""InstanceOffering: a size of VM, and how its host is chosen."""

from __future__ import annotations

from controller.kinds.allocation.strategies import check
from controller.reconcile.actuator import Actuator, Context, Outcome
from crds.v1alpha1.instance_offering import InstanceOffering


class InstanceOfferingActuator(Actuator[InstanceOffering]):
    """Raises Terminal for a strategy that no plugin brings, before any VM stumbles over it."""

    model = InstanceOffering

    async def reconcile(self, obj: InstanceOffering, ctx: Context) -> Outcome:
        obj.status.state = obj.spec.state
        check(obj.spec.allocator_strategy, ctx.allocators)
        return Outcome(reason=obj.spec.state)
