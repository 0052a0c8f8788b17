"""Network interfaces of the host, through iproute2. Ours carry an alias telling whose they are."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.drivers.base import DriverError
from agents.ops.commands import run

BRIDGE_ALIAS = "kumulus:l2:"
DHCP_ALIAS = "kumulus:dhcp:"
TIMEOUT = 20.0
NETNS_DIRECTORY = Path("/run/netns")
_TAP = "tun"


@dataclass(frozen=True)
class Link:
    """kind: bridge, veth, tun, … or "" for hardware. addresses: those that are not link-local."""

    name: str
    kind: str = ""
    master: str | None = None
    alias: str = ""
    mtu: int = 1500
    addresses: tuple[str, ...] = ()

    @property
    def is_tap(self) -> bool:
        return self.kind == _TAP

    def uid_after(self, prefix: str) -> str | None:
        """The uid in the alias, if it is one of ours."""
        return self.alias.removeprefix(prefix) if self.alias.startswith(prefix) else None


def parse_links(output: str) -> dict[str, Link]:
    """``ip -json -details address show`` → links by name."""
    return {link.name: link for link in map(_link, json.loads(output or "[]")) if link.name}


def _link(entry: dict[str, Any]) -> Link:
    addresses = (
        f"{address['local']}/{address['prefixlen']}"
        for address in entry.get("addr_info", ())
        if address.get("scope") == "global" and "local" in address
    )
    return Link(
        name=entry.get("ifname", ""),
        kind=entry.get("linkinfo", {}).get("info_kind", ""),
        master=entry.get("master"),
        alias=entry.get("ifalias", ""),
        mtu=entry.get("mtu", 1500),
        addresses=tuple(addresses),
    )


async def all_links() -> dict[str, Link]:
    return parse_links(await run("ip", "-json", "-details", "address", "show", seconds=TIMEOUT))


async def batch(commands: Sequence[str], netns: str | None = None) -> None:
    """Several ``ip`` commands in one process, which outlives a killed agent. Stops at the first
    that fails. The words come from validated names and addresses: none holds a blank."""
    where = ["-netns", netns] if netns else []
    text = "".join(f"{command}\n" for command in commands)
    await run("ip", *where, "-batch", "-", stdin=text, seconds=TIMEOUT)


def stable_mac(*parts: str) -> str:
    """A locally administered MAC address that is always the same for the same parts."""
    octets = bytearray(hashlib.sha256("/".join(parts).encode()).digest()[:6])
    octets[0] = octets[0] & 0xFC | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)


async def ensure_bridge(name: str, uid: str, mtu: int, physical: str | None) -> None:
    """The bridge, up, with ``physical`` as a port. One that an administrator made is used as it
    is, and never removed."""
    links = await all_links()
    found = links.get(name)
    if found is None:
        await _add_bridge(name, uid, mtu)
    elif found.kind != "bridge":
        raise DriverError("conflict", f"{name} exists on the host and is no bridge; rename it")
    elif found.mtu < mtu and found.uid_after(BRIDGE_ALIAS) is not None:
        await batch([f"link set dev {name} mtu {mtu}"])
    await batch([f"link set dev {name} up"])
    if physical is not None:
        await _enslave(physical, name, links)


async def _add_bridge(name: str, uid: str, mtu: int) -> None:
    """No IPv6 address on it: guests have no business with the host's own stack."""
    await batch(
        [
            f"link add name {name} mtu {mtu} address {stable_mac('bridge', uid)} "
            "type bridge forward_delay 0",
            f"link set dev {name} alias {BRIDGE_ALIAS}{uid}",
            f"link set dev {name} addrgenmode none",
        ]
    )


async def _enslave(physical: str, bridge: str, links: dict[str, Link]) -> None:
    port = links.get(physical)
    if port is None:
        raise DriverError(
            "not-found", f"the host has no interface {physical}; correct physicalInterface"
        )
    if port.master == bridge:
        return
    if port.master is not None:
        raise DriverError("conflict", f"{physical} belongs to {port.master} already; release it")
    if port.addresses:
        raise DriverError(
            "conflict",
            f"{physical} carries {', '.join(port.addresses)}; putting it in a bridge would cut the "
            "host off. Use another interface, or make the bridge beforehand with the address on it",
        )
    await batch([f"link set dev {physical} master {bridge} up"])


def idle_bridges(links: dict[str, Link], used: Iterable[str]) -> list[str]:
    """Bridges that Kumulus made and nothing uses any more: no VM's port, no subnet.

    Hardware (also a bond or a VLAN of it) does not hold a bridge."""
    busy = set(used) | {link.master for link in links.values() if link.is_tap and link.master}
    ours = (name for name, link in links.items() if link.uid_after(BRIDGE_ALIAS) is not None)
    return sorted(name for name in ours if name not in busy)


async def remove_link(name: str) -> None:
    """Raises DriverError unless it is gone afterwards."""
    try:
        await batch([f"link del dev {name}"])
    except DriverError:
        if name in await all_links():
            raise


async def ensure_netns(name: str) -> None:
    """A network namespace with loopback up. One that was left half-made is made anew."""
    if await asyncio.to_thread((NETNS_DIRECTORY / name).exists):
        with contextlib.suppress(DriverError):
            await batch(["link set dev lo up"], name)
            return
        await remove_netns(name)
    await run("ip", "netns", "add", name, seconds=TIMEOUT)
    await batch(["link set dev lo up"], name)


async def remove_netns(name: str) -> None:
    if await asyncio.to_thread((NETNS_DIRECTORY / name).exists):
        await run("ip", "netns", "del", name, seconds=TIMEOUT)


async def ensure_veth(port: str, netns: str, inner: str, alias: str) -> None:
    """A pair: ``port`` here, ``inner`` in the namespace."""
    links = await all_links()
    if port not in links:
        await batch(
            [
                f"link add name {port} address {stable_mac('port', port)} type veth "
                f"peer name {inner} address {stable_mac('server', port)} netns {netns}",
            ]
        )
    await batch([f"link set dev {port} alias {alias}", f"link set dev {port} addrgenmode none"])
