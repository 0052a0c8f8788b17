"""What this machine is, from /proc and uname."""

from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from agents.wire import Facts


@dataclass(frozen=True)
class Machine:
    """memory in bytes."""

    hostname: str
    architecture: str
    operating_system: str
    kernel: str
    cpu: int
    cpu_sockets: int
    cpu_model: str
    memory: int
    boot_id: str


def facts_of(machine: Machine, hypervisor: str, version: str) -> Facts:
    return Facts(**vars(machine), hypervisor=hypervisor, hypervisor_version=version)


async def read_machine(root: Path = Path("/")) -> Machine:
    return await asyncio.to_thread(machine_at, root)


def machine_at(root: Path) -> Machine:
    cpuinfo = (root / "proc/cpuinfo").read_text()
    uname = platform.uname()
    return Machine(
        hostname=uname.node,
        architecture=uname.machine,
        operating_system=operating_system((root / "etc/os-release").read_text()),
        kernel=uname.release,
        cpu=os.cpu_count() or 1,
        cpu_sockets=cpu_sockets(cpuinfo),
        cpu_model=cpu_model(cpuinfo),
        memory=total_memory((root / "proc/meminfo").read_text()),
        boot_id=boot_id(root),
    )


def boot_id(root: Path = Path("/")) -> str:
    """Changes with every start of the machine."""
    return (root / "proc/sys/kernel/random/boot_id").read_text().strip()


def operating_system(os_release: str) -> str:
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    return fields.get("PRETTY_NAME", "Linux").strip("\"'")


def cpu_model(cpuinfo: str) -> str:
    """ "" where the architecture does not tell (ARM)."""
    return next(iter(_values(cpuinfo, "model name")), "")


def cpu_sockets(cpuinfo: str) -> int:
    return len(set(_values(cpuinfo, "physical id"))) or 1


def total_memory(meminfo: str) -> int:
    return int(next(iter(_values(meminfo, "MemTotal"))).split()[0]) * 1024


def _values(text: str, key: str) -> list[str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]
