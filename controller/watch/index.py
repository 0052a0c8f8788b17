"""Who refers to whom, among the objects of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from controller.keys import Key
from crds.refs import Reference

Edges = tuple[tuple[Reference, Key], ...]
_NONE: Mapping[Key, tuple[Reference, ...]] = MappingProxyType({})


class RefIndex:
    """Edges in both directions, kept up to date object by object. Targets need not exist."""

    def __init__(self) -> None:
        self._out: dict[Key, Edges] = {}
        self._into: dict[Key, dict[Key, tuple[Reference, ...]]] = {}

    def set(self, source: Key, edges: Iterable[tuple[Reference, Key]]) -> set[Key]:
        """Replace what ``source`` refers to; returns the targets it referred to or refers to."""
        old, new = self._out.get(source, ()), tuple(edges)
        touched = {target for _, target in (*old, *new)}
        if old != new:
            for target in {target for _, target in old}:
                self._unlink(source, target)
            for reference, target in new:
                into = self._into.setdefault(target, {})
                into[source] = (*into.get(source, ()), reference)
        if new:
            self._out[source] = new
        else:
            self._out.pop(source, None)
        return touched

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
