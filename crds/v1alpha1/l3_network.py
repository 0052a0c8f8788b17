"""L3Network: an IP subnet on an L2 network, with its ranges, DHCP and DNS."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from crds.base import BaseSpec, BaseStatus, Column, Immutable, KindInfo, Model, Resource
from crds.refs import ObjectRef, Ref

T = TypeVar("T", IPv4Address, IPv4Network)
Address = Annotated[str, Field(max_length=39, pattern=r"^[0-9.]+$")]


class IPRange(Model):
    """Addresses from start to end, both included."""

    start: Address
    end: Address


class DHCP(Model):
    enabled: bool = Field(default=True, description="Hosts answer DHCP for their VMs.")
    lease_seconds: Annotated[int, Field(ge=120, le=31536000)] = 86400


class L3NetworkSpec(BaseSpec):
    l2_network_ref: Annotated[
        ObjectRef, Ref("L2Network", on_delete="cascade"), Immutable("a subnet stays on its network")
    ]
    category: Literal["Public", "Private", "System"] = "Private"
    cidr: Annotated[
        str,
        Field(pattern=r"^[0-9.]+/[0-9]{1,2}$", max_length=18),
        Immutable("VMs have addresses in it; create another L3 network"),
    ]
    ranges: Annotated[
        list[IPRange],
        Field(max_length=32, description="Addresses to give out; none: all but the gateway."),
    ] = []
    gateway: Address | None = Field(default=None, description="Absent: VMs get no default route.")
    dns: Annotated[list[Address], Field(max_length=8)] = []
    dns_domain: Annotated[str, Field(max_length=253)] | None = None
    mtu: Annotated[int, Field(ge=576, le=9216)] = 1500
    dhcp: DHCP = DHCP()
    state: Literal["Enabled", "Disabled"] = "Enabled"

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        """What the schema cannot say: every address is in the subnet, ranges run upwards apart."""
        network = _parse("cidr", IPv4Network, self.cidr)
        spans = []
        for i, span in enumerate(self.ranges):
            first = _parse(f"ranges[{i}].start", IPv4Address, span.start)
            last = _parse(f"ranges[{i}].end", IPv4Address, span.end)
            if first > last:
                raise ValueError(f"ranges[{i}]: start {first} is after end {last}")
            for address in (first, last):
                if address not in network:
                    raise ValueError(f"ranges[{i}]: {address} is not in {network}")
            spans.append((first, last))
        spans.sort()
        for (_, last), (first, _) in pairwise(spans):
            if first <= last:
                raise ValueError(f"ranges overlap at {first}")
        if self.gateway and _parse("gateway", IPv4Address, self.gateway) not in network:
            raise ValueError(f"gateway: {self.gateway} is not in {network}")
        for i, server in enumerate(self.dns):
            _parse(f"dns[{i}]", IPv4Address, server)
        return self


def _parse(field: str, kind: type[T], value: str) -> T:
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


class L3NetworkStatus(BaseStatus):
    state: Literal["", "Enabled", "Disabled", "Deleting"] = ""
    total_ips: int = 0
    used_ips: int = 0
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
