"""What users write: the kind EnergyBudget, and the system tag energyClass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import BaseSpec, BaseStatus, Column, Immutable, KindInfo, Resource
from crds.refs import ObjectRef, Ref
from crds.tags import SystemTag, choice

TAGS = (
    SystemTag(
        "energyClass",
        "flexible: the VM starts only while its zone's EnergyBudget has room for it.",
        ("VirtualMachine",),
        (choice("class", "flexible", "critical"),),
    ),
)


class EnergyBudgetSpec(BaseSpec):
    zone_ref: Annotated[
        ObjectRef, Ref("Zone", on_delete="cascade"), Immutable("create a budget for the other zone")
    ]
    watts: Annotated[int, Field(ge=0, le=100_000_000)] = Field(
        description="What the VMs of the zone may draw together."
    )
    watts_per_cpu: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="What a running VM is taken to draw for each vCPU."
    )


class EnergyBudgetStatus(BaseStatus):
    state: Literal["", "Within", "Exceeded", "Deleting"] = ""
    watts: int = Field(default=0, description="What the running VMs draw.")


class EnergyBudget(Resource):
    """How much power the VMs of a zone may draw."""

    INFO = KindInfo(
        plural="energybudgets",
        singular="energybudget",
        short_names=("eb",),
        columns=(
            Column("State", ".status.state"),
            Column("Zone", ".spec.zoneRef.name"),
            Column("Watts", ".status.watts", "integer"),
            Column("Budget", ".spec.watts", "integer"),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "EnergyBudget"
    spec: EnergyBudgetSpec
    status: EnergyBudgetStatus = EnergyBudgetStatus()
