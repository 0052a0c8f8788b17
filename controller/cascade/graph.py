"""What happens to whom when something is deleted, as the reference declarations say.

A source may refer to a target by several references, each with its own policy; the strongest
counts: an object that is deleted need not be detached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.keys import Key
from crds.base import Resource
from crds.refs import OnDelete, Reference, references

_STRENGTH: tuple[OnDelete, ...] = ("cascade", "block", "stop", "detach", "keep")


class CascadeCycle(Exception):
    """Kinds that would delete each other in a circle; the message shows the circle."""


class UnknownTarget(Exception):
    """A reference to a kind that does not exist."""


class View(Protocol):
    """What the cascade needs to see of the objects; watch.store.ObjectStore has it."""

    def dependents(self, key: Key) -> Mapping[Key, tuple[Reference, ...]]: ...

    def owned(self, key: Key) -> Iterable[Key]:
        """What ``key`` made for itself and takes along by itself, by their owner references."""

    def protected(self, key: Key) -> bool:
        """Is its ``spec.deletionPolicy`` Protect?"""


Holds = Callable[[Key, Reference, Key], bool]
"""(source, reference, target): does the source still hold on to the target?"""


def by_status(source: Key, reference: Reference, target: Key) -> bool:
    """A status reference holds, a spec reference is a wish: what Actuator.holds says by default."""
    return reference.path[0] == "status"


@dataclass(frozen=True)
class Users:
    """What refers to an object that is deleted. ``children``: deleted with it. ``holders``: live
    on and let go of it, and how they do (stop or detach)."""

    children: tuple[Key, ...]
    holders: Mapping[Key, OnDelete]


class Graph:
    """The cascade between kinds. Raises UnknownTarget and CascadeCycle when made."""

    def __init__(self, models: Iterable[type[Resource]]) -> None:
        models = list(models)
        known = {model.__name__ for model in models}
        self._edges = [edge for model in models for edge in references(model)]
        for edge in self._edges:
            if edge.target not in known:
                raise UnknownTarget(
                    f"{edge.source}.{'.'.join(edge.path)} refers to {edge.target}, and there is "
                    f"no such kind; correct the Ref, or install the plugin that brings it"
                )
        self._check_cycles()

    def has_dependents(self, kind: str) -> bool:
        """Does deleting an object of this kind do anything to others?"""
        return any(e.target == kind and e.on_delete != "keep" for e in self._edges)

    def is_linked(self, kind: str) -> bool:
        """Does it refer to another kind, or another to it?"""
        return any(kind in (edge.source, edge.target) for edge in self._edges)

    def blocks(self) -> bool:
        """Does any kind refuse the deletion of what it refers to?"""
        return any(edge.on_delete == "block" for edge in self._edges)

    def children(self, kind: str) -> tuple[str, ...]:
        """Kinds that are deleted with this one, by name."""
        below = {e.source for e in self._edges if e.target == kind and e.on_delete == "cascade"}
        return tuple(sorted(below))

    def _check_cycles(self) -> None:
        done: set[str] = set()
        for kind in sorted({edge.target for edge in self._edges}):
            self._descend(kind, (), done)

    def _descend(self, kind: str, path: tuple[str, ...], done: set[str]) -> None:
        if kind in path:
            circle = " → ".join((*path[path.index(kind) :], kind))
            raise CascadeCycle(
                f"deleting would go round in a circle: {circle}; one of these references must "
                f"not be on_delete='cascade'"
            )
        if kind not in done:
            for child in self.children(kind):
                self._descend(child, (*path, kind), done)
            done.add(kind)


def strongest(found: Iterable[Reference]) -> OnDelete:
    """What counts of several references from one object to another."""
    return min((r.on_delete for r in found), key=_STRENGTH.index, default="keep")


def by_policy(view: View, key: Key, policy: OnDelete) -> list[Key]:
    """Objects that refer to ``key`` with this policy, in order of their keys."""
    return sorted(k for k, found in view.dependents(key).items() if strongest(found) == policy)


def users(view: View, key: Key, holds: Holds = by_status) -> Users:
    """Who refers to ``key``, by what that means for its deletion. ``keep`` means nothing."""
    children, holders = [], {}
    for source, found in sorted(view.dependents(key).items()):
        if strongest(found) == "cascade":
            children.append(source)
            continue
        held = [r for r in found if r.on_delete in ("stop", "detach") and holds(source, r, key)]
        if held:
            holders[source] = strongest(held)
    return Users(tuple(children), holders)


def taken_by(view: View, key: Key) -> list[Key]:
    """What goes before ``key`` does, because it does: its children, and what it made."""
    return sorted({*by_policy(view, key, "cascade"), *view.owned(key)})


def doomed_with(view: View, key: Key) -> list[Key]:
    """``key`` and all that is deleted with it: children before their parents."""
    order: dict[Key, None] = {}
    stack: list[tuple[Key, bool]] = [(key, False)]
    seen: set[Key] = set()
    while stack:
        current, expanded = stack.pop()
        if expanded:
            order[current] = None
        elif current not in seen:
            seen.add(current)
            stack.append((current, True))
            stack += ((child, False) for child in reversed(taken_by(view, current)))
    return list(order)


def blockers(view: View, key: Key) -> list[tuple[Key, Key]]:
    """(user, used) pairs that forbid the deletion of ``key``: users that live on although
    something that they need would go."""
    going = doomed_with(view, key)
    kept_out = set(going)
    return [
        (user, used)
        for used in going
        for user in by_policy(view, used, "block")
        if user not in kept_out
    ]


def protected_with(view: View, key: Key) -> list[Key]:
    """What would go although it is protected, ``key`` itself included."""
    return sorted(one for one in doomed_with(view, key) if view.protected(one))
