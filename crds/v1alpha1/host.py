"""Host: a machine that runs VMs, reached through the Kumulus agent on it."""

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
    Quantity,
    Resource,
    Timestamp,
)
from crds.refs import ObjectRef, Ref


class HostSpec(BaseSpec):
    cluster_ref: Annotated[
        ObjectRef, Ref("Cluster", on_delete="cascade"), Immutable("a host stays in its cluster")
    ]
    management_ip: Annotated[
        str, Field(min_length=1, max_length=253, description="Where the host's agent listens.")
    ]
    agent_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="The agent's port; absent: the controller's --agent-port (7070)."
    )
    state: Annotated[
        Literal["Enabled", "Disabled", "Maintenance"],
        Field(description="Disabled: no new VMs. Maintenance: its VMs are stopped first."),
    ] = "Enabled"
    reserved_memory: Quantity | None = Field(
        default=None, description="Memory kept for the host itself; absent: 1Gi."
    )
    reserved_cpu: Annotated[int, Field(ge=0, le=4096)] = Field(
        default=0, description="Virtual CPUs kept for the host itself."
    )


class HostStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "PreMaintenance", "Maintenance", "Deleting"] = ""
    status: Connection = ""
    cpu: int = Field(default=0, description="Physical CPUs (threads).")
    cpu_sockets: int = Field(default=0, description="Physical processors.")
    cpu_model: str = Field(default="", description="As the processor names itself.")
    memory: str = Field(default="", description="Physical memory, a quantity.")
    available_cpu: int = Field(default=0, description="vCPUs left, after over-provisioning.")
    available_memory: str = Field(default="", description="Not yet promised to VMs, a quantity.")
    architecture: str = Field(default="", description="Of its processors.")
    operating_system: str = Field(default="", description="Its name and version.")
    kernel: str = Field(default="", description="Its release.")
    hypervisor: str = Field(default="", description="KVM, QEMU (TCG) or Simulator.")
    hypervisor_version: str = Field(default="", description="Of KVM, QEMU or the simulator.")
    agent_version: str = Field(default="", description="Of its agent.")
    boot_id: str = Field(default="", description="Changes when the host restarts.")
    vms: int = Field(default=0, description="VMs placed here.")
    missed_pings: int = Field(default=0, description="In a row; three disconnect it.")
    connected_at: Timestamp | None = Field(default=None, description="When it connected last.")


class Host(Resource):
    """A machine that runs VMs."""

    INFO = KindInfo(
        plural="hosts",
        singular="host",
        columns=(
            Column("State", ".status.state"),
            Column("Status", ".status.status"),
            Column("Cluster", ".spec.clusterRef.name"),
            Column("CPU", ".status.cpu", "integer"),
            Column("Memory", ".status.memory"),
            Column("VMs", ".status.vms", "integer", priority=1),
            Column("Address", ".spec.managementIp", priority=1),
            Column("Hypervisor", ".status.hypervisor", priority=1),
            Column("Version", ".status.hypervisorVersion", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "Host"
    spec: HostSpec
    status: HostStatus = HostStatus()
