"""What is there and nobody's, and what should be there and is not. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.keys import Key
from controller.reconcile.holdings import Holding

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, order=True)
class Item:
    """A thing that is there: see reconcile.holdings.Holding. ``detail``: for people."""

    place: str
    area: str
    item: str
    detail: str = ""

    @property
    def same(self) -> tuple[str, str, str]:
        """What makes it the same thing when it is looked at again."""
        return self.place, self.area, self.item


@dataclass(frozen=True, order=True)
class Finding:
    """``why``: a sentence for people."""

    item: Item
    why: str


@dataclass(frozen=True)
class Owners:
    """What the API's objects say.

    uids: of every object. free: of those that own whatever carries their uid. holdings: of the
    others. api: objects whose owner in the API is gone.
    """

    uids: Mapping[str, Key]
    free: frozenset[str]
    holdings: Iterable[tuple[Key, Holding]]
    api: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Report:
    """orphans: there, and nobody's. missing: an object counts on it, and it is not there. unasked:
    place → why nobody knows what it has."""

    orphans: tuple[Finding, ...]
    missing: tuple[Finding, ...]
    unasked: Mapping[str, str]

    @property
    def clean(self) -> bool:
        return not self.orphans and not self.missing

    def confirmed_by(self, later: Report) -> Report:
        """What both reports found: a cloud at work changes while it is looked at, and what is only
        in one of them was on its way. ``unasked`` is what the later one says."""
        return Report(
            _both(self.orphans, later.orphans), _both(self.missing, later.missing), later.unasked
        )


def compare(items: Iterable[Item], owners: Owners, unasked: Mapping[str, str]) -> Report:
    """``items``: everything that is there, at all places but the ``unasked`` ones."""
    by_item: dict[str, list[tuple[Key, Holding]]] = defaultdict(list)
    for key, holding in owners.holdings:
        by_item[holding.item].append((key, holding))
    met: set[Holding] = set()
    orphans = list(owners.api)
    for item in items:
        fitting = [h for _, h in by_item.get(item.item, ()) if _matches(h, item)]
        met.update(fitting)
        if not fitting and not _carried(item, owners.free):
            orphans.append(Finding(item, _why(item, owners, by_item)))
    missing = [
        Finding(Item(h.place, h.area, h.item), f"{key} counts on it, and it is not there")
        for found in by_item.values()
        for key, h in found
        if h.needed and h not in met and h.place not in unasked
    ]
    return Report(tuple(sorted(orphans)), tuple(sorted(missing)), dict(unasked))


def _matches(holding: Holding, item: Item) -> bool:
    return _covers(holding.place, item.place) and _covers(holding.area, item.area)


def _covers(pattern: str, text: str) -> bool:
    if pattern == "" or pattern.endswith("/"):
        return text.startswith(pattern)
    return pattern == text


def _carried(item: Item, free: frozenset[str]) -> bool:
    return any(uid in free for uid in _uids(item))


def _uids(item: Item) -> list[str]:
    """The uids in an item's own name; the last scope of a pool's counts, too."""
    return [match[0] for match in _UID.finditer(item.item)]


def _why(item: Item, owners: Owners, by_item: Mapping[str, list[tuple[Key, Holding]]]) -> str:
    elsewhere = by_item.get(item.item)
    if elsewhere:
        key, holding = elsewhere[0]
        return f"{key} has it in {holding.place} {holding.area}, not here"
    living = [owners.uids[uid] for uid in _uids(item) if uid in owners.uids]
    if living:
        return f"{living[0]} does not use it"
    return "what it was for does not exist any more"


def _both(before: Iterable[Finding], after: Iterable[Finding]) -> tuple[Finding, ...]:
    known = {finding.item.same for finding in before}
    return tuple(finding for finding in after if finding.item.same in known)
