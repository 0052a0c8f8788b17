"""DiskOffering: a size of volume."""

from __future__ import annotations

from controller.reconcile.actuator import Actuator, Context, Outcome
from crds.v1alpha1.disk_offering import DiskOffering


class DiskOfferingActuator(Actuator[DiskOffering]):
    model = DiskOffering

    async def reconcile(self, obj: DiskOffering, ctx: Context) -> Outcome:
        obj.status.state = obj.spec.state
        return Outcome(reason=obj.spec.state)
