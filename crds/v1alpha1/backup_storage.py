"""BackupStorage: where images are kept. Type HTTP: a directory that an agent serves."""

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
    Switch,
)
from crds.refs import ObjectRef, Ref


class BackupStorageSpec(BaseSpec):
    zone_refs: Annotated[
        list[Annotated[ObjectRef, Ref("Zone", on_delete="keep", wait=False)]],
        Field(max_length=64, description="Zones that use it; none: every zone."),
        ListMap("name"),
    ] = []
    type: Annotated[
        Literal["HTTP"],
        Field(description="HTTP: a directory that an agent serves."),
        Immutable("the images would have to move; create another"),
    ] = "HTTP"
    management_ip: Annotated[
        str, Field(min_length=1, max_length=253, description="Where its agent listens.")
    ]
    agent_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="The agent's port; absent: the controller's --agent-port (7070)."
    )
    path: Annotated[
        str,
        Field(pattern=r"^(/[A-Za-z0-9._-]+)+$", max_length=1024, description="Images' directory."),
        Immutable("images are stored there; create another backup storage"),
    ]
    state: Switch = "Enabled"
    reserved_capacity: Quantity | None = Field(default=None, description="Absent: 1Gi.")


class BackupStorageStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "Deleting"] = ""
    status: Connection = ""
    total_capacity: str = Field(default="", description="A quantity.")
    available_capacity: str = Field(default="", description="Free for images, a quantity.")
    agent_version: str = Field(default="", description="Of its agent.")
    missed_pings: int = Field(default=0, description="In a row.")


class BackupStorage(Resource):
    """Where images are kept. It outlives zones."""

    INFO = KindInfo(
        plural="backupstorages",
        singular="backupstorage",
        short_names=("bs",),
        columns=(
            Column("State", ".status.state"),
            Column("Status", ".status.status"),
            Column("Type", ".spec.type"),
            Column("Capacity", ".status.totalCapacity"),
            Column("Available", ".status.availableCapacity"),
            Column("Path", ".spec.path", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "BackupStorage"
    spec: BackupStorageSpec
    status: BackupStorageStatus = BackupStorageStatus()
