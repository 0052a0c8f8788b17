"""network.ensure and network.release: bridges, and DHCP on them, remembered across restarts.

Each subnet (L3 network) has a directory with a record of what was asked; the record is written
before anything is done and deleted after everything is undone, so that a killed agent, or a host
that was restarted, carries on from it (``restore``).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from agents.drivers.base import DriverError
from agents.ops import dhcp, links
from agents.ops.files import read_json, write_atomically
from agents.ops.subnet import (
    Entry,
    Subnet,
    interface_name,
    parse_lease,
    parse_mac,
    parse_subnet,
    with_entry,
    without_mac,
)
from agents.wire import Empty, Lease, NetworkArgs, NetworkReleaseArgs, Wire

log = logging.getLogger(__name__)


class Record(Wire):
    """What was asked for one subnet. args.lease is None; ``removing``: undo it."""

    uid: str
    args: NetworkArgs
    leases: list[Lease] = []
    removing: bool = False


def changed(record: Record, entries: tuple[Entry, ...], *, removing: bool = False) -> Record:
    leases = [Lease(mac=e.mac, ip=str(e.ip), hostname=e.hostname or None) for e in entries]
    return record.model_copy(update={"leases": leases, "removing": removing})


def entries_of(record: Record, subnet: Subnet) -> tuple[Entry, ...]:
    return tuple(parse_lease(subnet, lease) for lease in record.leases)


class Networks:
    """The networks of one host. One thing at a time: subnets share bridges."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._turn = asyncio.Lock()

    async def ensure(self, uid: str, args: NetworkArgs) -> Empty:
        subnet = parse_subnet(uid, args)
        interface_name("bridge", args.bridge)
        async with self._turn:
            old = await asyncio.to_thread(self._load, uid)
            record = _merged(old, subnet, args)
            await self._apply(record, subnet)
        return Empty()

    async def release(self, uid: str, args: NetworkReleaseArgs) -> Empty:
        """Drop the lease; with the last one the subnet goes from this host."""
        async with self._turn:
            record = await asyncio.to_thread(self._load, uid)
            if record is not None:
                await self._release(record, args.mac)
            await self._sweep()
        return Empty()

    async def _release(self, record: Record, mac: str | None) -> None:
        subnet = parse_subnet(record.uid, record.args)
        entries = entries_of(record, subnet)
        left = () if mac is None else without_mac(entries, parse_mac("mac", mac))
        if left and not record.removing:
            await self._apply(changed(record, left), subnet)
        else:
            await self._remove(changed(record, (), removing=True), subnet)

    async def _apply(self, record: Record, subnet: Subnet) -> None:
        await asyncio.to_thread(self._save, record)
        args = record.args
        await links.ensure_bridge(args.bridge, args.bridge_id, args.mtu, args.physical_interface)
        if subnet.server is None:
            await dhcp.remove(subnet)
        else:
            entries = entries_of(record, subnet)
            await dhcp.serve(subnet, entries, args.bridge, self._home(record.uid))

    async def _remove(self, record: Record, subnet: Subnet) -> None:
        await asyncio.to_thread(self._save, record)
        await dhcp.remove(subnet)
        await asyncio.to_thread(shutil.rmtree, self._home(record.uid))

    async def sweep(self) -> None:
        """Remove our bridges that lost their last user (a VM's port went after its lease)."""
        async with self._turn:
            await self._sweep()

    async def _sweep(self) -> None:
        records = await asyncio.to_thread(self._records)
        used = {record.args.bridge for record in records}
        for bridge in links.idle_bridges(await links.all_links(), used):
            await links.remove_link(bridge)

    async def restore(self) -> None:
        """At the start: bring back what a restart of the host took, finish what was begun.

        A subnet that cannot be restored is logged and left to the next network.ensure."""
        async with self._turn:
            for record in await asyncio.to_thread(self._records):
                with _logged(record.uid):
                    await self._restore(record)
            with _logged("bridges"):
                await self._sweep()

    async def _restore(self, record: Record) -> None:
        subnet = parse_subnet(record.uid, record.args)
        if record.removing:
            await self._remove(record, subnet)
        else:
            await self._apply(record, subnet)

    async def has_bridge(self, name: str) -> bool:
        found = (await links.all_links()).get(name)
        return found is not None and found.kind == "bridge"

    async def inventory(self) -> tuple[list[str], list[str], list[str]]:
        """What is really there: uids of L2 networks with a bridge of ours, taps on the bridges,
        'subnet uid/MAC' of each DHCP entry that a running server answers for."""
        found = await links.all_links()
        records = await asyncio.to_thread(self._records)
        bridges = {link.uid_after(links.BRIDGE_ALIAS) for link in found.values()}
        ours = {n for n, link in found.items() if link.uid_after(links.BRIDGE_ALIAS)}
        ours |= {record.args.bridge for record in records}
        taps = [name for name, link in found.items() if link.is_tap and link.master in ours]
        entries = [entry for record in records for entry in await self._served(record)]
        return sorted(filter(None, bridges)), sorted(taps), sorted(entries)

    async def _served(self, record: Record) -> list[str]:
        subnet = parse_subnet(record.uid, record.args)
        if not await dhcp.is_serving(subnet):
            return []
        return [f"{record.uid}/{entry.mac}" for entry in entries_of(record, subnet)]

    def _home(self, uid: str) -> Path:
        return self._directory / uid

    def _records(self) -> list[Record]:
        if not self._directory.is_dir():
            return []
        found = (self._load(home.name) for home in sorted(self._directory.iterdir()))
        return [record for record in found if record is not None]

    def _load(self, uid: str) -> Record | None:
        content = read_json(self._home(uid) / "record.json")
        if content is None:
            return None
        try:
            return Record.model_validate(content)
        except ValidationError:
            log.exception("unreadable record of a network is ignored", extra={"network": uid})
            return None

    def _save(self, record: Record) -> None:
        """dnsmasq reads its directory as an unprivileged user."""
        home = self._home(record.uid)
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        content = record.model_dump_json(by_alias=True).encode()
        write_atomically(home / "record.json", content)


@contextmanager
def _logged(network: str) -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        log.warning("network not restored: %s", error.message, extra={"network": network})


def _merged(old: Record | None, subnet: Subnet, args: NetworkArgs) -> Record:
    """The new wish with the leases that are there already, and the one it adds."""
    record = Record(uid=subnet.uid, args=args.model_copy(update={"lease": None}))
    kept: tuple[Entry, ...] = ()
    if old is not None and not old.removing:
        kept = tuple(e for e in _entries_within(old, subnet) if e.ip in subnet.network)
    if args.lease is not None:
        kept = with_entry(kept, parse_lease(subnet, args.lease))
    return changed(record, kept)


def _entries_within(old: Record, subnet: Subnet) -> tuple[Entry, ...]:
    return entries_of(old, parse_subnet(subnet.uid, old.args))
