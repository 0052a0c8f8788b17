"""What a deletion would do, before it is done.

It asks the same questions as the deletion itself (``graph.users``, ``graph.blockers``,
``graph.protected_with``; ``reconcile.deletion``), of the same objects: so it says what will be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from controller.cascade.graph import (
    Holds,
    View,
    blockers,
    by_status,
    doomed_with,
    protected_with,
    taken_by,
    users,
)
from controller.keys import Key

Effect = Literal["delete", "trash", "stop", "detach", "block", "protect"]
"""delete: it goes. trash: it goes, and its data are kept for a while (deletionPolicy: Delay). stop,
detach: it lives on without the other. block: it needs the other, so nothing happens at all.
protect: it would go but is protected, so nothing happens at all."""
REFUSALS = ("block", "protect")


class Trashing(View, Protocol):
    def delayed(self, key: Key) -> bool:
        """Is its ``spec.deletionPolicy`` Delay?"""


@dataclass(frozen=True)
class Node:
    """One object and what its deletion does to others, in order of their keys. An object that
    would be touched for several reasons appears under the first; who blocks, for each."""

    key: Key
    effect: Effect
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it, children before their parents."""
        for child in self.children:
            yield from child.walk()
        yield self

    def deleted(self) -> list[Key]:
        """What is deleted, unless the deletion is refused: children before their parents."""
        return [node.key for node in self.walk() if node.effect not in ("stop", "detach", "block")]

    def refused(self) -> list[Node]:
        """Because of whom nothing would be deleted at all."""
        return [node for node in self.walk() if node.effect in REFUSALS]

    def plain(self) -> dict[str, Any]:
        """For JSON: kind, namespace, name, effect, children."""
        return {
            "kind": self.key.kind,
            "namespace": self.key.namespace,
            "name": self.key.name,
            "effect": self.effect,
            "children": [child.plain() for child in self.children],
        }


def preview(view: Trashing, key: Key, holds: Holds = by_status) -> Node:
    """The tree of what deleting ``key`` would do."""
    return _Planner(view, key, holds).node(key)


class _Planner:
    def __init__(self, view: Trashing, key: Key, holds: Holds) -> None:
        self._view, self._root, self._holds = view, key, holds
        self._going = set(doomed_with(view, key))
        self._protected = set(protected_with(view, key))
        self._needed: dict[Key, list[Key]] = {}
        for user, used in blockers(view, key):
            self._needed.setdefault(used, []).append(user)
        self._placed = {key}

    def node(self, key: Key) -> Node:
        taken = [self.node(child) for child in self._new(taken_by(self._view, key))]
        kept = users(self._view, key, self._holds).holders
        lives = [one for one in kept if one not in self._going]
        touched = [Node(one, _letting_go(kept[one])) for one in self._new(lives)]
        needy = [Node(user, "block") for user in self._needed.get(key, ())]
        return Node(key, self._fate(key), (*taken, *touched, *needy))

    def _new(self, keys: list[Key]) -> Iterator[Key]:
        """Those that have no place in the tree yet; now they have."""
        for key in keys:
            if key not in self._placed:
                self._placed.add(key)
                yield key

    def _fate(self, key: Key) -> Effect:
        """Data are kept only where what they lie on stays: of the root, and of what it made."""
        if key in self._protected:
            return "protect"
        mine = key == self._root or key in self._view.owned(self._root)
        return "trash" if mine and self._view.delayed(self._root) else "delete"


def _letting_go(policy: str) -> Effect:
    return "stop" if policy == "stop" else "detach"
