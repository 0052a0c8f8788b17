"""InstanceOffering: a size of VM."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import BaseSpec, BaseStatus, Column, Immutable, KindInfo, Quantity, Resource, Switch


class InstanceOfferingSpec(BaseSpec):
    cpu: Annotated[
        int,
        Field(ge=1, le=1024, description="Virtual CPUs."),
        Immutable("VMs were sold with it; create another offering"),
    ]
    memory: Annotated[Quantity, Immutable("VMs were sold with it; create another offering")] = (
        Field(description="Of a VM, in bytes.")
    )
    allocator_strategy: Annotated[str, Field(max_length=63)] = Field(
        default="LeastVmPreferred",
        description="LeastVmPreferred, LastHostPreferred, Designated or a plugin's name.",
    )
    state: Switch = "Enabled"


class InstanceOfferingStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "Deleting"] = ""


class InstanceOffering(Resource):
    """CPU and memory of a VM."""

    INFO = KindInfo(
        plural="instanceofferings",
        singular="instanceoffering",
        short_names=("io", "flavor"),
        columns=(
            Column("State", ".status.state"),
            Column("CPU", ".spec.cpu", "integer"),
            Column("Memory", ".spec.memory"),
            Column("Strategy", ".spec.allocatorStrategy", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "InstanceOffering"
    spec: InstanceOfferingSpec
    status: InstanceOfferingStatus = InstanceOfferingStatus()
