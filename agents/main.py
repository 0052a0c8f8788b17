"""The two kinds of agent process, from their settings to SIGTERM."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from agents.database import InUse
from agents.drivers.base import AgentId, Driver, DriverContext, DriverError, load_driver
from agents.drivers.simulated.chaos import ChaosConfig
from agents.drivers.simulated.process import simulating
from agents.drivers.simulated.world import World
from agents.drivers.simulator import Simulation, capacity_of
from agents.identity import DirectoryCertificates, Identities, MintedCertificates, NoCertificate
from agents.operations import Limits
from agents.runtime import running, until_signal
from agents.settings import AgentSettings
from common.web import PortTaken


class CannotRun(Exception):
    """A reason that the user can mend."""


@dataclass(frozen=True)
class Real:
    """Agents of this machine. driver: its name; options: the driver's own."""

    settings: AgentSettings
    agents: list[AgentId]
    driver: str
    pki_dir: Path
    options: dict[str, str] = field(default_factory=dict)
    port_file: Path | None = None


@dataclass(frozen=True)
class Simulated:
    """Agents that pose as whoever is asked for. chaos: a YAML file."""

    settings: AgentSettings
    ca_dir: Path
    chaos: Path | None
    options: dict[str, str]
    most: int
    port_file: Path | None = None


def settings_of(
    *,
    data_dir: Path,
    listen: str,
    port: int,
    port_flag: str = "--port",
    grace: float,
    concurrency: int,
    timeouts: dict[str, float],
) -> AgentSettings:
    """concurrency: operations at work at once, per agent."""
    return AgentSettings(
        data_dir=data_dir,
        listen=listen,
        port=port,
        port_flag=port_flag,
        grace=grace,
        limits=Limits(per_agent=concurrency),
        timeouts=timeouts,
    )


def run(what: Real | Simulated) -> None:
    """Until SIGTERM. Raises CannotRun."""
    work: Callable[[], Coroutine[Any, Any, None]] = (
        (lambda: _serve(what)) if isinstance(what, Real) else (lambda: _simulate(what))
    )
    try:
        uvloop.run(work())
    except (DriverError, InUse, NoCertificate, PortTaken, OSError) as error:
        raise CannotRun(str(error)) from error


async def _serve(real: Real) -> None:
    factory = load_driver(real.driver)
    identities = Identities(DirectoryCertificates(real.pki_dir, real.agents))

    def make(agent: AgentId) -> Driver:
        own = real.settings.data_dir / f"{agent.name}.{agent.role}"
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        return factory(DriverContext(agent, own, identities.client_tls(agent), real.options))

    served = real.agents.__contains__
    async with running(real.settings, identities, make, served, at_start=real.agents) as server:
        _tell_port(real.port_file, server.port)
        await until_signal()


async def _simulate(simulated: Simulated) -> None:
    settings = simulated.settings
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    simulation = Simulation(
        World(settings.data_dir / "simulator.db"),
        capacity_of(simulated.options),
        ChaosConfig.load(simulated.chaos) if simulated.chaos else ChaosConfig(),
    )
    certificates = MintedCertificates(simulated.ca_dir, settings.data_dir / "pki", simulated.most)
    async with simulating(settings, Identities(certificates), simulation) as server:
        _tell_port(simulated.port_file, server.port)
        await until_signal()


def _tell_port(file: Path | None, port: int) -> None:
    """Written whole or not at all: whoever waits for it reads a number."""
    if file is not None:
        scratch = file.with_name(f".{file.name}.new")
        scratch.write_text(f"{port}\n")
        scratch.replace(file)
