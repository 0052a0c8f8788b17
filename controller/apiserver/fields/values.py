"""From values to sets of fields, and what is different between two values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from controller.apiserver.fields.sets import Set, member
from controller.apiserver.fields.types import Type
from controller.apiserver.schema.structural import same

_NOTHING: Any = object()
_DEEP = (dict, list)


def item_key(type_: Type, item: Any) -> str:
    """How a set names an item of a list that is a set or a map."""
    if not type_.keys:
        return "v:" + orjson.dumps(item).decode()
    given = item if isinstance(item, dict) else {}
    found = {}
    for key in type_.keys:
        value = given.get(key, type_.defaults.get(key, _NOTHING))
        if value is not _NOTHING:
            found[key] = value
    return "k:" + orjson.dumps(found).decode()


def index(type_: Type, items: Iterable[Any]) -> dict[str, list[Any]]:
    """Items by key, in order; several under one key where a list has duplicates."""
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(item_key(type_, item), []).append(item)
    return found


def _merges_as_list(type_: Type, value: Any) -> bool:
    return type_.kind == "list" and isinstance(value, list)


# What an applied configuration owns


def owned(type_: Type, value: Any) -> Set:
    """What a configuration speaks of: leaves, entries of maps, items; not the fields above them."""
    if type_.atomic or not value:
        return {}
    if isinstance(value, dict):
        return _owned_fields(type_, value)
    if _merges_as_list(type_, value):
        return {
            key: member(owned(type_.item, items[0])) if len(items) == 1 else {}
            for key, items in index(type_, value).items()
        }
    return {}


def _owned_fields(type_: Type, value: dict[str, Any]) -> Set:
    found = {}
    for key, item in value.items():
        child = type_.child(key)
        below = owned(child, item)
        if below:
            found[f"f:{key}"] = below if key in type_.named else member(below)
        elif not _has_no_leaf(child, item, key in type_.named):
            found[f"f:{key}"] = below
    return found


def _has_no_leaf(type_: Type, value: Any, named: bool) -> bool:
    """An empty list of items, or an object that holds nothing else."""
    if type_.atomic:
        return False
    if isinstance(value, list):
        return type_.kind == "list" and not value
    return isinstance(value, dict) and bool(value) and named


def everything(type_: Type, value: Any) -> Set:
    """As a node: the value itself and all that is in it."""
    return member(_below(type_, value))


def _below(type_: Type, value: Any) -> Set:
    if type_.atomic:
        return {}
    if isinstance(value, dict):
        return {
            f"f:{key}": everything(type_.child(key), item) if isinstance(item, _DEEP) else {}
            for key, item in value.items()
        }
    if _merges_as_list(type_, value):
        return {
            key: everything(type_.item, items[0]) if len(items) == 1 else {}
            for key, items in index(type_, value).items()
        }
    return {}


# Differences


class Difference(NamedTuple):
    """What came, what changed its value and what went. None: the value itself did not."""

    added: Set | None = None
    modified: Set | None = None
    removed: Set | None = None


_SAME = Difference()
_MODIFIED = Difference(modified={})


def compare(type_: Type, old: Any, new: Any) -> Difference:
    """The difference of two values that are both there. Equal parts cost one comparison."""
    if old is new:
        return _SAME
    if not type_.atomic and (old or new):
        if _is(dict, old, new):
            return _compare_fields(type_, old or {}, new or {})
        if type_.kind == "list" and _is(list, old, new):
            return _compare_items(type_, old or [], new or [])
    if same(old, new):
        return _SAME
    return Difference(_below(type_, new) or None, {}, _below(type_, old) or None)


def _is(kind: type, *values: Any) -> bool:
    """Null goes for an empty one."""
    return all(value is None or isinstance(value, kind) for value in values)


def _compare_fields(type_: Type, old: dict[str, Any], new: dict[str, Any]) -> Difference:
    found = _Collected()
    for key, value in new.items():
        before = old.get(key, _NOTHING)
        if before is value:
            continue
        if before is _NOTHING:
            found.added[f"f:{key}"] = everything(type_.child(key), value)
        else:
            found.take(f"f:{key}", compare(type_.child(key), before, value))
    for key, before in old.items():
        if key not in new:
            found.removed[f"f:{key}"] = everything(type_.child(key), before)
    return found.result()


def _compare_items(type_: Type, old: list[Any], new: list[Any]) -> Difference:
    if old == new and same(old, new):
        return _SAME
    found = _Collected()
    before, after = index(type_, old), index(type_, new)
    for key, items in after.items():
        partners = before.get(key)
        if partners is None:
            found.added[key] = everything(type_.item, items[0]) if len(items) == 1 else {}
        elif len(items) == len(partners) == 1:
            found.take(key, compare(type_.item, partners[0], items[0]))
        elif not same(items, partners):
            found.modified[key] = {}
    for key, items in before.items():
        if key not in after:
            found.removed[key] = everything(type_.item, items[0]) if len(items) == 1 else {}
    return found.result()


class _Collected:
    """A difference in the making."""

    __slots__ = ("added", "modified", "removed")

    def __init__(self) -> None:
        self.added: Set = {}
        self.modified: Set = {}
        self.removed: Set = {}

    def take(self, key: str, below: Difference) -> None:
        if below.added is not None:
            self.added[key] = below.added
        if below.modified is not None:
            self.modified[key] = below.modified
        if below.removed is not None:
            self.removed[key] = below.removed

    def result(self) -> Difference:
        return Difference(self.added or None, self.modified or None, self.removed or None)
