"""One subnet as DHCP serves it: validated, and written as dnsmasq and nftables want it. Pure.

Everything that ends in a configuration file is parsed here first, so that no text from the wire
can smuggle a line into one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from agents.drivers.base import DriverError
from agents.wire import Lease, NetworkArgs

INNER = "dhcp0"
"""The interface that dnsmasq listens on, in its network namespace."""
DNSMASQ_USER = "nobody"
DNSMASQ_GROUP = "nogroup"
MAX_LEASES = 65536
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,14}")


@dataclass(frozen=True)
class Entry:
    """The address of one NIC. mac in lower case."""

    mac: str
    ip: IPv4Address
    hostname: str = ""


@dataclass(frozen=True)
class Subnet:
    """server None: no DHCP."""

    uid: str
    network: IPv4Network
    server: IPv4Address | None
    gateway: IPv4Address | None
    dns: tuple[IPv4Address, ...]
    domain: str
    mtu: int
    lease_seconds: int
    physical: str | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.uid.encode()).hexdigest()[:10]

    @property
    def netns(self) -> str:
        return f"kumulus-{self.uid}"

    @property
    def port(self) -> str:
        """The bridge's port that leads to the DHCP server."""
        return f"kd-{self.digest}"

    @property
    def table(self) -> str:
        return f"kumulus_{self.digest}"


def parse_subnet(uid: str, args: NetworkArgs) -> Subnet:
    """Raises DriverError ``invalid`` naming the field."""
    network = _network(args.cidr)
    server = None if args.dhcp_server is None else _address("dhcpServer", args.dhcp_server)
    if server is not None and server not in network:
        raise DriverError("invalid", f"dhcpServer: {server} is not in {network}")
    gateway = None if args.gateway is None else _address("gateway", args.gateway)
    if server is not None and server == gateway:
        raise DriverError("invalid", f"dhcpServer: {server} is the gateway's address")
    return Subnet(
        uid=uid,
        network=network,
        server=server,
        gateway=gateway,
        dns=tuple(_address("dns", address) for address in args.dns),
        domain=parse_domain(args.dns_domain or ""),
        mtu=_between("mtu", args.mtu, 576, 65535),
        lease_seconds=_between("leaseSeconds", args.lease_seconds, 120, 2**31),
        physical=None
        if args.physical_interface is None
        else interface_name("physicalInterface", args.physical_interface),
    )


def parse_lease(subnet: Subnet, lease: Lease) -> Entry:
    """Raises DriverError ``invalid`` naming the field."""
    address = _address("lease.ip", lease.ip)
    if address not in subnet.network:
        raise DriverError("invalid", f"lease.ip: {address} is not in {subnet.network}")
    hostname = (lease.hostname or "").split(".")[0]
    if hostname and not _LABEL.fullmatch(hostname):
        raise DriverError("invalid", f"lease.hostname: {lease.hostname!r} is no host name")
    return Entry(parse_mac("lease.mac", lease.mac), address, hostname)


def parse_mac(field: str, mac: str) -> str:
    """In lower case. Raises DriverError ``invalid``."""
    if not _MAC.fullmatch(mac.lower()):
        raise DriverError("invalid", f"{field}: {mac!r} is no MAC address")
    return mac.lower()


def interface_name(field: str, name: str) -> str:
    """Raises DriverError ``invalid`` for what is no name of an interface (or of a file)."""
    if not _INTERFACE.fullmatch(name):
        raise DriverError("invalid", f"{field}: {name!r} is no name of an interface")
    return name


def parse_domain(domain: str) -> str:
    if domain and not all(_LABEL.fullmatch(label) for label in domain.split(".")):
        raise DriverError("invalid", f"dnsDomain: {domain!r} is no domain name")
    return domain


def _network(cidr: str) -> IPv4Network:
    try:
        return IPv4Network(cidr, strict=False)
    except ValueError as error:
        raise DriverError("invalid", f"cidr: {error}") from None


def _address(field: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise DriverError("invalid", f"{field}: {error}") from None


def _between(field: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise DriverError("invalid", f"{field}: {value} is not between {low} and {high}")
    return value


def with_entry(entries: Iterable[Entry], entry: Entry) -> tuple[Entry, ...]:
    """Add one; it replaces what had its MAC or its address."""
    others = (e for e in entries if e.mac != entry.mac and e.ip != entry.ip)
    return tuple(sorted((*others, entry), key=lambda e: e.ip))


def without_mac(entries: Iterable[Entry], mac: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry.mac != mac)


def dnsmasq_hosts(entries: Iterable[Entry]) -> str:
    return "".join(
        ",".join(filter(None, (entry.mac, str(entry.ip), entry.hostname))) + "\n"
        for entry in entries
    )


def dnsmasq_config(subnet: Subnet, directory: Path) -> str:
    """DHCP for known MACs only, silent to all others; no DNS."""
    network = subnet.network
    options = (
        f"option:router{_list([subnet.gateway] if subnet.gateway else [])}",
        f"option:dns-server{_list(subnet.dns)}",
        f"option:mtu,{subnet.mtu}",
        f"option:domain-name,{subnet.domain}" if subnet.domain else "",
    )
    lines = (
        "port=0",
        f"interface={INNER}",
        "except-interface=lo",
        "bind-interfaces",
        "no-ping",
        "quiet-dhcp",
        f"user={DNSMASQ_USER}",
        f"group={DNSMASQ_GROUP}",
        f"pid-file={directory / 'dnsmasq.pid'}",
        f"dhcp-range={network.network_address},static,{network.netmask},{subnet.lease_seconds}",
        f"dhcp-hostsfile={directory / 'hosts'}",
        f"dhcp-leasefile={directory / 'leases'}",
        f"dhcp-lease-max={MAX_LEASES}",
        "dhcp-authoritative",
        "dhcp-ignore=tag:!known",
        *(f"dhcp-option={option}" for option in options if option),
    )
    return "".join(f"{line}\n" for line in lines)


def _list(addresses: Iterable[IPv4Address]) -> str:
    """Empty: the option is not sent at all, not even dnsmasq's own guess."""
    return "".join(f",{address}" for address in addresses)


def fresh_leases(leases: str, entries: Iterable[Entry]) -> str:
    """dnsmasq's lease file without those whose MAC and address no longer belong together.

    One that stays would keep its address from being given to the next VM."""
    wanted = {(entry.mac, str(entry.ip)) for entry in entries}
    lines = (line for line in leases.splitlines() if line.strip())
    return "".join(f"{line}\n" for line in lines if tuple(line.split()[1:3]) in wanted)


def isolation_rules(subnet: Subnet) -> str:
    """nftables: neither DHCP nor the server's address crosses the hardware port, since every host
    answers for its own guests from that same address. "" when there is no such port."""
    if subnet.physical is None or subnet.server is None:
        return ""
    crossings = (f'iifname "{subnet.physical}"', f'oifname "{subnet.physical}"')
    matches = (
        "udp dport { 67, 68 }",
        f"arp saddr ip {subnet.server}",
        f"arp daddr ip {subnet.server}",
    )
    rules = "".join(f"    {at} {what} drop\n" for at in crossings for what in matches)
    return (
        f"table bridge {subnet.table} {{\n  chain forward {{\n"
        f"    type filter hook forward priority -200; policy accept;\n{rules}  }}\n}}\n"
    )
