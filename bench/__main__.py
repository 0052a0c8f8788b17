"""Prints a table: how fast virtual machines start, and what one costs."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.cloud import Cloud, cloud
from bench.load import Load, session
from controller.up.process import Usage

SIZES = [1, 10, 100, 1000]
PROCESSES = ("controller", "apiserver", "agents")


@dataclass(frozen=True)
class Result:
    """One row. CPU in milliseconds and memory in KB, per virtual machine."""

    machines: int
    seconds: float
    deleted: float
    writes: float
    cpu: dict[str, float]
    resident: dict[str, float]


async def measure(where: Cloud, machines: int) -> Result:
    """Start so many machines, note what that took, and delete them."""
    names = [f"bench-{machines}-{number}" for number in range(machines)]
    async with session(where) as connections:
        load = Load(where, connections)
        used, written = where.usage(), await load.writes()
        seconds = await load.start(names)
        used_then, written_then = where.usage(), await load.writes()
        deleted = await load.delete(names)
    return Result(
        machines, seconds, deleted,
        # Ours, which asked for the machines, do not count.
        (written_then - written - machines) / machines,
        {name: 1000 * (used_then[name].cpu - used[name].cpu) / machines for name in PROCESSES},
        {name: _grown(used[name], used_then[name]) / machines for name in PROCESSES},
    )  # fmt: skip


def table(results: list[Result], hosts: int) -> Table:
    shown = Table(title=f"{hosts} simulated hosts, {os.cpu_count()} CPUs, {platform.machine()}")
    for column in (
        "VMs",
        "s to Running",
        "VMs/s",
        "s to gone",
        "API writes/VM",
        "controller CPU-ms/VM",
        "KB/VM",
        "API server CPU-ms/VM",
        "agents CPU-ms/VM",
    ):
        shown.add_column(column, justify="right")
    for each in results:
        shown.add_row(
            f"{each.machines:,}", f"{each.seconds:.2f}", f"{each.machines / each.seconds:.1f}",
            f"{each.deleted:.2f}", f"{each.writes:.1f}", f"{each.cpu['controller']:.1f}",
            f"{each.resident['controller']:.1f}", f"{each.cpu['apiserver']:.1f}",
            f"{each.cpu['agents']:.1f}",
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("machines", nargs="*", type=int, default=SIZES)
    parser.add_argument("--hosts", type=int, default=20)
    given = parser.parse_args()
    with cloud(given.hosts) as where:
        results = [asyncio.run(measure(where, machines)) for machines in given.machines]
    Console(width=120).print(table(results, given.hosts))


def _grown(before: Usage, after: Usage) -> float:
    return (after.resident - before.resident) / 1024


if __name__ == "__main__":
    main()
