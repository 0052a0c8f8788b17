"""Zone: a data centre; what is in one zone cannot reach another's hosts or networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crds.base import BaseSpec, BaseStatus, Column, KindInfo, Resource, Switch


class ZoneSpec(BaseSpec):
    state: Switch = "Enabled"
    default: bool = Field(default=False, description="Used where no zone is named.")


class ZoneStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "Deleting"] = ""


class Zone(Resource):
    """A data centre: the root of everything that is deleted with it."""

    INFO = KindInfo(
        plural="zones",
        singular="zone",
        columns=(
            Column("State", ".status.state"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "Zone"
    spec: ZoneSpec = ZoneSpec()
    status: ZoneStatus = ZoneStatus()
