"""The DHCP server of one subnet: dnsmasq in a network namespace of its own, a port of the bridge.

It outlives the agent. Each step finds or makes; the configuration on disk is changed only while
the server is down, so what runs is always what is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from agents.drivers.base import DriverError
from agents.ops import links
from agents.ops.commands import run
from agents.ops.files import read_text, write_atomically
from agents.ops.subnet import (
    INNER,
    Entry,
    Subnet,
    dnsmasq_config,
    dnsmasq_hosts,
    fresh_leases,
    isolation_rules,
)

STOP_SECONDS = 3.0
POLL_SECONDS = 0.02
READABLE = 0o644


async def serve(subnet: Subnet, entries: tuple[Entry, ...], bridge: str, directory: Path) -> None:
    """Answer DHCP for ``entries`` on ``bridge``. ``directory``: the subnet's own files."""
    await _plug(subnet, bridge)
    await _isolate(subnet)
    config = dnsmasq_config(subnet, directory)
    hosts = dnsmasq_hosts(entries)
    pids = await server_pids(subnet)
    if pids and not await asyncio.to_thread(_must_restart, directory, config, entries):
        await asyncio.to_thread(write_atomically, directory / "hosts", hosts.encode(), READABLE)
        for pid in pids:
            _signal(pid, signal.SIGHUP)
        return
    await _stop(subnet)
    await asyncio.to_thread(_write_all, directory, config, hosts, entries)
    await run(
        "ip", "netns", "exec", subnet.netns, "dnsmasq", f"--conf-file={directory / 'dnsmasq.conf'}"
    )


async def remove(subnet: Subnet) -> None:
    """Server, namespace, port and rules. What is gone already is fine."""
    await _stop(subnet)
    await links.remove_link(subnet.port)
    await links.remove_netns(subnet.netns)
    await run("nft", "-f", "-", stdin=_without_table(subnet))


async def is_serving(subnet: Subnet) -> bool:
    return bool(await server_pids(subnet))


async def server_pids(subnet: Subnet) -> list[int]:
    """What runs in the namespace: the server alone."""
    try:
        listed = await run("ip", "netns", "pids", subnet.netns, seconds=links.TIMEOUT)
    except DriverError:
        return []  # no such namespace
    pids = [int(word) for word in listed.split()]
    return await asyncio.to_thread(lambda: [pid for pid in pids if _is_server(pid)])


def _is_server(pid: int) -> bool:
    """dnsmasq, and no zombie."""
    return b"dnsmasq" in _cmdline(pid).split(b"\0")[0]


def _cmdline(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _must_restart(directory: Path, config: str, entries: tuple[Entry, ...]) -> bool:
    leases = read_text(directory / "leases")
    stale = fresh_leases(leases, entries) != leases
    return stale or read_text(directory / "dnsmasq.conf") != config


def _write_all(directory: Path, config: str, hosts: str, entries: tuple[Entry, ...]) -> None:
    leases = fresh_leases(read_text(directory / "leases"), entries)
    for name, text in (("leases", leases), ("hosts", hosts), ("dnsmasq.conf", config)):
        write_atomically(directory / name, text.encode(), READABLE)


async def _plug(subnet: Subnet, bridge: str) -> None:
    await links.ensure_netns(subnet.netns)
    alias = f"{links.DHCP_ALIAS}{subnet.uid}"
    await links.ensure_veth(subnet.port, subnet.netns, INNER, alias)
    await links.batch(
        [
            f"address replace {subnet.server}/{subnet.network.prefixlen} dev {INNER}",
            f"link set dev {INNER} mtu {subnet.mtu} up",
        ],
        subnet.netns,
    )
    await links.batch([f"link set dev {subnet.port} mtu {subnet.mtu} master {bridge} up"])


async def _isolate(subnet: Subnet) -> None:
    """One transaction: there is no moment without the rules."""
    await run("nft", "-f", "-", stdin=_without_table(subnet) + isolation_rules(subnet))


def _without_table(subnet: Subnet) -> str:
    return f"add table bridge {subnet.table}\ndelete table bridge {subnet.table}\n"


async def _stop(subnet: Subnet) -> None:
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for pid in await server_pids(subnet):
            _signal(pid, signal_number)
        if await _gone(subnet):
            return
    raise DriverError("hypervisor", f"the DHCP server of {subnet.network} does not end")


async def _gone(subnet: Subnet) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            while True:
                if not await server_pids(subnet):
                    return True
                await asyncio.sleep(POLL_SECONDS)
    return False


def _signal(pid: int, number: signal.Signals, kill: Callable[[int, int], None] = os.kill) -> None:
    with contextlib.suppress(ProcessLookupError):
        kill(pid, number)
