"""What a VM has in the ledger and on hosts, for audits."""

from __future__ import annotations

from collections.abc import Iterator

from controller.kinds.host import host_scope
from controller.kinds.l2_network import bridge_name
from controller.kinds.primary_storage import STORAGE
from controller.kinds.vm_model import host_of, nic_owner, tap_name, wanted_disks
from controller.kinds.vm_networks import MACS, possible_macs
from controller.kinds.volume_place import claim_owner
from controller.reconcile.actuator import Store
from controller.reconcile.holdings import LEDGER, Holding, host_place
from crds.v1alpha1.host import Host
from crds.v1alpha1.virtual_machine import NicStatus, VirtualMachine

ANY_HOST = "host/"


def vm_holdings(vm: VirtualMachine, store: Store) -> Iterator[Holding]:
    if vm.deleting or vm.status.workflow is not None:
        yield from _on_its_way(vm, store)
    else:
        yield from _settled(vm, store)


def _settled(vm: VirtualMachine, store: Store) -> Iterator[Holding]:
    for nic in vm.status.nics:
        owner = nic_owner(vm, nic.name)
        yield Holding(LEDGER, MACS, owner, needed=bool(nic.mac))
        yield Holding(LEDGER, "ip/", owner, needed=bool(nic.ip))
    host = host_of(vm, store)
    if host is not None:
        yield from _placed(vm, host, store)


def _placed(vm: VirtualMachine, host: Host, store: Store) -> Iterator[Holding]:
    place = host_place(host.name)
    yield Holding(LEDGER, host_scope(host), vm.uid)
    yield Holding(place, "vms", vm.uid, needed=vm.status.state in ("Running", "Paused"))
    for nic in vm.status.nics:
        yield from _plugged(vm, nic, {nic.mac}, place, store)


def _plugged(
    vm: VirtualMachine, nic: NicStatus, macs: set[str], place: str, store: Store
) -> Iterator[Holding]:
    """What a NIC may have on a host."""
    yield Holding(place, "taps", tap_name(vm, nic.name), needed=False)
    l3 = store.get("L3Network", nic.l3_network_ref.name)
    if l3 is None:
        return
    for mac in macs:
        yield Holding(place, "dhcp", f"{l3.uid}/{mac}", needed=False)
    l2 = store.get("L2Network", l3.spec.l2_network_ref.name)
    if l2 is not None:
        for name in (l2.uid, bridge_name(l2)):
            yield Holding(place, "bridges", name, needed=False)


def _on_its_way(vm: VirtualMachine, store: Store) -> Iterator[Holding]:
    """Whatever the flow at hand may have made, wherever it tried to."""
    yield Holding(LEDGER, "host/", vm.uid, needed=False)
    yield Holding(ANY_HOST, "vms", vm.uid, needed=False)
    for disk in wanted_disks(vm):
        owner = claim_owner(vm.metadata.namespace or "", disk.volume)
        yield Holding(LEDGER, STORAGE, owner, needed=False)
    wanted = [NicStatus(name=n.name, l3_network_ref=n.l3_network_ref) for n in vm.spec.nics]
    for nic in [*vm.status.nics, *wanted]:
        owner = nic_owner(vm, nic.name)
        yield Holding(LEDGER, MACS, owner, needed=False)
        yield Holding(LEDGER, "ip/", owner, needed=False)
        yield from _plugged(vm, nic, possible_macs(vm, nic), ANY_HOST, store)
