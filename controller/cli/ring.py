"""``kumulus ring``: how the controllers share the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from controller.cli.output import CommandFailed, out, say
from controller.settings import Settings
from controller.sharding.arcs import SPACE, Arcs
from controller.sharding.journal import Note, read_note
from controller.sharding.leases import LABEL, LABELLED, LEASES
from controller.sharding.ring import Ring, load
from controller.sharding.ring_object import CONFIG_MAPS, CONTENT, NAME
from controller.sharding.table import arcs_of
from controller.up.kube import ApiError, Kube, find_kubeconfig

DIGITS = 4
"""Of the 16 hexadecimal ones of a position: enough for 160 slots."""


@dataclass(frozen=True)
class Line:
    """One member. ``serves``: what it may work on; ``gets`` and ``gives``: still on their way."""

    name: str
    serves: Arcs
    gets: Arcs
    gives: Arcs
    note: Note


def show_ring(kubeconfig: Path | None, data_dir: Path) -> None:
    """Print it. Raises ApiError, CommandFailed."""
    kube = Kube(find_kubeconfig(kubeconfig, data_dir))
    namespace = Settings.from_env().namespace
    ring = _ring(kube, namespace)
    found = kube.get(LEASES.path(namespace), labelSelector=f"{LABEL}={LABELLED}")
    leases = {lease["metadata"]["name"]: lease for lease in found["items"]}
    say(f"Generation {ring.generation}, {len(ring.members)} members.")
    found_lines = list(lines(ring, leases))
    out.print(table(found_lines))
    for each in found_lines:
        say(f"{each.name}: {' '.join(arcs(each)) or 'no arcs'}")
    if ring.unsettled:
        say(f"Waiting for {', '.join(sorted(ring.unsettled))}: the ring was made anew.")


def lines(ring: Ring, leases: Mapping[str, Mapping[str, Any]]) -> Iterator[Line]:
    for name in ring.members:
        lease = leases.get(name)
        yield Line(
            name,
            arcs_of(ring.serving(name)),
            arcs_of(ring.awaited(name)),
            arcs_of(ring.outgoing(name)),
            read_note(lease) if lease else Note(),
        )


def table(found: Iterable[Line]) -> Table:
    """HANDED: hand-overs that the member had a part in, LAST and LONGEST: how long they took.
    KEYS and what follows: as of the last renewal of its Lease."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("MEMBER", "SHARE", "ARCS", "KEYS", "GENERATION", "HANDED", "LAST", "LONGEST"):
        result.add_column(column, no_wrap=True)
    for each in found:
        note = each.note
        result.add_row(
            each.name, f"{each.serves.share:.1%}", str(len(each.serves.ranges)), str(note.keys),
            str(note.generation), str(note.handovers), f"{note.last:.2f}s", f"{note.longest:.2f}s",
        )  # fmt: skip
    return result


def arcs(line: Line) -> Sequence[str]:
    """``0000-4000``; ``+`` what is to come, ``-`` what is being given up."""
    marked = (("", line.serves), ("+", line.gets), ("-", line.gives))
    return [
        f"{mark}{start >> 64 - 4 * DIGITS:0{DIGITS}x}-{_end(end)}"
        for mark, arcs in marked
        for start, end in arcs.ranges
    ]


def _end(end: int) -> str:
    return "end" if end == SPACE else f"{end >> 64 - 4 * DIGITS:0{DIGITS}x}"


def _ring(kube: Kube, namespace: str) -> Ring:
    try:
        found = kube.get(CONFIG_MAPS.path(namespace, NAME))
    except ApiError as error:
        if error.code != 404:
            raise
        raise CommandFailed(
            f"there is no ring in namespace {namespace}: no controller has joined one yet"
        ) from None
    return load((found.get("data") or {}).get(CONTENT))
