"""``kumulus agent``: run an agent on a host or a store, or simulate any number of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
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
from agents.wire import ACTIONS, Role
from common import logs
from common.web import PortTaken

app = typer.Typer(help="Agents: what does the controllers' work on hosts and stores.")

Listen = Annotated[str, typer.Option(help="Address to listen on.", envvar="KUMULUS_AGENT_LISTEN")]
Port = Annotated[int, typer.Option(help="Port; 0: any free one.", envvar="KUMULUS_AGENT_PORT")]
DataDir = Annotated[
    Path,
    typer.Option(help="Where operations and state are kept.", envvar="KUMULUS_AGENT_DATA_DIR"),
]
PortFile = Annotated[
    Path | None,
    typer.Option(help="Write the port here once it is open.", envvar="KUMULUS_AGENT_PORT_FILE"),
]
Grace = Annotated[
    float,
    typer.Option(
        help="Seconds that running work may go on after SIGTERM.", envvar="KUMULUS_AGENT_GRACE"
    ),
]
LogLevel = Annotated[str, typer.Option(envvar="KUMULUS_LOG_LEVEL")]
LogStyle = Annotated[
    str, typer.Option(help="json, or text for people.", envvar="KUMULUS_LOG_STYLE")
]
Timeouts = Annotated[
    list[str] | None,
    typer.Option("--timeout", help="ACTION=SECONDS, e.g. vm.start=30. May be repeated."),
]
Concurrency = Annotated[
    int,
    typer.Option(help="Operations at work at once, per agent.", envvar="KUMULUS_AGENT_CONCURRENCY"),
]


@app.command()
def run(
    *,
    name: Annotated[list[str], typer.Option(help="The agent's name. May be repeated.")],
    role: Annotated[str, typer.Option(help="host or store.", envvar="KUMULUS_AGENT_ROLE")] = "host",
    driver: Annotated[
        str | None,
        typer.Option(
            help="Default: libvirt for a host, files for a store.", envvar="KUMULUS_AGENT_DRIVER"
        ),
    ] = None,
    pki_dir: Annotated[
        Path,
        typer.Option(
            help="Holds ca.crt and <name>.<role>.crt and .key.", envvar="KUMULUS_AGENT_PKI_DIR"
        ),
    ] = Path("/etc/kumulus/pki"),
    data_dir: DataDir = Path("/var/lib/kumulus/agent"),
    listen: Listen = "0.0.0.0",  # noqa: S104 - controllers come from other machines
    port: Port = 7070,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, a setting of the driver.")
    ] = None,
    timeout: Timeouts = None,
    concurrency: Concurrency = 16,
    grace: Grace = 2.0,
    port_file: PortFile = None,
    log_level: LogLevel = "INFO",
    log_style: LogStyle = "json",
) -> None:
    """Serve agents of this machine until SIGTERM."""
    logs.configure(log_level, "text" if log_style == "text" else "json")
    agents = [AgentId(each, _role(role)) for each in name]
    settings = AgentSettings(
        data_dir=data_dir,
        listen=listen,
        port=port,
        grace=grace,
        limits=Limits(per_agent=concurrency),
        timeouts=_timeouts(timeout or []),
    )
    chosen = driver or ("libvirt" if role == "host" else "files")
    options = _pairs(option or [])
    _run(
        lambda: _serve(
            settings=settings,
            agents=agents,
            driver=chosen,
            pki_dir=pki_dir,
            options=options,
            port_file=port_file,
        )
    )


@app.command()
def simulator(
    *,
    ca_dir: Annotated[
        Path,
        typer.Option(
            "--ca-dir",
            "--pki-dir",
            help="The CA (ca.crt, ca.key) that issues the agents' certificates.",
            envvar="KUMULUS_AGENT_CA_DIR",
        ),
    ],
    data_dir: DataDir,
    listen: Listen = "127.0.0.1",
    port: Port = 7070,
    port_flag: Annotated[str, typer.Option(hidden=True)] = "--port",
    chaos: Annotated[
        Path | None,
        typer.Option(help="YAML: latencies and faults to inject.", envvar="KUMULUS_AGENT_CHAOS"),
    ] = None,
    cpu: Annotated[int | None, typer.Option(help="CPUs of each host.")] = None,
    memory: Annotated[int | None, typer.Option(help="Memory of each host, bytes.")] = None,
    disk: Annotated[int | None, typer.Option(help="Disk of each host, bytes.")] = None,
    most: Annotated[int, typer.Option(help="Agents that it poses as, at most.")] = 10_000,
    timeout: Timeouts = None,
    concurrency: Concurrency = 64,
    grace: Grace = 2.0,
    port_file: PortFile = None,
    log_level: LogLevel = "INFO",
    log_style: LogStyle = "json",
) -> None:
    """Pose as every host and store that is asked for, until SIGTERM.

    Which one is meant is the TLS server name: <name>.host.kumulus.dev, <name>.store.kumulus.dev.
    What they hold survives a restart.
    """
    logs.configure(log_level, "text" if log_style == "text" else "json")
    settings = AgentSettings(
        data_dir=data_dir,
        listen=listen,
        port=port,
        port_flag=port_flag,
        grace=grace,
        limits=Limits(per_agent=concurrency),
        timeouts=_timeouts(timeout or []),
    )
    sizes = {"cpu": cpu, "memory": memory, "disk": disk}
    options = {key: str(size) for key, size in sizes.items() if size is not None}
    _run(
        lambda: _simulate(
            settings=settings,
            ca_dir=ca_dir,
            chaos=chaos,
            options=options,
            most=most,
            port_file=port_file,
        )
    )


async def _serve(
    *,
    settings: AgentSettings,
    agents: list[AgentId],
    driver: str,
    pki_dir: Path,
    options: dict[str, str],
    port_file: Path | None,
) -> None:
    factory = load_driver(driver)
    identities = Identities(DirectoryCertificates(pki_dir, agents))

    def make(agent: AgentId) -> Driver:
        own = settings.data_dir / f"{agent.name}.{agent.role}"
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        return factory(DriverContext(agent, own, identities.client_tls(agent), options))

    async with running(settings, identities, make, agents.__contains__, at_start=agents) as server:
        _tell_port(port_file, server.port)
        await until_signal()


async def _simulate(
    *,
    settings: AgentSettings,
    ca_dir: Path,
    chaos: Path | None,
    options: dict[str, str],
    most: int,
    port_file: Path | None,
) -> None:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    simulation = Simulation(
        World(settings.data_dir / "simulator.db"),
        capacity_of(options),
        ChaosConfig.load(chaos) if chaos else ChaosConfig(),
    )
    certificates = MintedCertificates(ca_dir, settings.data_dir / "pki", most)
    async with simulating(settings, Identities(certificates), simulation) as server:
        _tell_port(port_file, server.port)
        await until_signal()


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end; what a user can mend is said in one line, exit code 1."""
    try:
        uvloop.run(work())
    except (DriverError, InUse, NoCertificate, PortTaken, FileNotFoundError) as error:
        typer.echo(f"kumulus agent: {error}", err=True)
        raise typer.Exit(1) from None


def _role(text: str) -> Role:
    if text == "host":
        return "host"
    if text == "store":
        return "store"
    raise typer.BadParameter(f"{text!r} is neither host nor store", param_hint="--role")


def _pairs(options: list[str]) -> dict[str, str]:
    split = [option.partition("=") for option in options]
    for key, equals, _ in split:
        if not equals:
            raise typer.BadParameter(f"{key!r} is not KEY=VALUE")
    return {key: value for key, _, value in split}


def _timeouts(options: list[str]) -> dict[str, float]:
    pairs = _pairs(options)
    for action, seconds in pairs.items():
        if action not in ACTIONS:
            raise typer.BadParameter(f"there is no action {action}", param_hint="--timeout")
        if not seconds.replace(".", "", 1).isdecimal():
            raise typer.BadParameter(f"{seconds!r} is no number", param_hint="--timeout")
    return {action: float(seconds) for action, seconds in pairs.items()}


def _tell_port(file: Path | None, port: int) -> None:
    """Written whole or not at all: whoever waits for it reads a number."""
    if file is not None:
        scratch = file.with_name(f".{file.name}.new")
        scratch.write_text(f"{port}\n")
        scratch.replace(file)
