"""The commands and their options. What they do is in the modules that they import when run."""

# ruff: noqa: PLC0415 imports inside commands keep `kumulus --help` quick
from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer

COMMANDS = "kumulus.commands"
"""Entry point group of commands that other packages bring (the agents do)."""

app = typer.Typer(
    help="A private cloud run as a Kubernetes-native GitOps controller.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
pki = typer.Typer(help="Certificates of hosts' agents and of controllers.", no_args_is_help=True)
app.add_typer(pki, name="pki")

DataDir = Annotated[
    Path, typer.Option(envvar="KUMULUS_DATA_DIR", help="Where the embedded cloud keeps its data.")
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="The cluster. Default: $KUBECONFIG, the embedded cloud, ~/.kube/config."),
]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Only this namespace.")]
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
DATA_DIR = Path(".kumulus")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kumulus {version('kumulus')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""


@app.command()
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
) -> None:
    """Start a cloud on this machine: API server, controllers, simulated hosts."""
    from controller.cli.up import UpRequest, bring_up
    from controller.up.plan import Options

    options = Options(
        data_dir.absolute(), api_port, agent_port, controller_port, hosts,
        log_level=log_level, replicas=replicas,
    )  # fmt: skip
    bring_up(UpRequest(options, quickstart, foreground, timeout))


@app.command()
def down(data_dir: DataDir = DATA_DIR) -> None:
    """Stop the cloud that `kumulus up` started. Its data stay."""
    from controller.cli.up import take_down

    take_down(data_dir.absolute())


@app.command()
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
            "stores objects of our kinds. remove: it asks no more. Default: off, as it is."
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


@app.command(hidden=True)
def supervise(
    *,
    data_dir: DataDir,
    api_port: ApiPort,
    agent_port: AgentPort,
    controller_port: ControllerPort,
    hosts: Hosts = None,
    replicas: Replicas = 1,
    log_level: LogLevel = "info",
) -> None:
    """Keep the processes of an embedded cloud running (started by `up`)."""
    from controller.cli.processes import supervise
    from controller.up.plan import Options

    supervise(Options(
        data_dir, api_port, agent_port, controller_port, hosts,
        log_level=log_level, replicas=replicas,
    ))  # fmt: skip


@app.command("api-server", hidden=True)
def api_server(data_dir: DataDir, port: ApiPort = 6443, log_level: LogLevel = "info") -> None:
    """The embedded API server (started by `up`)."""
    from controller.cli.processes import serve_api

    serve_api(data_dir, port, log_level)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write. It must not exist.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Copy the embedded cloud's objects into a file, while it runs."""
    from controller.cli.backup import back_up

    back_up(data_dir.absolute(), file)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `kumulus backup` wrote.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Go back to the objects of a backup. The embedded cloud must not run."""
    from controller.cli.backup import put_back

    put_back(data_dir.absolute(), file)


@app.command()
def status(
    data_dir: DataDir = DATA_DIR,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the table fresh.")] = False,
) -> None:
    """Every object with its state, and why it is not ready."""
    from controller.cli.status import show_status

    show_status(kubeconfig, data_dir.absolute(), namespace, watch=watch)


@app.command()
def tree(
    data_dir: DataDir = DATA_DIR, kubeconfig: Kubeconfig = None, namespace: Namespace = None
) -> None:
    """What contains what, with states: what a delete would take with it."""
    from controller.cli.tree import show_tree

    show_tree(kubeconfig, data_dir.absolute(), namespace)


@app.command()
def ring(data_dir: DataDir = DATA_DIR, kubeconfig: Kubeconfig = None) -> None:
    """How the controllers share the work: members, arcs, keys, hand-overs."""
    from controller.cli.ring import show_ring

    show_ring(kubeconfig, data_dir.absolute())


@app.command()
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


@pki.command("issue")
def pki_issue(
    name: Annotated[str, typer.Argument(help="The name of the Host or BackupStorage object.")],
    role: Annotated[str, typer.Option(help="host or store.")] = "host",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory. Default: ./NAME.")
    ] = None,
    pki_dir: Annotated[
        Path | None, typer.Option(help="The certificate authority. Default: DATA_DIR/pki.")
    ] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """A certificate for an agent: copy the directory to its machine."""
    from controller.cli.pki import issue
    from controller.up.layout import Layout

    issue(name, role, output or Path(name), pki_dir or Layout(data_dir.absolute()).pki)


def _load(name: str) -> Callable[..., Any]:
    """The click command behind an entry point of group COMMANDS."""
    (found,) = entry_points(group=COMMANDS, name=name)
    loaded = found.load()
    return typer.main.get_command(loaded) if isinstance(loaded, typer.Typer) else loaded


def _add_plugin(name: str) -> None:
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(name, context_settings=settings, help=f"See `kumulus {name} --help`.")
    def plugin(context: typer.Context) -> None:
        from controller.up.process import die_with_parent

        die_with_parent()
        _load(name)(args=context.args, prog_name=f"kumulus {name}")


for _name in sorted({found.name for found in entry_points(group=COMMANDS)}):
    _add_plugin(_name)
