"""L3Network: an IP subnet on an L2 network, with its ranges, DHCP and DNS."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crds.base import (
    BaseSpec,
    BaseStatus,
    Column,
    FieldErrors,
    Immutable,
    IPv4,
    IPv4Subnet,
    KindInfo,
    Model,
    Resource,
    Switch,
)
from crds.refs import ObjectRef, Ref

_DOMAIN = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"


class IPRange(Model):
    """Addresses from start to end, both included."""

    start: IPv4 = Field(description="The first address.")
    end: IPv4 = Field(description="The last address.")


class DHCP(Model):
    """How hosts give VMs their addresses."""

    enabled: bool = Field(default=True, description="Hosts answer DHCP for their VMs.")
    lease_seconds: Annotated[
        int, Field(ge=120, le=31536000, description="After which a guest asks again.")
    ] = 86400


class L3NetworkSpec(BaseSpec):
    l2_network_ref: Annotated[
        ObjectRef, Ref("L2Network", on_delete="cascade"), Immutable("a subnet stays on its network")
    ]
    category: Literal["Public", "Private", "System"] = Field(
        default="Private",
        description="Public: reached from outside. System: for the cloud itself, not for VMs.",
    )
    cidr: Annotated[
        IPv4Subnet, Immutable("VMs have addresses in it; create another L3 network")
    ] = Field(description="The subnet, /8 to /30: 10.0.0.0/24.")
    ranges: Annotated[
        list[IPRange],
        Field(max_length=32, description="Addresses to give out; none: all but the gateway."),
    ] = []
    gateway: IPv4 | None = Field(default=None, description="Absent: VMs get no default route.")
    dns: Annotated[list[IPv4], Field(max_length=8, description="Name servers for VMs.")] = []
    dns_domain: Annotated[str, Field(max_length=253, pattern=_DOMAIN)] | None = Field(
        default=None, description="Where VMs look up short names."
    )
    mtu: Annotated[int, Field(ge=576, le=9216, description="Largest packet, in bytes.")] = 1500
    dhcp: DHCP = DHCP()
    state: Switch = "Enabled"

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        """What the schema cannot say: every address is in the subnet, ranges run upwards apart."""
        FieldErrors.raise_any(_problems(self))
        return self


def _problems(spec: L3NetworkSpec) -> Iterator[tuple[str, str]]:
    network = IPv4Network(spec.cidr, strict=False)
    if str(network) != spec.cidr:
        yield "cidr", f"{spec.cidr} is an address, not a subnet; write {network}"
    for i, span in enumerate(spec.ranges):
        yield from _range_problems(f"ranges[{i}]", span, network)
    spans = sorted((IPv4Address(span.start), IPv4Address(span.end)) for span in spec.ranges)
    for (_, last), (first, _) in pairwise(spans):
        if first <= last:
            yield "ranges", f"two of them have {first}; ranges must not overlap"
    if spec.gateway and not usable(IPv4Address(spec.gateway), network):
        yield "gateway", f"{spec.gateway} is no host's address in {network}"


def _range_problems(path: str, span: IPRange, network: IPv4Network) -> Iterator[tuple[str, str]]:
    for end in ("start", "end"):
        address = IPv4Address(getattr(span, end))
        if not usable(address, network):
            yield f"{path}.{end}", f"{address} is no host's address in {network}"
    if IPv4Address(span.start) > IPv4Address(span.end):
        yield f"{path}.end", f"{span.end} is before the start, {span.start}"


def usable(address: IPv4Address, network: IPv4Network) -> bool:
    """Can a host have this address: in the subnet, neither its first nor its broadcast address."""
    ends = (network.network_address, network.broadcast_address)
    return address in network and address not in ends


class L3NetworkStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "Deleting"] = ""
    total_ips: int = Field(default=0, description="Addresses to give out.")
    used_ips: int = Field(default=0, description="Addresses given out.")
    dhcp_server: str = Field(default="", description="The address DHCP answers from.")


class L3Network(Resource):
    """An IP subnet."""

    INFO = KindInfo(
        plural="l3networks",
        singular="l3network",
        short_names=("l3", "subnet"),
        columns=(
            Column("State", ".status.state"),
            Column("CIDR", ".spec.cidr"),
            Column("L2", ".spec.l2NetworkRef.name"),
            Column("Used", ".status.usedIps", "integer"),
            Column("Total", ".status.totalIps", "integer"),
            Column("Gateway", ".spec.gateway", priority=1),
            Column("Category", ".spec.category", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "L3Network"
    spec: L3NetworkSpec
    status: L3NetworkStatus = L3NetworkStatus()
