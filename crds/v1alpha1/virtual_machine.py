"""VirtualMachine: a guest, its disks and its NICs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crds.base import (
    BaseStatus,
    Column,
    FieldErrors,
    Immutable,
    IPv4,
    KindInfo,
    ListMap,
    Model,
    Quantity,
    RecoverableSpec,
    Resource,
    Rule,
    Timestamp,
)
from crds.refs import ObjectRef, Ref
from crds.selectors import Selector
from crds.tags import SystemTag, address, choice, dns_label, named

_MAC = r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$"
DiskName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", max_length=32)]
State = Literal[
    "", "Created", "Starting", "Running", "Stopping", "Stopped", "Rebooting", "Pausing", "Paused",
    "Resuming", "Destroying", "Destroyed", "Migrating", "Error", "Unknown", "Crashed",
]  # fmt: skip


class RootDisk(Model):
    """The disk that the guest boots from; made from the image."""

    size: Quantity | None = Field(default=None, description="Absent: the offering's or image's.")
    disk_offering_ref: Annotated[ObjectRef, Ref("DiskOffering", on_delete="keep")] | None = None
    primary_storage_ref: Annotated[ObjectRef, Ref("PrimaryStorage", on_delete="cascade")] | None = (
        Field(default=None, description="Absent: chosen with the host.")
    )


class DataDisk(Model):
    """A data disk: an existing Volume, or a new one from an offering or a size."""

    name: DiskName = Field(description="Unique in the VM; a new volume is called <vm>-<name>.")
    volume_ref: Annotated[ObjectRef, Ref("Volume", on_delete="detach", wait=False)] | None = None
    disk_offering_ref: Annotated[ObjectRef, Ref("DiskOffering", on_delete="keep")] | None = None
    size: Quantity | None = Field(default=None, description="Of a new, empty disk.")
    delete_with_vm: bool = Field(
        default=False, description="A new disk outlives the VM unless this is set."
    )


class Nic(Model):
    """A network interface."""

    name: DiskName = Field(description="Unique in the VM.")
    l3_network_ref: Annotated[ObjectRef, Ref("L3Network", on_delete="detach")]
    ip: IPv4 | None = Field(
        default=None, description="A static address; absent: the next free one."
    )
    mac: Annotated[str, Field(pattern=_MAC, max_length=17)] | None = Field(
        default=None, description="Unicast, lower case; absent: a free one."
    )


class Placement(Model):
    """Where it may run; absent: anywhere that fits."""

    host_ref: Annotated[ObjectRef, Ref("Host", on_delete="stop", wait=False)] | None = None
    cluster_ref: Annotated[ObjectRef, Ref("Cluster", on_delete="stop", wait=False)] | None = None
    zone_ref: Annotated[ObjectRef, Ref("Zone", on_delete="cascade", wait=False)] | None = None
    host_selector: Selector | None = Field(
        default=None, description="Hosts with these labels and tags only; at the next start."
    )


class VirtualMachineSpec(RecoverableSpec):
    RULES = (
        Rule("has(self.instanceOfferingRef) || (has(self.cpu) && has(self.memory))",
             "give an instanceOfferingRef, or both cpu and memory"),
        Rule("!has(self.instanceOfferingRef) || (!has(self.cpu) && !has(self.memory))",
             "cpu and memory come from the instanceOfferingRef; give one or the other"),
        Rule("!has(self.dataDisks) || self.dataDisks.all(d, [has(d.volumeRef), has(d.size), "
             "has(d.diskOfferingRef)].filter(x, x).size() == 1)",
             "each data disk takes one of volumeRef, diskOfferingRef and size", "dataDisks"),
        Rule("!has(self.dataDisks) || self.dataDisks.all(d, d.name != 'root')",
             "root is the root disk's name; call the data disk something else", "dataDisks"),
    )  # fmt: skip
    power_state: Literal["Running", "Stopped", "Paused"] = Field(
        default="Running", description="What it shall be; status.state says what it is."
    )
    restarted_at: Timestamp | None = Field(
        default=None, description="Set it to now to reboot a running VM once."
    )
    instance_offering_ref: (
        Annotated[ObjectRef, Ref("InstanceOffering", on_delete="keep")] | None
    ) = None
    cpu: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="A change takes effect at the next start."
    )
    memory: Quantity | None = Field(
        default=None, description="A change takes effect at the next start."
    )
    image_ref: Annotated[
        ObjectRef, Ref("Image", on_delete="keep"), Immutable("the root disk was made from it")
    ]
    root_disk: Annotated[RootDisk, Immutable("the root disk exists; it cannot change yet")] = (
        RootDisk()
    )
    data_disks: Annotated[
        list[DataDisk], Field(max_length=24, description="Beside the root disk."), ListMap("name")
    ] = []
    nics: Annotated[
        list[Nic],
        Field(max_length=16, description="In the order the guest sees them."),
        ListMap("name"),
    ] = []
    placement: Placement = Placement()
    user_data: Annotated[str, Field(max_length=65536)] | None = Field(
        default=None, description="cloud-init user data (NoCloud); read at the next start."
    )
    hostname: (
        Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)] | None
    ) = Field(default=None, description="Of the guest, by DHCP and cloud-init; absent: the VM's.")

    @model_validator(mode="after")
    def _no_doubles(self) -> Self:
        """What the schema cannot say: nothing that is one thing is asked for twice."""
        FieldErrors.raise_any(_doubles(self))
        return self


def _doubles(spec: VirtualMachineSpec) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    asked = [
        (f"dataDisks[{i}].volumeRef", "volume", disk.volume_ref.name)
        for i, disk in enumerate(spec.data_disks)
        if disk.volume_ref
    ]
    for i, nic in enumerate(spec.nics):
        asked.append((f"nics[{i}].mac", "MAC address", nic.mac or ""))
        address = f"{nic.ip} on {nic.l3_network_ref.name}" if nic.ip else ""
        asked.append((f"nics[{i}].ip", "address", address))
    for path, what, value in asked:
        if value and f"{what} {value}" in seen:
            yield path, f"the {what} {value} is given twice"
        seen.add(f"{what} {value}")


class NicStatus(Model):
    """A network interface as it is."""

    name: str = Field(description="As in the spec.")
    l3_network_ref: Annotated[ObjectRef, Ref("L3Network", on_delete="detach")]
    mac: str = Field(default="", description="Its hardware address.")
    ip: str = Field(default="", description="Its address, reserved as long as it is here.")
    device: str = Field(default="", description="The tap on the host.")


class DiskStatus(Model):
    """A disk as it is."""

    name: str = Field(description="As in the spec; the root disk is called root.")
    volume_ref: Annotated[ObjectRef, Ref("Volume", on_delete="detach")]
    root: bool = Field(default=False, description="The guest boots from it.")
    owned: bool = Field(default=False, description="Deleted with the VM.")
    device: str = Field(default="", description="Target in the guest: vda, vdb, …")


def _static_ip(spec: VirtualMachineSpec, values: Mapping[str, str]) -> Iterator[str]:
    """It gives an address to the first NIC on the network."""
    network, ip = values["l3Network"], values["ip"]
    nics = [nic for nic in spec.nics if nic.l3_network_ref.name == network]
    if not nics:
        yield f"no NIC is on L3 network {network}; add one to spec.nics"
        return
    if nics[0].ip not in (None, ip):
        yield f"NIC {nics[0].name} asks for {nics[0].ip} already; give one of the two"
    if any(nic.ip == ip for nic in nics[1:]):
        yield f"another NIC asks for {ip} already"


def _hostname(spec: VirtualMachineSpec, values: Mapping[str, str]) -> Iterator[str]:
    if spec.hostname not in (None, values["hostname"]):
        yield f"spec.hostname is {spec.hostname}; give one of the two"


TAGS = (
    SystemTag(
        "staticIp",
        "The address of the (first) NIC on a network.",
        ("VirtualMachine",),
        (named("l3Network", "L3Network"), address("ip")),
        repeated=True,
        check=_static_ip,
    ),
    SystemTag(
        "hostname",
        "The guest's name, by DHCP and cloud-init; from the next start.",
        ("VirtualMachine",),
        (dns_label("hostname"),),
        check=_hostname,
    ),
    SystemTag(
        "bootMode",
        "The guest's firmware, from the next start. An image's counts for its VMs.",
        ("VirtualMachine", "Image"),
        (choice("mode", "UEFI", "BIOS"),),
    ),
    SystemTag(
        "ephemeral",
        "The VM is deleted once it is off, whatever stopped it, with its root disk.",
        ("VirtualMachine",),
    ),
)


class VirtualMachineStatus(BaseStatus):
    state: State = ""
    zone_ref: Annotated[ObjectRef, Ref("Zone", on_delete="cascade")] | None = None
    cluster_ref: Annotated[ObjectRef, Ref("Cluster", on_delete="stop")] | None = None
    host_ref: Annotated[ObjectRef, Ref("Host", on_delete="stop")] | None = Field(
        default=None, description="Where it runs; absent when it is stopped."
    )
    last_host: str = Field(default="", description="Where it ran last.")
    primary_storage_ref: Annotated[ObjectRef, Ref("PrimaryStorage", on_delete="cascade")] | None = (
        Field(default=None, description="Where its root disk is.")
    )
    ip: str = Field(default="", description="The first NIC's address.")
    nics: list[NicStatus] = Field(default=[], description="Its network interfaces.")
    disks: list[DiskStatus] = Field(default=[], description="Its disks, the root disk first.")
    cpu: int = Field(default=0, description="vCPUs it was started with.")
    memory: str = Field(default="", description="It was started with, a quantity.")
    boot_mode: str = Field(default="", description="The firmware it was started with last.")
    restarted_at: Timestamp | None = Field(
        default=None, description="The spec's restartedAt that was carried out last."
    )
    excluded_hosts: list[str] = Field(
        default=[], description="Hosts where this start failed; tried no more until the next."
    )
    start_failures: list[str] = Field(
        default=[], description="Why it failed on each of them: '<host>: <cause>'."
    )


class VirtualMachine(Resource):
    """A guest."""

    INFO = KindInfo(
        plural="virtualmachines",
        singular="virtualmachine",
        short_names=("vm", "vms"),
        namespaced=True,
        columns=(
            Column("State", ".status.state"),
            Column("Host", ".status.hostRef.name"),
            Column("IP", ".status.ip"),
            Column("CPU", ".status.cpu", "integer", priority=1),
            Column("Memory", ".status.memory", priority=1),
            Column("Image", ".spec.imageRef.name", priority=1),
            Column("Step", ".status.workflow.progress", priority=1),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "VirtualMachine"
    spec: VirtualMachineSpec
    status: VirtualMachineStatus = VirtualMachineStatus()
