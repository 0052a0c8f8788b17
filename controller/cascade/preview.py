"""What a deletion would take with it, before it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller.cascade.graph import View, by_policy, doomed_with
from controller.keys import Key
from crds.refs import OnDelete


@dataclass(frozen=True)
class Node:
    """One object and what its deletion does to those that refer to it, in order of their keys.

    ``effect`` on this object: cascade (it is deleted), stop, detach or block. An object that
    would be deleted for several reasons appears under the first.
    """

    key: Key
    effect: OnDelete
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it, children before their parents."""
        for child in self.children:
            yield from child.walk()
        yield self

    def deleted(self) -> list[Key]:
        """What is deleted, children before their parents."""
        return [node.key for node in self.walk() if node.effect == "cascade"]


def preview(view: View, key: Key) -> Node:
    """The tree of what deleting ``key`` would do."""
    return _node(view, key, set(doomed_with(view, key)), {key})


def _node(view: View, key: Key, going: set[Key], placed: set[Key]) -> Node:
    children = []
    for child in by_policy(view, key, "cascade"):
        if child not in placed:
            placed.add(child)
            children.append(_node(view, child, going, placed))
    for effect in ("stop", "detach", "block"):
        others = by_policy(view, key, effect)
        children += [Node(other, effect) for other in others if other not in going]
    return Node(key, "cascade", tuple(children))
