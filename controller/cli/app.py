"""The commands and their options. What they do is in the modules that they import when run."""

# ruff: noqa: PLC0415 imports inside commands keep `kumulus --help` quick
from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.cli import complete, extras, local
from controller.cli.options import DATA_DIR, DataDir, Kubeconfig, Namespace

COMMANDS = "kumulus.commands"
"""Entry point group of commands that other packages bring (the agents do)."""

app = typer.Typer(
    help="A private cloud run as a Kubernetes-native GitOps controller.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
pki = typer.Typer(help="Certificates of hosts' agents and of controllers.", no_args_is_help=True)
app.add_typer(pki, name="pki")
cascade = typer.Typer(help="What is deleted with what.", no_args_is_help=True)
app.add_typer(cascade, name="cascade")
local.add_to(app)
extras.add_to(app)

Output = Annotated[str, typer.Option("--output", "-o", help="table or json.")]


def _is_json(output: str) -> bool:
    if output not in ("table", "json"):
        raise typer.BadParameter(f"{output!r}; write table or json", param_hint="--output")
    return output == "json"


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
def rights(
    name: Annotated[str, typer.Option(help="Of the roles and bindings.")] = "kumulus:controllers",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The controllers' own one.")
    ] = "kumulus-system",
    to: Annotated[
        str, typer.Option(help="group:NAME or account:NAMESPACE/NAME.")
    ] = "group:kumulus:controllers",
    feature: Annotated[
        list[str] | None,
        typer.Option("--with", help="Also for: admission, registration, namespace. Repeatable."),
    ] = None,
) -> None:
    """The roles that controllers need, as YAML for kubectl apply. The Helm chart has its own."""
    from controller.cli.rights import show_rights

    show_rights(name, namespace, to, feature or [])


@app.command()
def status(
    *,
    data_dir: DataDir = DATA_DIR,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            "-t",
            autocompletion=complete.tags,
            help="Only what has this tag; * and ? stand for anything. Several: all of them.",
        ),
    ] = None,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", help="Only what has these labels.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the table fresh.")] = False,
) -> None:
    """Every object with its state, and why it is not ready."""
    from controller.cli.status import Wanted, show_status

    wanted = Wanted(namespace, selector, tuple(tags or ()))
    show_status(kubeconfig, data_dir.absolute(), wanted, watch=watch)


@app.command()
def tree(
    data_dir: DataDir = DATA_DIR, kubeconfig: Kubeconfig = None, namespace: Namespace = None
) -> None:
    """What contains what, with states: what a delete would take with it."""
    from controller.cli.tree import show_tree

    show_tree(kubeconfig, data_dir.absolute(), namespace)


@app.command()
def flows(
    name: Annotated[str | None, typer.Argument(help="Draw this flow.")] = None,
    *,
    running: Annotated[
        bool, typer.Option("--running", help="The objects that are in the middle of a flow.")
    ] = False,
    output: Output = "table",
    data_dir: DataDir = DATA_DIR,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """The declared workflows: a list, or one drawn with its steps."""
    from controller.cli.flows import show_flows, show_running

    if running:
        show_running(kubeconfig, data_dir.absolute(), namespace)
    else:
        show_flows(name, as_json=_is_json(output))


@app.command()
def audit(
    *,
    data_dir: DataDir = DATA_DIR,
    kubeconfig: Kubeconfig = None,
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the ledger. Default: SQLite in DATA_DIR.")
    ] = None,
    pki_dir: Annotated[
        Path | None, typer.Option(help="The controller's certificates. Default: DATA_DIR/pki.")
    ] = None,
    agent_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where agents listen that name no port.")
    ] = 7070,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds between the two looks at what seems orphaned.")
    ] = 3.0,
    output: Output = "table",
) -> None:
    """Find what nobody owns: ledger, objects and what agents really have, compared.

    Changes nothing. Exit code 1: something is orphaned or missing; 2: an agent did not answer.
    """
    from controller.cli.audit import Request, run_audit

    request = Request(data_dir.absolute(), kubeconfig, database, pki_dir, agent_port, wait)
    raise typer.Exit(run_audit(request, as_json=_is_json(output)))


@app.command()
def ring(data_dir: DataDir = DATA_DIR, kubeconfig: Kubeconfig = None) -> None:
    """How the controllers share the work: members, arcs, keys, hand-overs."""
    from controller.cli.ring import show_ring

    show_ring(kubeconfig, data_dir.absolute())


@cascade.command("preview")
def cascade_preview(
    what: Annotated[str, typer.Argument(metavar="KIND/NAME", help="As zone/zone-1 or vm/web.")],
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="tree or json.")] = "tree",
    data_dir: DataDir = DATA_DIR,
    kubeconfig: Kubeconfig = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Where it is. Default: default.")
    ] = None,
) -> None:
    """What deleting an object would do: who goes with it, who lives on without, who forbids it."""
    from controller.cli.cascade import show_preview
    from controller.cli.output import CommandFailed

    if output not in ("tree", "json"):
        raise CommandFailed(f"no output {output!r}; --output is tree or json")
    as_json = output == "json"
    show_preview(what, namespace, kubeconfig, data_dir.absolute(), as_json=as_json)


@app.command()
def recover(
    what: Annotated[
        str | None, typer.Argument(metavar="KIND/NAME", help="As vm/web. Absent: list the trash.")
    ] = None,
    *,
    new_name: Annotated[str | None, typer.Option("--as", help="Its new name.")] = None,
    item: Annotated[
        str | None, typer.Option(help="The TrashItem. Default: the last one of that name.")
    ] = None,
    data_dir: DataDir = DATA_DIR,
    kubeconfig: Kubeconfig = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Where it was. Default: default.")
    ] = None,
) -> None:
    """Bring back a VM, volume or image that was deleted with deletionPolicy: Delay."""
    from controller.cli.cascade import recover

    place = data_dir.absolute()
    recover(what, namespace, kubeconfig, place, new_name=new_name, item_name=item)


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


@pki.command("controller")
def pki_controller(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Host names and addresses that API servers and people call it by."),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory.")],
    pki_dir: Annotated[
        Path | None, typer.Option(help="The certificate authority. Default: DATA_DIR/pki.")
    ] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """A certificate for controllers: the directory is their --pki-dir."""
    from controller.cli.pki import issue_controller
    from controller.up.layout import Layout

    issue_controller(names or [], output, pki_dir or Layout(data_dir.absolute()).pki)


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
