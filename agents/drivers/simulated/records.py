"""What a simulated machine holds, as records that are kept one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import orjson

from agents.wire import VmPower


@dataclass(frozen=True)
class Storage:
    """A directory that was made ready: of volumes (role host) or images (role store)."""

    path: str


@dataclass(frozen=True)
class Volume:
    """``actual``: bytes that it takes on the disk."""

    storage: str
    path: str
    size: int
    actual: int
    image: str | None = None


@dataclass(frozen=True)
class StoredImage:
    """An image in a host's cache or on a store. Sizes in bytes."""

    storage: str
    file: str
    virtual_size: int
    actual: int
    checksum: str


@dataclass(frozen=True)
class Bridge:
    """``id``: the L2 network's uid."""

    id: str
    physical_interface: str | None = None


@dataclass(frozen=True)
class Subnet:
    """DHCP for one L3 network on a bridge."""

    bridge: str
    cidr: str
    dhcp_server: str | None


@dataclass(frozen=True)
class Address:
    """A lease. ``network``: the L3 network's uid."""

    network: str
    mac: str
    ip: str


@dataclass(frozen=True)
class Nic:
    mac: str
    bridge: str
    device: str


@dataclass(frozen=True)
class Domain:
    """A defined VM. ``disks``: device → volume uid. memory in bytes."""

    name: str
    cpu: int
    memory: int
    power: VmPower
    disks: dict[str, str]
    nics: list[Nic]
    hostname: str = ""
    boot_mode: str = ""


@dataclass(frozen=True)
class Note:
    """A fact about the machine itself: its boot id."""

    text: str


R = TypeVar("R")
Change = tuple[str, str, bytes | None]
"""(kind, key, record as JSON; None: removed)."""


class Shelf(Generic[R]):
    """Records of one kind by key; remembers which changed since they were last saved."""

    def __init__(
        self,
        kind: str,
        model: type[R],
        changed: Callable[[str, R | None, R | None], None] = lambda key, before, after: None,
    ) -> None:
        """changed: told of each change, with the record before and after it."""
        self.kind = kind
        self._model = model
        self._tell = changed
        self._records: dict[str, R] = {}
        self._changed: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> R | None:
        return self._records.get(key)

    def items(self) -> Iterator[tuple[str, R]]:
        return iter(self._records.items())

    def put(self, key: str, record: R) -> None:
        self._set(key, record)
        self._changed.add(key)

    def drop(self, key: str) -> None:
        before = self._records.pop(key, None)
        if before is not None:
            self._tell(key, before, None)
            self._changed.add(key)

    def load(self, key: str, data: bytes) -> None:
        """Put a record that is saved already."""
        fields = cast("dict[str, Any]", orjson.loads(data))
        if self._model is Domain:
            fields["nics"] = [Nic(**nic) for nic in fields["nics"]]
        self._set(key, self._model(**fields))

    def changes(self) -> list[Change]:
        """What changed since the last call."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, set()
        return [
            (self.kind, key, orjson.dumps(self._records[key]) if key in self._records else None)
            for key in changed
        ]

    def _set(self, key: str, record: R) -> None:
        self._tell(key, self._records.get(key), record)
        self._records[key] = record
