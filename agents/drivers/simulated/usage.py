"""Who uses what on a simulated machine: kept up to date record by record, so that no rule has to
look through all guests."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from agents.drivers.simulated.records import Address, Domain


class Sized(Protocol):
    @property
    def actual(self) -> int: ...


class Usage:
    """Fed by the shelves' ``changed`` hooks with the record before and after.

    ports: (bridge, MAC) → VM. taps: device → VM. disks: volume → VM. on_bridge: bridge → ports.
    addresses: (network, IP) → MAC. leases: network → how many.
    memory: bytes of running guests. bytes: on the disk.
    """

    def __init__(self) -> None:
        self.ports: dict[tuple[str, str], str] = {}
        self.taps: dict[str, str] = {}
        self.disks: dict[str, str] = {}
        self.on_bridge: Counter[str] = Counter()
        self.addresses: dict[tuple[str, str], str] = {}
        self.leases: Counter[str] = Counter()
        self.memory = 0
        self.bytes = 0

    def vm(self, uid: str, before: Domain | None, after: Domain | None) -> None:
        if before is not None:
            self.memory -= memory_of(before)
            for nic in before.nics:
                del self.ports[nic.bridge, nic.mac]
                del self.taps[nic.device]
            for volume in before.disks.values():
                del self.disks[volume]
            self.on_bridge.subtract(nic.bridge for nic in before.nics)
        if after is not None:
            self.memory += memory_of(after)
            self.ports.update({(nic.bridge, nic.mac): uid for nic in after.nics})
            self.taps.update({nic.device: uid for nic in after.nics})
            self.disks.update(dict.fromkeys(after.disks.values(), uid))
            self.on_bridge.update(nic.bridge for nic in after.nics)

    def stored(self, uid: str, before: Sized | None, after: Sized | None) -> None:
        """A volume or an image."""
        self.bytes += (after.actual if after else 0) - (before.actual if before else 0)

    def address(self, key: str, before: Address | None, after: Address | None) -> None:
        if before is not None:
            del self.addresses[before.network, before.ip]
            self.leases[before.network] -= 1
        if after is not None:
            self.addresses[after.network, after.ip] = after.mac
            self.leases[after.network] += 1


def memory_of(vm: Domain) -> int:
    """Bytes that the guest takes now."""
    return vm.memory if vm.power in ("Running", "Paused") else 0
