"""What the store tells of a change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from controller.keys import Key
from controller.watch.base import Raw
from controller.watch.entry import Entry
from controller.watch.index import Edges

PROTECT = "Protect"


@dataclass(slots=True)
class Changed:
    """A change of the store; implements reconcile.actuator.News. ``old`` and ``new``: None where
    there was or is none. ``before`` and ``now``: what the object referred to, and does. ``owners``:
    of its owner references. ``news``: not only its progress and its conditions' messages differ."""

    key: Key
    own: bool
    loud: bool
    news: bool
    old: Entry | None
    new: Entry | None
    before: Edges
    now: Edges
    owners: frozenset[Key]
    raw: Raw

    @property
    def targets(self) -> set[Key]:
        """What the object refers to, or did until now."""
        found = {target for _, target in self.now}
        if self.moved:
            found.update(target for _, target in self.before)
        return found

    @property
    def moved(self) -> bool:
        return self.before is not self.now and self.before != self.now

    @property
    def freed(self) -> bool:
        """Was it protected from deletion, and is it no more?"""
        before = self.old is not None and self.old.policy == PROTECT
        return before and (self.new is None or self.new.policy != PROTECT)

    @property
    def deleting(self) -> bool:
        return self.new is None or self.new.deleting

    def refs(self, kind: str) -> list[Key]:
        return list(dict.fromkeys((*_of(kind, self.now), *_of(kind, self.before))))

    def left(self, kind: str) -> list[Key]:
        now = set(_of(kind, self.now))
        return [key for key in dict.fromkeys(_of(kind, self.before)) if key not in now]

    def annotation(self, name: str) -> str:
        meta = self.raw["metadata"]
        if "annotations" not in meta and self.new is None and self.old is not None:
            # The end of an object may be all that is said of it.
            meta = orjson.loads(self.old.raw)["metadata"] if self.old.held else meta
        return str((meta.get("annotations") or {}).get(name, ""))


def _of(kind: str, edges: Edges) -> Iterator[Key]:
    return (target for _, target in edges if target.kind == kind)
