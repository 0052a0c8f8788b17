"""DiskOffering: a size of volume."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import BaseSpec, BaseStatus, Column, Immutable, KindInfo, Quantity, Resource, Switch


class DiskOfferingSpec(BaseSpec):
    size: Annotated[Quantity, Immutable("volumes were sold with it; create another offering")] = (
        Field(description="Of a volume, in bytes.")
    )
    state: Switch = "Enabled"


class DiskOfferingStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "Deleting"] = ""


class DiskOffering(Resource):
    """Size of a volume."""

    INFO = KindInfo(
        plural="diskofferings",
        singular="diskoffering",
        short_names=("do",),
        columns=(
            Column("State", ".status.state"),
            Column("Size", ".spec.size"),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "DiskOffering"
    spec: DiskOfferingSpec
    status: DiskOfferingStatus = DiskOfferingStatus()
