"""Steps that deal with a VM's NICs: MACs and addresses in the ledger, bridges and DHCP on hosts."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from agents.wire import (
    Empty,
    Lease,
    NetworkArgs,
    NetworkReleaseArgs,
    NicDevice,
    VmNicArgs,
    VmResult,
)
from controller.errors import Exhausted, Terminal
from controller.kinds.availability import enabled
from controller.kinds.l2_network import bridge_name
from controller.kinds.l3_network import claim_ip
from controller.kinds.support import answers, digest, on_host, on_host_if_there, together
from controller.kinds.vm_model import (
    host_of,
    new_nics,
    nic_owner,
    placed_host,
    show_first_ip,
    stale_nics,
    tap_name,
)
from controller.kinds.vm_tags import hostname_of, wanted_nics
from controller.reconcile.actuator import Context
from controller.workflow.step import Scope, Step
from crds.refs import ObjectRef
from crds.v1alpha1.host import Host
from crds.v1alpha1.l2_network import L2Network
from crds.v1alpha1.l3_network import L3Network
from crds.v1alpha1.virtual_machine import Nic, NicStatus, VirtualMachine

MACS = "mac"
_MAC_TRIES = 8


class CreateNics(Step):
    """A MAC for each new NIC: the one asked for, else one made from the VM's uid.

    A NIC without a device in ``status.nics`` was never plugged in: rolling back removes it.
    """

    name = "create-nics"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        known = {nic.name for nic in vm.status.nics}
        for nic in [nic for nic in new_nics(vm, ctx.store) if nic.name not in known]:
            enabled(ctx.store.get("L3Network", nic.l3_network_ref.name), "choose another network")
            mac = await _claim_mac(vm, nic, ctx)
            l3 = ObjectRef(name=nic.l3_network_ref.name)
            vm.status.nics.append(NicStatus(name=nic.name, l3_network_ref=l3, mac=mac))

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        vm.status.nics = [nic for nic in vm.status.nics if nic.device]
        kept = {nic.name for nic in vm.status.nics}
        for nic in vm.spec.nics:
            if nic.name not in kept:
                await ctx.ledger.release(nic_owner(vm, nic.name), MACS)
        show_first_ip(vm)


class AllocateIps(Step):
    """An address for each NIC that has none: the static one, else the lowest free one."""

    name = "allocate-ips"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        wanted = {nic.name: nic for nic in wanted_nics(vm)}
        for nic, l3 in _with_network(vm.status.nics, ctx):
            if not nic.ip and nic.name in wanted:
                nic.ip = await _claim_ip(vm, wanted[nic.name], l3, ctx)
        show_first_ip(vm)

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        plugged = {nic.name for nic in vm.status.nics if nic.device}
        for name in _nic_names(vm) - plugged:
            await ctx.ledger.release(nic_owner(vm, name), "ip/")
        for nic in vm.status.nics:
            nic.ip = nic.ip if nic.name in plugged else ""
        show_first_ip(vm)


class PrepareNetwork(Step):
    """The bridge and a DHCP lease for each NIC, on the host."""

    name = "prepare-network"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = host_of(vm, ctx.store)
        if host is None:
            return
        nics = [(nic, l3, _l2(l3, host, ctx)) for nic, l3 in _with_network(_to_plug(vm), ctx)]
        await together(
            on_host(
                scope,
                host,
                "network.ensure",
                _network_args(vm, nic, l3, l2),
                Empty,
                resource=l3.uid,
                part=nic.name,
            )
            for nic, l3, l2 in nics
        )

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        await release_networks(scope, _to_plug(scope.obj), "undo-")


class AttachNics(Step):
    """Plug the NICs that have no device yet into the running guest."""

    name = "attach-nics"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = host_of(vm, ctx.store)
        if host is None:
            return
        for nic, l3 in _with_network([n for n in vm.status.nics if not n.device], ctx):
            args = VmNicArgs(nic=_wire(vm, nic, l3, ctx))
            await on_host(scope, host, "vm.attach-nic", args, VmResult, part=nic.name)
            nic.device = args.nic.device
            ctx.events.normal(vm, "NicAttached", f"{nic.name} with address {nic.ip}")

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        await _unplug(scope, [n for n in scope.obj.status.nics if not n.device], "undo-")


class DetachNics(Step):
    """Unplug the NICs that are to go and give back what they had."""

    name = "detach-nics"
    no_rollback = "what the spec does not want any more is not plugged in again"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        stale = stale_nics(vm, ctx.store)
        await _unplug(scope, [nic for nic in stale if nic.device])
        await release_networks(scope, stale, "release-")
        for nic in stale:
            await _release_claims(vm, nic.name, ctx)
            vm.status.nics.remove(nic)
            ctx.events.normal(vm, "NicDetached", f"{nic.name} from {nic.l3_network_ref.name}")
        show_first_ip(vm)


class ReleaseNetworks(Step):
    """Drop the leases on the host; what nobody else there uses goes too."""

    name = "release-networks"
    no_rollback = "the next start makes them anew"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        await release_networks(scope, scope.obj.status.nics)


class ReleaseNics(Step):
    """Give back MACs and addresses, also those that a dying controller did not write down."""

    name = "release-nics"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        for name in _nic_names(vm):
            await _release_claims(vm, name, ctx)
        vm.status.nics, vm.status.ip = [], ""


async def release_networks(
    scope: Scope[VirtualMachine], nics: Iterable[NicStatus], part: str = ""
) -> None:
    """network.release for each NIC on the VM's host, if that can be reached."""
    ctx, host = scope.ctx, await placed_host(scope)
    if host is None or not await answers(host, ctx):
        return
    found = [(nic, l3, _l2_of(l3, ctx)) for nic, l3 in _with_network(nics, ctx)]
    await together(
        on_host(
            scope,
            host,
            "network.release",
            NetworkReleaseArgs(bridge_id=l2.uid, bridge=bridge_name(l2), mac=nic.mac),
            Empty,
            resource=l3.uid,
            part=part + nic.name,
        )
        for nic, l3, l2 in found
        if l2 is not None
    )


