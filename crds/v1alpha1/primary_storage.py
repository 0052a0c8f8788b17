"""PrimaryStorage: where volumes live. Type Local: a directory on each host."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import (
    BaseSpec,
    BaseStatus,
    Column,
    Connection,
    Immutable,
    KindInfo,
    ListMap,
    Quantity,
    Resource,
)
from crds.refs import ObjectRef, Ref


class PrimaryStorageSpec(BaseSpec):
    zone_ref: Annotated[
        ObjectRef, Ref("Zone", on_delete="cascade"), Immutable("primary storage stays in its zone")
    ]
    cluster_refs: Annotated[
        list[Annotated[ObjectRef, Ref("Cluster", on_delete="detach", wait=False)]],
        Field(max_length=64, description="Clusters whose hosts use it."),
        ListMap("name"),
    ] = []
    type: Annotated[
        Literal["Local"],
        Field(description="Local: a directory on each host."),
        Immutable("the data would have to move; create another"),
    ] = "Local"
    path: Annotated[
        str,
        Field(pattern=r"^(/[A-Za-z0-9._-]+)+$", max_length=1024, description="On each host."),
        Immutable("volumes are stored there; create another primary storage"),
    ]
    state: Annotated[
        Literal["Enabled", "Disabled", "Maintenance"],
        Field(description="Disabled: no new volumes. Maintenance: VMs that use it are stopped."),
    ] = "Enabled"
    reserved_capacity: Quantity | None = Field(
        default=None, description="Kept free on each host; absent: 1Gi."
    )


class PrimaryStorageStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "PreMaintenance", "Maintenance", "Deleting"] = ""
    status: Connection = ""
    hosts: int = Field(default=0, description="Connected hosts that serve it.")
    total_capacity: str = Field(default="", description="Of all hosts, a quantity.")
    available_capacity: str = Field(default="", description="Not yet promised to volumes.")


class PrimaryStorage(Resource):
    """Where volumes live."""

    INFO = KindInfo(
        plural="primarystorages",
        singular="primarystorage",
        short_names=("ps",),
        columns=(
            Column("State", ".status.state"),
            Column("Status", ".status.status"),
            Column("Type", ".spec.type"),
            Column("Capacity", ".status.totalCapacity"),
            Column("Available", ".status.availableCapacity"),
            Column("Path", ".spec.path", priority=1),
            Column("Hosts", ".status.hosts", "integer", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "PrimaryStorage"
    spec: PrimaryStorageSpec
    status: PrimaryStorageStatus = PrimaryStorageStatus()
