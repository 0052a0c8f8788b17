"""L3Network: a subnet, its addresses in the ledger and the address DHCP answers from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from controller.keys import Key
from controller.reconcile.actuator import Actuator, Context, News, Outcome, Store
from controller.reconcile.holdings import LEDGER, Holding
from crds.refs import Reference
from crds.v1alpha1.l3_network import L3Network

RECOUNT = 10.0
"""Seconds between two counts of the addresses in use: a burst of new VMs is counted once."""


def ip_scope(network: L3Network) -> str:
    """Where the ledger keeps this network's addresses, as integers."""
    return f"ip/{network.uid}"


def ip_ranges(network: L3Network) -> list[tuple[int, int]]:
    """What may be given out: the declared ranges, or every host address of the subnet."""
    if network.spec.ranges:
        return [(int(IPv4Address(r.start)), int(IPv4Address(r.end))) for r in network.spec.ranges]
    subnet = IPv4Network(network.spec.cidr)
    edge = 0 if subnet.prefixlen >= 31 else 1
    return [(int(subnet.network_address) + edge, int(subnet.broadcast_address) - edge)]


def ip_excluded(network: L3Network) -> list[int]:
    """What no VM may have: the gateway and, unless the subnet is tiny, its first and last."""
    subnet = IPv4Network(network.spec.cidr)
    edges = [subnet.network_address, subnet.broadcast_address] if subnet.prefixlen < 31 else []
    gateway = [IPv4Address(network.spec.gateway)] if network.spec.gateway else []
    return [int(address) for address in (*edges, *gateway)]


async def claim_ip(
    network: L3Network,
    owner: str,
    ctx: Context,
    *,
    ranges: Sequence[tuple[int, int]] | None = None,
    wanted: int | None = None,
) -> int:
    """An address of ``network`` for ``owner``: ``wanted``, or the lowest free one. ``ranges``: of
    these, not of the network's. Raises Exhausted."""
    return await ctx.ledger.claim_address(
        ip_scope(network),
        owner,
        ranges or ip_ranges(network),
        exclude=ip_excluded(network),
        wanted=wanted,
    )


def _size(ranges: Sequence[tuple[int, int]], excluded: Iterable[int]) -> int:
    lost = sum(any(a <= x <= b for a, b in ranges) for x in set(excluded))
    return sum(b - a + 1 for a, b in ranges) - lost


def _networks_of(vm: News, store: Store) -> Iterable[Key]:
    return vm.refs("L3Network")


class L3NetworkActuator(Actuator[L3Network]):
    """Holds one address for DHCP, and counts the others."""

    model = L3Network
    watches = {"VirtualMachine": _networks_of}

    def __init__(self) -> None:
        self._counted: dict[str, float] = {}

    async def reconcile(self, obj: L3Network, ctx: Context) -> Outcome:
        obj.status.state = obj.spec.state
        await self._claim_dhcp(obj, ctx)
        return Outcome(reason=obj.spec.state, requeue_after=await self._count(obj, ctx))

    async def delete(self, obj: L3Network, ctx: Context) -> Outcome:
        """DHCP on the hosts went with the last lease there."""
        obj.status.state = "Deleting"
        await ctx.ledger.release(_dhcp_owner(obj), ip_scope(obj))
        self._counted.pop(obj.uid, None)
        return Outcome()

    def holdings(self, obj: L3Network, store: Store) -> Iterable[Holding]:
        """The address that DHCP answers from."""
        needed = bool(obj.status.dhcp_server) and not obj.deleting
        return [Holding(LEDGER, ip_scope(obj), _dhcp_owner(obj), needed=needed)]

    def waits_for(self, obj: L3Network, reference: Reference) -> bool:
        return not obj.status.state

    async def _claim_dhcp(self, obj: L3Network, ctx: Context) -> None:
        if not obj.spec.dhcp.enabled:
            if obj.status.dhcp_server:
                await ctx.ledger.release(_dhcp_owner(obj), ip_scope(obj))
                obj.status.dhcp_server = ""
        elif not obj.status.dhcp_server:
            address = await claim_ip(obj, _dhcp_owner(obj), ctx)
            obj.status.dhcp_server = str(IPv4Address(address))

    async def _count(self, obj: L3Network, ctx: Context) -> float | None:
        """Count the addresses; when that was done just now, return when to do it instead."""
        held = 1 if obj.status.dhcp_server else 0
        obj.status.total_ips = _size(ip_ranges(obj), ip_excluded(obj)) - held
        due = self._counted.get(obj.uid, float("-inf")) + RECOUNT - ctx.clock.monotonic()
        if due > 0:
            return due
        self._counted[obj.uid] = ctx.clock.monotonic()
        claims = await ctx.ledger.claims(prefix=ip_scope(obj))
        obj.status.used_ips = len(claims) - held
        return None


def _dhcp_owner(network: L3Network) -> str:
    return f"{network.uid}/dhcp"
