"""Cluster: hosts of one hypervisor and architecture that share storage and networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import BaseSpec, BaseStatus, Column, Immutable, KindInfo, Resource, Switch
from crds.refs import ObjectRef, Ref


class ClusterSpec(BaseSpec):
    zone_ref: Annotated[
        ObjectRef, Ref("Zone", on_delete="cascade"), Immutable("a cluster stays in its zone")
    ]
    state: Switch = "Enabled"
    hypervisor_type: Annotated[
        Literal["KVM", "Simulator"],
        Field(description="What its hosts run VMs with; Simulator only pretends."),
        Immutable("hosts were added for this hypervisor; create another cluster"),
    ] = "KVM"
    architecture: Annotated[
        Literal["x86_64", "aarch64"],
        Field(description="Of its hosts' processors."),
        Immutable("hosts were added for this architecture; create another cluster"),
    ] = "x86_64"


class ClusterStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "Deleting"] = ""
    hosts: int = Field(default=0, description="Hosts in this cluster.")
    connected_hosts: int = Field(default=0, description="Hosts whose status is Connected.")


class Cluster(Resource):
    """Hosts of one hypervisor that share storage and networks."""

    INFO = KindInfo(
        plural="clusters",
        singular="cluster",
        columns=(
            Column("State", ".status.state"),
            Column("Zone", ".spec.zoneRef.name"),
            Column("Hosts", ".status.hosts", "integer"),
            Column("Connected", ".status.connectedHosts", "integer", priority=1),
            Column("Hypervisor", ".spec.hypervisorType", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "Cluster"
    spec: ClusterSpec
    status: ClusterStatus = ClusterStatus()