def _nic_names(vm: VirtualMachine) -> set[str]:
    return {nic.name for nic in vm.spec.nics} | {nic.name for nic in vm.status.nics}


def wire_nics(vm: VirtualMachine, ctx: Context) -> list[NicDevice]:
    """All NICs as the agent starts the VM with."""
    return [_wire(vm, nic, l3, ctx) for nic, l3 in _with_network(vm.status.nics, ctx)]


def _wire(vm: VirtualMachine, nic: NicStatus, l3: L3Network, ctx: Context) -> NicDevice:
    l2 = _l2_of(l3, ctx)
    if l2 is None:
        raise Terminal(f"L2Network {l3.spec.l2_network_ref.name} does not exist")
    return NicDevice(
        mac=nic.mac, bridge=bridge_name(l2), device=tap_name(vm, nic.name), mtu=l3.spec.mtu
    )


def _to_plug(vm: VirtualMachine) -> list[NicStatus]:
    """NICs that the flow at hand brings up: the new ones of a running guest, else all."""
    hot = vm.status.state in ("Running", "Paused")
    return [nic for nic in vm.status.nics if not (hot and nic.device)]


def _with_network(nics: Iterable[NicStatus], ctx: Context) -> list[tuple[NicStatus, L3Network]]:
    """NICs with their networks; one whose network is gone (by force) is left out."""
    found = [(nic, ctx.store.get("L3Network", nic.l3_network_ref.name)) for nic in nics]
    return [(nic, l3) for nic, l3 in found if l3 is not None]


def _l2_of(l3: L3Network, ctx: Context) -> L2Network | None:
    found: L2Network | None = ctx.store.get("L2Network", l3.spec.l2_network_ref.name)
    return found


def _l2(l3: L3Network, host: Host, ctx: Context) -> L2Network:
    """The L2 network of ``l3``. Raises Terminal if ``host`` does not carry it."""
    l2, cluster = _l2_of(l3, ctx), host.spec.cluster_ref.name
    if l2 is None or all(ref.name != cluster for ref in l2.spec.cluster_refs):
        raise Terminal(
            f"L2Network {l3.spec.l2_network_ref.name} is not attached to cluster {cluster}; add "
            "it to the network's clusterRefs",
            reason="NetworkNotAttached",
        )
    return l2


