"""``kumulus agent``: run an agent on a host or a store, or simulate any number of them.

What runs is imported when it is asked for: the other commands of ``kumulus`` start without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common import logs

if TYPE_CHECKING:
    from agents.main import Real, Simulated
    from agents.wire import Role

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
    from agents import main  # noqa: PLC0415
    from agents.drivers.base import AgentId  # noqa: PLC0415

    real = main.Real(
        settings=main.settings_of(
            data_dir=data_dir,
            listen=listen,
            port=port,
            grace=grace,
            concurrency=concurrency,
            timeouts=_timeouts(timeout or []),
        ),
        agents=[AgentId(each, _role(role)) for each in name],
        driver=driver or ("libvirt" if role == "host" else "files"),
        pki_dir=pki_dir,
        options=_pairs(option or []),
        port_file=port_file,
    )
    _run(real, log_level, log_style)


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
    from agents import main  # noqa: PLC0415

    sizes = {"cpu": cpu, "memory": memory, "disk": disk}
    simulated = main.Simulated(
        settings=main.settings_of(
            data_dir=data_dir,
            listen=listen,
            port=port,
            port_flag=port_flag,
            grace=grace,
            concurrency=concurrency,
            timeouts=_timeouts(timeout or []),
        ),
        ca_dir=ca_dir,
        chaos=chaos,
        options={key: str(size) for key, size in sizes.items() if size is not None},
        most=most,
        port_file=port_file,
    )
    _run(simulated, log_level, log_style)


def _run(what: Real | Simulated, log_level: str, log_style: str) -> None:
    """Run to the end; what a user can mend is said in one line, exit code 1."""
    from agents import main  # noqa: PLC0415

    logs.configure(log_level, "text" if log_style == "text" else "json")
    try:
        main.run(what)
    except main.CannotRun as error:
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
    from agents.wire import ACTIONS  # noqa: PLC0415

    pairs = _pairs(options)
    for action, seconds in pairs.items():
        if action not in ACTIONS:
            raise typer.BadParameter(f"there is no action {action}", param_hint="--timeout")
        if not seconds.replace(".", "", 1).isdecimal():
            raise typer.BadParameter(f"{seconds!r} is no number", param_hint="--timeout")
    return {action: float(seconds) for action, seconds in pairs.items()}
