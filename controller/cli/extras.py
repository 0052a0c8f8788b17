"""The commands ``tags``, ``tag`` and ``plugins``, and their options."""

# ruff: noqa: PLC0415 imports inside commands keep `kumulus --help` quick
from __future__ import annotations

from typing import Annotated

import typer

from controller.cli import complete
from controller.cli.options import DATA_DIR, DataDir, Kubeconfig


def add_to(app: typer.Typer) -> None:
    for name, command in (("tags", list_tags), ("tag", change_tags), ("plugins", list_plugins)):
        app.command(name)(command)


def list_tags(
    kind: Annotated[
        str | None,
        typer.Option(autocompletion=complete.kinds, help="Only tags of this kind of object."),
    ] = None,
    *,
    data_dir: DataDir = DATA_DIR,
    kubeconfig: Kubeconfig = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """System tags with their patterns and meanings, and all tags in use."""
    from controller.cli.tags import show_tags

    show_tags(kubeconfig, data_dir.absolute(), kind, as_json=as_json)


def change_tags(
    target: Annotated[
        str, typer.Argument(help="KIND/NAME: vm/web-1.", autocompletion=complete.targets)
    ],
    tags: Annotated[
        list[str],
        typer.Argument(
            help="Any text, or a system tag: bootMode::UEFI.", autocompletion=complete.tags
        ),
    ],
    *,
    color: Annotated[
        str | None, typer.Option(help="Of user tags: red, orange, …, or #rrggbb.")
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take them; a system tag's name is enough.")
    ] = False,
    namespace: Annotated[str, typer.Option("--namespace", "-n")] = "default",
    data_dir: DataDir = DATA_DIR,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Give an object tags, or take them. (In Git they are spec.tags and spec.systemTags.)"""
    from controller.cli.tags import change_tags
    from controller.up.kube import Kube, find_kubeconfig

    kube = Kube(find_kubeconfig(kubeconfig, data_dir.absolute()))
    change_tags(kube, target, tags, namespace=namespace, color=color, remove=remove)


def list_plugins(
    *,
    crds: Annotated[
        bool, typer.Option("--crds", help="Print the definitions of their kinds, for kubectl.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Installed plugins: are they used, what do they bring, what is wrong with them."""
    from controller.cli.plugins import show_definitions, show_plugins

    if crds:
        show_definitions()
    else:
        show_plugins(as_json=as_json)
