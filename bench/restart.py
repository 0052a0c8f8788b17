"""How soon a controller that starts has looked at everything: ``python -m bench.restart [VMs]``.

A real cloud with simulated hosts starts so many virtual machines; then its controller is killed,
and the supervisor starts another. Converged: it has looked at each machine and each volume, and
has nothing left to do. An agent must not have been told to change anything meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from dataclasses import dataclass

import aiohttp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from bench.cloud import Cloud, cloud
from bench.load import Load, session
from controller.up import state
from controller.up.process import Process, Usage

BATCH = 1000
ON_A_HOST = 100
"""Machines; a simulated host has room for 126 such."""
KINDS = ("VirtualMachine", "Volume")
LONGEST = 600.0
"""Seconds to wait for a controller to converge."""
LOOK = 0.25


@dataclass(frozen=True)
class Result:
    """Of a restart. CPU in seconds, memory in bytes."""

    seconds: float
    known: float
    usage: Usage
    writes: float
    changes: float


async def main(machines: int) -> None:
    with cloud(machines // ON_A_HOST + 1) as where:
        async with session(where) as connections:
            load = Load(where, connections)
            for first in range(0, machines, BATCH):
                count = min(BATCH, machines - first)
                seconds = await load.start([f"vm-{first + n}" for n in range(count)])
                print(
                    f"{first + count:,} machines, the last {count} in {seconds:.1f} s", flush=True
                )
            await quiet(where, connections)
            result = await restart(where, load, machines)
    print(
        f"{machines:,} machines: known after {result.known:.1f} s, converged after "
        f"{result.seconds:.1f} s; {result.usage.cpu:.1f} s of CPU, "
        f"{result.usage.resident / 2**20:.0f} MiB; {result.writes:.0f} API writes, "
        f"{result.changes:.0f} changing agent calls"
    )


async def restart(where: Cloud, load: Load, machines: int) -> Result:
    """Kill the controller, and wait until the next one has converged."""
    told, written = await agent_changes(where, load.session), await load.writes()
    old = controller(where)
    assert old is not None
    began = time.perf_counter()
    old.signal(signal.SIGKILL)
    while controller(where) in (None, old):
        await asyncio.sleep(LOOK)
    known = 0.0
    while time.perf_counter() - began < LONGEST:
        await asyncio.sleep(LOOK)
        found = await metrics(where.controller_metrics, load.session)
        if not known and all(_sum(found, "kumulus_objects", kind) >= machines for kind in KINDS):
            known = time.perf_counter() - began
        looks = min(_sum(found, "kumulus_reconciles", kind) for kind in KINDS)
        if looks >= machines and _idle(found):
            return Result(
                time.perf_counter() - began, known, where.usage()["controller"],
                await load.writes() - written,
                await agent_changes(where, load.session) - told,
            )  # fmt: skip
    raise SystemExit(f"not converged within {LONGEST:.0f} s")


async def quiet(where: Cloud, connections: aiohttp.ClientSession) -> None:
    """Until the controller that made the machines has nothing left to do."""
    while not _idle(await metrics(where.controller_metrics, connections)):
        await asyncio.sleep(LOOK)


def controller(where: Cloud) -> Process | None:
    found = state.load(where.layout)
    return found.children["controller"].process if found is not None else None


async def agent_changes(where: Cloud, connections: aiohttp.ClientSession) -> float:
    return _sum(await metrics(where.agents_metrics, connections), "kumulus_agentd_operations")


async def metrics(url: str, connections: aiohttp.ClientSession) -> list[Metric]:
    """Empty while nobody answers."""
    try:
        async with connections.get(url) as response:
            return list(text_string_to_metric_families(await response.text()))
    except aiohttp.ClientError:
        return []


def _sum(found: list[Metric], name: str, kind: str | None = None) -> float:
    return sum(
        sample.value
        for family in found
        if family.name == name
        for sample in family.samples
        if not sample.name.endswith("_created") and kind in (None, sample.labels.get("kind"))
    )


def _idle(found: list[Metric]) -> bool:
    names = ("kumulus_queue_depth", "kumulus_queue_active")
    return bool(found) and not any(_sum(found, name, kind) for name in names for kind in KINDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.restart", description=__doc__)
    parser.add_argument("machines", nargs="?", type=int, default=20_000)
    asyncio.run(main(parser.parse_args().machines))
