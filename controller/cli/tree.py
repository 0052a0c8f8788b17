"""``kumulus tree``: what contains what, from the references that the kinds declare.

An object hangs below the objects that it is deleted with (``on_delete="cascade"``). Where it has
several, it hangs below the nearest: one that is itself below the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text
from rich.tree import Tree

from controller.cli.output import out, say
from controller.cli.status import kinds_in_order, style
from controller.up.kube import Kube, find_kubeconfig, listing
from controller.up.view import Row, row
from crds import kinds
from crds.refs import references, targets

Key = tuple[str, str, str]


def show_tree(kubeconfig: Path | None, data_dir: Path, namespace: str | None) -> None:
    """Print the tree. Raises ApiError."""
    kube = Kube(find_kubeconfig(kubeconfig, data_dir))
    objects = listing(kube, [kinds()[name] for name in kinds_in_order()])
    shown = {each.key: each for each in map(row, objects) if namespace in (None, "", each.namespace)
             or not each.namespace}  # fmt: skip
    if not shown:
        say("Nothing yet. Apply a manifest: kubectl apply -f examples/quickstart")
        return
    for branch in forest(shown, parents(objects)):
        out.print(branch)


def parents(objects: Iterable[Mapping[str, Any]]) -> dict[Key, Key | None]:
    """Each object's place: the nearest object that takes it along when it is deleted."""
    above = {_key(wire): set(_above(wire)) for wire in objects}
    found: dict[Key, Key | None] = {}
    for key, candidates in above.items():
        there = [parent for parent in candidates if parent in above]
        depth = {parent: len(_ancestors(parent, above)) for parent in there}
        found[key] = max(there, key=lambda parent: (depth[parent], parent), default=None)
    return found


def forest(rows: Mapping[Key, Row], places: Mapping[Key, Key | None]) -> list[Tree]:
    """One tree for each object that hangs below nothing shown, in the order of ``rows``."""
    below: dict[Key | None, list[Key]] = {}
    for key in rows:
        parent = places.get(key)
        below.setdefault(parent if parent in rows else None, []).append(key)
    return [_branch(key, rows, below) for key in below.get(None, [])]


def _branch(key: Key, rows: Mapping[Key, Row], below: Mapping[Key | None, Sequence[Key]]) -> Tree:
    branch = Tree(_label(rows[key]), guide_style="dim")
    for child in below.get(key, ()):
        branch.children.append(_branch(child, rows, below))
    return branch


def _label(each: Row) -> Text:
    label = Text(f"{each.title}  ")
    label.append(each.state or "-", style=style(each))
    if each.note:
        label.append(f"  {each.note}", style="dim")
    return label


def _key(wire: Mapping[str, Any]) -> Key:
    return (wire["kind"], wire["metadata"].get("namespace", ""), wire["metadata"]["name"])


def _above(wire: Mapping[str, Any]) -> Iterable[Key]:
    """What the object is deleted with: its cascading references and its owners."""
    namespace = wire["metadata"].get("namespace", "")
    for reference in references(kinds()[wire["kind"]]):
        if reference.on_delete == "cascade":
            place = namespace if kinds()[reference.target].INFO.namespaced else ""
            for name in targets(wire, reference):
                yield (reference.target, place, name)
    for owner in wire["metadata"].get("ownerReferences", ()):
        if owner["kind"] in kinds():
            place = namespace if kinds()[owner["kind"]].INFO.namespaced else ""
            yield (owner["kind"], place, owner["name"])


def _ancestors(key: Key, above: Mapping[Key, set[Key]]) -> set[Key]:
    found: set[Key] = set()
    left = list(above.get(key, ()))
    while left:
        parent = left.pop()
        if parent in above and parent not in found:
            found.add(parent)
            left += above[parent]
    return found