def _network_args(vm: VirtualMachine, nic: NicStatus, l3: L3Network, l2: L2Network) -> NetworkArgs:
    return NetworkArgs(
        bridge_id=l2.uid,
        bridge=bridge_name(l2),
        physical_interface=l2.spec.physical_interface,
        cidr=l3.spec.cidr,
        gateway=l3.spec.gateway,
        dns=l3.spec.dns,
        dns_domain=l3.spec.dns_domain,
        mtu=l3.spec.mtu,
        dhcp_server=l3.status.dhcp_server or None,
        lease_seconds=l3.spec.dhcp.lease_seconds,
        lease=Lease(mac=nic.mac, ip=nic.ip, hostname=hostname_of(vm)) if nic.ip else None,
    )


async def _unplug(scope: Scope[VirtualMachine], nics: Iterable[NicStatus], part: str = "") -> None:
    vm, ctx = scope.obj, scope.ctx
    host = await placed_host(scope)
    if host is None or not await answers(host, ctx):
        return
    for nic, l3 in _with_network(nics, ctx):
        args = VmNicArgs(nic=_wire(vm, nic, l3, ctx))
        await on_host_if_there(scope, host, "vm.detach-nic", args, part=part + nic.name)


async def _release_claims(vm: VirtualMachine, nic: str, ctx: Context) -> None:
    await ctx.ledger.release(nic_owner(vm, nic), "ip/")
    await ctx.ledger.release(nic_owner(vm, nic), MACS)


async def _claim_mac(vm: VirtualMachine, nic: Nic, ctx: Context) -> str:
    owner = nic_owner(vm, nic.name)
    if nic.mac is not None:
        await ctx.ledger.claim_value(MACS, owner, nic.mac)
        return nic.mac
    for attempt in range(_MAC_TRIES):
        mac = _mac(vm, nic.name, attempt)
        try:
            await ctx.ledger.claim_value(MACS, owner, mac)
        except Exhausted:
            continue
        return mac
    raise Exhausted(f"no free MAC address for NIC {nic.name}")


def _mac(vm: VirtualMachine, nic: str, attempt: int) -> str:
    """Locally administered, unicast; always the same for this NIC."""
    digits = digest(vm.uid, nic, str(attempt))
    return ":".join(["fa", *(digits[i : i + 2] for i in range(0, 10, 2))])


async def _claim_ip(vm: VirtualMachine, nic: Nic, l3: L3Network, ctx: Context) -> str:
    wanted = None if nic.ip is None else _static(nic, l3)
    ranges = None if wanted is None else [(wanted, wanted)]
    try:
        claimed = await claim_ip(l3, nic_owner(vm, nic.name), ctx, ranges=ranges, wanted=wanted)
    except Exhausted as error:
        what = f"address {nic.ip} for" if nic.ip else "no address left for"
        raise Exhausted(f"{what} NIC {nic.name} in {l3.name}: {error.message}") from error
    return str(IPv4Address(claimed))


def possible_macs(vm: VirtualMachine, nic: NicStatus) -> set[str]:
    """What its MAC is or, as long as its status does not say, what it may be."""
    if nic.mac:
        return {nic.mac}
    asked = {each.mac for each in vm.spec.nics if each.name == nic.name and each.mac}
    return asked or {_mac(vm, nic.name, attempt) for attempt in range(_MAC_TRIES)}


def _static(nic: Nic, l3: L3Network) -> int:
    try:
        address = IPv4Address(nic.ip or "")
    except ValueError as error:
        raise Terminal(f"NIC {nic.name}: {error}", reason="InvalidSpec") from None
    if address not in IPv4Network(l3.spec.cidr):
        raise Terminal(
            f"NIC {nic.name}: {address} is not in {l3.name}'s {l3.spec.cidr}", reason="InvalidSpec"
        )
    return int(address)
