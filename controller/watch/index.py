"""Who refers to whom, among the objects of the store."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controller.keys import Key
from crds.refs import Reference

Edge = tuple[Reference, Key]
Edges = tuple[Edge, ...]
_NONE: Mapping[Key, tuple[Reference, ...]] = MappingProxyType({})


class RefIndex:
    """Edges in both directions, kept up to date object by object. Targets need not exist.

    There are many edges for each object, and nearly all lead to the same few targets: what is
    equal is kept once.
    """

    def __init__(self) -> None:
        self._out: dict[Key, Edges] = {}
        self._into: dict[Key, dict[Key, tuple[Reference, ...]]] = {}
        self._groups: dict[tuple[Reference, ...], tuple[Reference, ...]] = {}

    def set(self, source: Key, edges: Edges) -> Edges:
        """Replace what ``source`` refers to; returns what it referred to."""
        old = self._out.get(source, ())
        if old == edges:
            return old
        for target in {target for _, target in old}:
            self._unlink(source, target)
        for reference, target in edges:
            into = self._into.setdefault(target, {})
            group = (*into.get(source, ()), reference)
            into[source] = self._groups.setdefault(group, group)
        if edges:
            self._out[source] = edges
        else:
            self._out.pop(source, None)
        return old

    def targets(self, source: Key) -> Edges:
        """(reference, target) of everything that ``source`` refers to, in field order."""
        return self._out.get(source, ())

    def referrers(self, target: Key) -> Mapping[Key, tuple[Reference, ...]]:
        """What refers to ``target``, and by which references. A live view: copy to keep."""
        return self._into.get(target, _NONE)

    def _unlink(self, source: Key, target: Key) -> None:
        into = self._into[target]
        del into[source]
        if not into:
            del self._into[target]
