"""What is asked for (Request) and what there is (Candidate). Sizes in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crds.selectors import Selector


@dataclass(frozen=True)
class NewDisk:
    """A disk to be made. ``owner``: who claims its space. ``storage``: the one named, if any."""

    owner: str
    size: int
    storage: str | None = None


@dataclass(frozen=True)
class Request:
    """What one VM needs of a host. Empty collections and None ask for nothing."""

    cpu: int
    memory: int
    architecture: str | None = None
    networks: frozenset[str] = frozenset()  # names of L2 networks
    host: str | None = None
    cluster: str | None = None
    zone: str | None = None
    image_zones: frozenset[str] = frozenset()  # where its image can be reached; none: everywhere
    volume_hosts: Mapping[str, str] = field(default_factory=dict)  # existing volume → its host
    new_disks: tuple[NewDisk, ...] = ()
    excluded: frozenset[str] = frozenset()
    last_host: str = ""
    selector: Selector | None = None

    @property
    def amounts(self) -> dict[str, int]:
        """What is claimed from the host's pool."""
        return {"cpu": self.cpu, "memory": self.memory, "vms": 1}


@dataclass(frozen=True)
class Storage:
    """A primary storage as seen from one host."""

    name: str
    scope: str
    free: int
    enabled: bool = True


@dataclass(frozen=True)
class Candidate:
    """A host. ``free`` and ``used``: of its pool in the ledger; empty when it has none yet."""

    name: str
    uid: str
    cluster: str
    zone: str
    state: str = "Enabled"
    status: str = "Connected"
    cluster_enabled: bool = True
    zone_enabled: bool = True
    architecture: str = "x86_64"
    networks: frozenset[str] = frozenset()
    free: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)
    storages: tuple[Storage, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        return f"host/{self.uid}"

    @property
    def vms(self) -> int:
        return self.used.get("vms", 0)


Plan = tuple[tuple[NewDisk, Storage], ...]
"""Where each new disk goes."""


def place_disks(request: Request, candidate: Candidate) -> Plan | str:
    """A storage with room for every new disk, the emptiest first; or what is in the way."""
    room = {s.name: s.free for s in candidate.storages}
    placed = []
    for disk in sorted(request.new_disks, key=lambda d: -d.size):
        usable = [s for s in candidate.storages if s.enabled and disk.storage in (None, s.name)]
        if not usable:
            wanted = f"primary storage {disk.storage}" if disk.storage else "primary storage"
            return f"no enabled {wanted} serves it"
        best = max(usable, key=lambda s: room[s.name])
        if room[best.name] < disk.size:
            return f"primary storage {best.name} is {_short(disk.size - room[best.name])} short"
        room[best.name] -= disk.size
        placed.append((disk, best))
    return tuple(placed)


def _short(size: int) -> str:
    for suffix, unit in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if size >= unit:
            return f"{size / unit:.1f}".rstrip("0").rstrip(".") + suffix
    return str(size)
