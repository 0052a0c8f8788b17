"""Zone: a data centre."""

from __future__ import annotations

from controller.reconcile.actuator import Actuator, Context, Outcome
from crds.v1alpha1.zone import Zone


class ZoneActuator(Actuator[Zone]):
    """A zone is a name and a switch: Disabled keeps new VMs out and is Ready all the same."""

    model = Zone

    async def reconcile(self, obj: Zone, ctx: Context) -> Outcome:
        obj.status.state = obj.spec.state
        return Outcome(reason=obj.spec.state)

    async def delete(self, obj: Zone, ctx: Context) -> Outcome:
        obj.status.state = "Deleting"
        return Outcome()
