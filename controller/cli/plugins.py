"""``kumulus plugins``: what is installed, is it used, and why not."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

import yaml
from rich.table import Table
from rich.text import Text

from controller.cli.output import out, say
from controller.plugins.catalog import Catalog, Plugin, load_all
from controller.registry import fitted
from controller.up.plan import plugin_definitions
from controller.workflow.flow import Flow
from crds.plugins import INTERFACE, INTERFACE_GROUP, PREFIX


def show_plugins(*, as_json: bool) -> None:
    """A table, or JSON."""
    logging.disable(logging.ERROR)  # the table says it
    plugins = checked()[0].plugins
    if as_json:
        say(json.dumps([described(plugin) for plugin in plugins], indent=2))
    elif plugins:
        out.print(table(plugins))
    else:
        version = ".".join(map(str, INTERFACE))
        say(f"No plugins are installed. The interface is {version}; examples/plugin-energy is one.")


def show_definitions() -> None:
    """The CustomResourceDefinitions of the plugins' kinds, as YAML."""
    logging.disable(logging.ERROR)
    say(yaml.safe_dump_all(plugin_definitions(), sort_keys=False).rstrip("\n"))


def checked() -> tuple[Catalog, dict[str, Flow]]:
    """What is installed, checked as a controller checks it at its start; and its flows."""
    catalog = load_all()
    return catalog, fitted(catalog)[1]


def described(plugin: Plugin) -> dict[str, object]:
    package = plugin.package
    return {
        "name": package.name,
        "version": package.version,
        "interface": package.interface,
        "state": "Broken" if plugin.broken else "Loaded",
        "message": plugin.broken,
        "brings": brings(plugin),
    }


def brings(plugin: Plugin) -> list[str]:
    """Its parts in words: ``kinds: EnergyBudget``."""
    found: dict[str, list[str]] = {}
    for point in plugin.package.parts:
        if point.group != INTERFACE_GROUP:
            found.setdefault(point.group.removeprefix(PREFIX), []).append(point.name)
    if plugin.models:
        found["crds"] = list(plugin.models)
    if plugin.insertions:
        found["steps"] = [
            f"{one.step.name} {'before' if one.before else 'after'} {one.anchor}"
            for one in plugin.insertions
        ]
    return [f"{group}: {', '.join(names)}" for group, names in found.items()]


def table(plugins: Iterable[Plugin]) -> Table:
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NAME", "VERSION", "INTERFACE", "STATE"):
        result.add_column(column, no_wrap=True)
    result.add_column("BRINGS", overflow="fold")
    result.add_column("MESSAGE", overflow="fold")
    for plugin in plugins:
        state = "Broken" if plugin.broken else "Loaded"
        result.add_row(
            plugin.name,
            plugin.package.version or "-",
            plugin.package.interface or "-",
            Text(state, style="red" if plugin.broken else "green"),
            "\n".join(brings(plugin)),
            Text(plugin.broken),
        )
    return result
