"""``kumulus status``: every object in one table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.cli.output import out, say
from controller.up.kube import Kube, find_kubeconfig, listing
from controller.up.view import Row, row
from crds import kinds
from crds.refs import references
from crds.tags import matches

REFRESH_SECONDS = 1.0


@dataclass(frozen=True)
class Wanted:
    """Which objects. ``tags``: all of them, with * and ?; ``labels``: a label selector."""

    namespace: str | None = None
    labels: str | None = None
    tags: tuple[str, ...] = ()

    def __call__(self, wire: Mapping[str, Any]) -> bool:
        place = wire["metadata"].get("namespace", "")
        spec = wire.get("spec") or {}
        return self.namespace in (None, place) and all(matches(spec, tag) for tag in self.tags)

    @property
    def everything(self) -> bool:
        return self == Wanted()


EVERYTHING = Wanted()


def show_status(kubeconfig: Path | None, data_dir: Path, wanted: Wanted, *, watch: bool) -> None:
    """Print the table once, or keep it fresh until Ctrl-C. Raises ApiError."""
    kube = Kube(find_kubeconfig(kubeconfig, data_dir))
    if not watch:
        found = rows(kube, wanted)
        if found:
            out.print(table(found))
        elif not wanted.everything:
            say("Nothing is like that.")
        else:
            say("Nothing yet. Apply a manifest: kubectl apply -f examples/quickstart")
        return
    with Live(table(rows(kube, wanted)), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_SECONDS)
            live.update(table(rows(kube, wanted)), refresh=True)


def rows(kube: Kube, wanted: Wanted = EVERYTHING) -> list[Row]:
    """The objects, what contains before what is contained."""
    models = [kinds()[name] for name in kinds_in_order()]
    return [row(wire) for wire in listing(kube, models, wanted.labels) if wanted(wire)]


def kinds_in_order() -> list[str]:
    """Kinds by depth below those that refer to none, then by name."""
    return sorted(kinds(), key=lambda name: (_depth(name, ()), name))


def _depth(kind: str, above: tuple[str, ...]) -> int:
    targets = {
        reference.target
        for reference in references(kinds()[kind])
        if reference.path[0] == "spec" and reference.target not in (*above, kind)
    }
    return max((1 + _depth(target, (*above, kind)) for target in targets), default=0)


def table(found: Sequence[Row], *, caption: str | None = None) -> Table:
    """The rows as people read them."""
    result = Table(box=None, pad_edge=False, header_style="bold", caption=caption)
    for column in ("KIND", "NAME", "STATE", "READY"):
        result.add_column(column, no_wrap=True)
    result.add_column("MESSAGE", overflow="fold")
    for each in found:
        name = f"{each.namespace}/{each.name}" if each.namespace else each.name
        result.add_row(
            each.kind, Text(name), Text(each.state, style=style(each)), _mark(each),
            Text(each.note),
        )  # fmt: skip
    return result


def style(each: Row) -> str:
    """A colour for an object's state."""
    if each.ready:
        return "green"
    return "red" if each.stalled else "yellow"


def _mark(each: Row) -> Text:
    word = "True" if each.ready else "False"
    return Text(word if each.reason or each.ready else "Unknown", style=style(each))
