"""The commands that run a cloud, or a part of it, on this machine, and their options."""

# ruff: noqa: PLC0415 imports inside commands keep `kumulus --help` quick
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.api_options import takes_api_options
from controller.cli.options import DATA_DIR, DataDir
from controller.up.options import ApiOptions, Options

ApiPort = Annotated[int, typer.Option(min=1, max=65535, help="The API server's port.")]
AgentPort = Annotated[int, typer.Option(min=1, max=65535, help="The agents' port.")]
ControllerPort = Annotated[
    int, typer.Option(min=1, max=65535, help="The controller's port: callbacks, metrics.")
]
Hosts = Annotated[
    int | None, typer.Option(min=1, max=1000, help="How many simulated hosts the quickstart has.")
]
Replicas = Annotated[
    int,
    typer.Option(min=1, max=20, help="How many controllers share the work, from that port on."),
]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]


def add_to(app: typer.Typer) -> None:
    for command in (up, down, backup, restore, logs, run):
        app.command()(command)
    app.command(hidden=True)(supervise)


@takes_api_options
def up(
    *,
    data_dir: DataDir = DATA_DIR,
    api_port: ApiPort = 6443,
    agent_port: AgentPort = 7070,
    controller_port: ControllerPort = 7071,
    hosts: Hosts = None,
    replicas: Replicas = 1,
    quickstart: Annotated[
        bool | None,
        typer.Option(
            "--quickstart/--no-quickstart",
            help="Apply examples/quickstart (again). Default: only the first time.",
        ),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay attached; Ctrl-C stops the cloud.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait until everything is ready.")
    ] = 120.0,
    log_level: LogLevel = "info",
    api: ApiOptions,
) -> None:
    """Start a cloud on this machine: API server, controllers, simulated hosts."""
    from controller.cli.up import UpRequest, bring_up

    options = Options(
        data_dir.absolute(), api_port, agent_port, controller_port, hosts, log_level, api, replicas
    )
    bring_up(UpRequest(options, quickstart, foreground, timeout))


def down(data_dir: DataDir = DATA_DIR) -> None:
    """Stop the cloud that `kumulus up` started. Its data stay."""
    from controller.cli.up import take_down

    take_down(data_dir.absolute())


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write. It must not exist.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Copy the embedded cloud's objects into a file, while it runs."""
    from controller.cli.backup import back_up

    back_up(data_dir.absolute(), file)


def restore(
    file: Annotated[Path, typer.Argument(help="What `kumulus backup` wrote.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Go back to the objects of a backup. The embedded cloud must not run."""
    from controller.cli.backup import put_back

    put_back(data_dir.absolute(), file)


def logs(
    component: Annotated[
        str | None,
        typer.Argument(help="apiserver, controller (-2, ...), agents or supervisor."),
    ] = None,
    *,
    data_dir: DataDir = DATA_DIR,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    kind: Annotated[str | None, typer.Option(help="Only lines about this kind.")] = None,
    name: Annotated[str | None, typer.Option(help="Only lines about this name.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only lines of this operation.")] = None,
    level: Annotated[str, typer.Option(help="This level and worse.")] = "debug",
    tail: Annotated[int, typer.Option(min=0, help="Only the last lines; 0: all.")] = 200,
) -> None:
    """Logs of the embedded cloud, all components in order of time."""
    from controller.cli.logs import Filter, show_logs

    wanted = Filter(kind=kind, name=name, operation=operation, level=level)
    show_logs(data_dir.absolute(), component, wanted, tail=tail, follow=follow)


def run(
    *,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: $KUBECONFIG, ~/.kube/config, in-cluster.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="The kubeconfig's context.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="For what no other option places. Default: .kumulus.")
    ] = None,
    pki_dir: Annotated[
        Path | None,
        typer.Option(help="CA and the controller's certificates. Default: DATA_DIR/pki."),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the ledger. Default: SQLite in DATA_DIR.")
    ] = None,
    controller_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Callbacks and metrics. Default: 7071.")
    ] = None,
    advertise_address: Annotated[
        str | None, typer.Option(help="Where we are called (by agents). Default: 127.0.0.1.")
    ] = None,
    admission: Annotated[
        str | None,
        typer.Option(
            help="on: the cluster asks this controller, at the advertised address, before it "
            "stores objects of our kinds. serve: it may ask, but others (the Helm chart) tell it "
            "to. remove: it asks no more. Default: off, as it is."
        ),
    ] = None,
    agent_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Where hosts' agents listen. Default: 7070."),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. Default: info.")
    ] = None,
    log_style: Annotated[str | None, typer.Option(help="json or text. Default: json.")] = None,
) -> None:
    """Run a controller against any cluster that has the Kumulus CRDs.

    Every option, and more (controller/settings.py), may be given as KUMULUS_<OPTION>.
    """
    from controller.cli.processes import run_controller

    run_controller(
        kubeconfig=kubeconfig,
        context=context,
        data_dir=data_dir,
        pki_dir=pki_dir,
        database_url=database,
        controller_port=controller_port,
        advertise_address=advertise_address,
        admission=admission,
        agent_port=agent_port,
        log_level=log_level.upper() if log_level else None,
        log_style=log_style,
    )


@takes_api_options
def supervise(
    *,
    data_dir: DataDir,
    api_port: ApiPort,
    agent_port: AgentPort,
    controller_port: ControllerPort,
    hosts: Hosts = None,
    replicas: Replicas = 1,
    log_level: LogLevel = "info",
    api: ApiOptions,
) -> None:
    """Keep the processes of an embedded cloud running (started by `up`)."""
    from controller.cli.processes import supervise

    supervise(Options(
        data_dir, api_port, agent_port, controller_port, hosts, log_level, api, replicas,
    ))  # fmt: skip
