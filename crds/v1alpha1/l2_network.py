"""L2Network: a broadcast domain. Type NoVlan: a bridge, on a host's interface or on none."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import BaseSpec, BaseStatus, Column, Immutable, KindInfo, ListMap, Resource
from crds.refs import ObjectRef, Ref


class L2NetworkSpec(BaseSpec):
    zone_ref: Annotated[
        ObjectRef, Ref("Zone", on_delete="cascade"), Immutable("a network stays in its zone")
    ]
    cluster_refs: Annotated[
        list[Annotated[ObjectRef, Ref("Cluster", on_delete="detach", wait=False)]],
        Field(max_length=64, description="Clusters whose hosts carry it."),
        ListMap("name"),
    ] = []
    type: Annotated[
        Literal["NoVlan"],
        Field(description="NoVlan: untagged frames."),
        Immutable("create another network"),
    ] = "NoVlan"
    physical_interface: (
        Annotated[
            str,
            Field(
                pattern=r"^[A-Za-z0-9._-]{1,15}$",
                max_length=15,
                description="The hosts' interface that joins the bridge; absent: none does.",
            ),
            Immutable("running VMs use it; create another network"),
        ]
        | None
    ) = None


class L2NetworkStatus(BaseStatus):
    state: Literal["", "Ready", "Deleting"] = ""
    bridge: str = Field(default="", description="The bridge's name on the hosts.")


class L2Network(Resource):
    """A broadcast domain."""

    INFO = KindInfo(
        plural="l2networks",
        singular="l2network",
        short_names=("l2",),
        columns=(
            Column("State", ".status.state"),
            Column("Type", ".spec.type"),
            Column("Zone", ".spec.zoneRef.name"),
            Column("Interface", ".spec.physicalInterface", priority=1),
            Column("Bridge", ".status.bridge", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "L2Network"
    spec: L2NetworkSpec
    status: L2NetworkStatus = L2NetworkStatus()
