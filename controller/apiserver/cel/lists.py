"""Lists and sets: Kubernetes' functions of lists, and those of CEL's libraries that the CEL library
would do in a step without end."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import Any

from controller.apiserver.cel.budget import spend
from controller.apiserver.cel.functions import Function, T, member, plain

_ANY = T.List(T.DYN)
_ADDED = (T.INT, T.UINT, T.DOUBLE)
_GIVEN = (*_ADDED, T.BOOL, T.STRING, T.BYTES)
"""Of what ``min`` and ``max`` can be asked. (The CEL library takes no durations and no times from
Python but where nothing else can come.)"""
_ORDERED = (*_GIVEN, T.DURATION, T.TIMESTAMP)
_MAX_RANGE = 1_000_000
RENAMES = {
    "sets.contains": "kubernetes.@contains",
    "sets.equivalent": "kubernetes.@equivalent",
    "sets.intersects": "kubernetes.@intersects",
    "lists.range": "kubernetes.@range",
    "distinct": "kubernetes.@distinct",
}
"""What of the CEL library's own is replaced when an expression runs."""


def _is_sorted(items: list[Any]) -> bool:
    spend(len(items))
    return all(left <= right for left, right in itertools.pairwise(items))


def _sum(items: list[Any]) -> Any:
    spend(len(items))
    return sum(items)


def _min(items: list[Any]) -> Any:
    return _extreme("min", min, items)


def _max(items: list[Any]) -> Any:
    return _extreme("max", max, items)


def _extreme(name: str, pick: Any, items: list[Any]) -> Any:
    spend(len(items))
    if not items:
        raise ValueError(f"{name} called on empty list")
    return pick(items)


def _index_of(items: list[Any], wanted: Any) -> int:
    spend(len(items))
    key = identity(wanted)
    return next((at for at, item in enumerate(items) if identity(item) == key), -1)


def _last_index_of(items: list[Any], wanted: Any) -> int:
    at = _index_of(items[::-1], wanted)
    return at if at < 0 else len(items) - 1 - at


def identity(value: Any) -> Hashable:
    """Equal for what CEL says is equal: numbers of all kinds, but not true and 1."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return ("list", *map(identity, value))
    if isinstance(value, dict):
        return ("map", frozenset((identity(k), identity(v)) for k, v in value.items()))
    found: Hashable = value
    return found


def _set(items: list[Any]) -> set[Hashable]:
    spend(len(items))
    return {identity(item) for item in items}


def _contains(whole: list[Any], part: list[Any]) -> bool:
    return _set(whole) >= _set(part)


def _equivalent(one: list[Any], other: list[Any]) -> bool:
    return _set(one) == _set(other)


def _intersects(one: list[Any], other: list[Any]) -> bool:
    return not _set(one).isdisjoint(_set(other))


def _range(size: int) -> list[int]:
    if size > _MAX_RANGE:
        raise ValueError(f"lists.range({size}) is too large: at most {_MAX_RANGE}")
    spend(max(size, 0))
    return list(range(size))


def _distinct(items: list[Any]) -> list[Any]:
    spend(len(items))
    found: dict[Hashable, Any] = {}
    for item in items:
        found.setdefault(identity(item), item)
    return list(found.values())


def _insert(into: dict[Any, Any], *what: Any) -> dict[Any, Any]:
    """A step of ``transformMap`` (or, with a map, ``transformMapEntry``): the CEL library compiles
    those, but does not have this."""
    spend(len(into))
    return {**into, **({what[0]: what[1]} if len(what) == 2 else what[0])}


_MAP = T.Map(T.DYN, T.DYN)
FUNCTIONS: tuple[Function, ...] = (
    member("isSorted", _is_sorted, *((f"list_{t.name()}_is_sorted", T.BOOL, (T.List(t),))
                                     for t in _ORDERED)),
    member("sum", _sum, *((f"list_{t.name()}_sum", t, (T.List(t),)) for t in _ADDED)),
    member("min", _min, *((f"list_{t.name()}_min", t, (T.List(t),)) for t in _GIVEN)),
    member("max", _max, *((f"list_{t.name()}_max", t, (T.List(t),)) for t in _GIVEN)),
    member("indexOf", _index_of, ("list_a_index_of_int", T.INT, (_ANY, T.DYN))),
    member("lastIndexOf", _last_index_of, ("list_a_last_index_of_int", T.INT, (_ANY, T.DYN))),
)  # fmt: skip
SPENDING = frozenset((*RENAMES, *(function.name for function in FUNCTIONS), "cel.@mapInsert"))
INTERNAL: tuple[Function, ...] = (
    plain("kubernetes.@contains", _contains, ("k_contains", T.BOOL, (_ANY, _ANY))),
    plain("kubernetes.@equivalent", _equivalent, ("k_equivalent", T.BOOL, (_ANY, _ANY))),
    plain("kubernetes.@intersects", _intersects, ("k_intersects", T.BOOL, (_ANY, _ANY))),
    plain("kubernetes.@range", _range, ("k_range", _ANY, (T.INT,))),
    member("kubernetes.@distinct", _distinct, ("k_distinct", _ANY, (_ANY,))),
    plain("cel.@mapInsert", _insert, ("k_insert", _MAP, (_MAP, T.DYN, T.DYN)),
          ("k_insert_map", _MAP, (_MAP, _MAP))),
)  # fmt: skip
"""Known when an expression runs, not to those who write one."""
