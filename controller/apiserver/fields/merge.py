"""Merging a configuration into an object, and taking fields out of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.apiserver.fields.sets import SELF, Set, is_member
from controller.apiserver.fields.types import Type
from controller.apiserver.fields.values import index, item_key


def merge(type_: Type, live: Any, config: Any) -> Any:
    """``live`` with all that ``config`` says. Neither is changed; the result shares with them."""
    if type_.atomic:
        return config
    if config is None and live and _holds(type_, live):
        return live  # as if nothing were said of what is inside
    if isinstance(config, dict) and isinstance(live, dict):
        found = dict(live)
        for key, value in config.items():
            found[key] = merge(type_.child(key), live[key], value) if key in live else value
        return found
    if type_.kind == "list" and isinstance(config, list) and isinstance(live, list):
        return _merge_items(type_, live, config)
    return config


def _holds(type_: Type, value: Any) -> bool:
    """Whether a value has parts that are merged one by one."""
    return isinstance(value, dict) or (type_.kind == "list" and isinstance(value, list))


def _merge_items(type_: Type, live: list[Any], config: list[Any]) -> list[Any]:
    """Items that both have stand in the configuration's order, others stay where they are."""
    old, new = index(type_, live), index(type_, config)
    shared = [key for key in new if key in old]
    return [
        _merge_item(type_, old.get(key, [])[at : at + 1], new.get(key, []))
        for key, at in _order([item_key(type_, item) for item in live], list(new), shared)
    ]


def _merge_item(type_: Type, live: Sequence[Any], config: Sequence[Any]) -> Any:
    if not config:
        return live[0]
    return merge(type_.item, live[0], config[0]) if live else config[0]


def _order(old: list[str], new: list[str], shared: list[str]) -> list[tuple[str, int]]:
    """Keys in the merged order, each with its number among the old ones of the same key."""
    wanted = set(new)
    seen: dict[str, int] = {}
    found: list[tuple[str, int]] = []
    left, right, next_shared = 0, 0, 0
    merged: set[str] = set()
    while left < len(old) or right < len(new):
        key = old[left] if left < len(old) else None
        if key is not None and right < len(new):
            if key == new[right]:
                merged.add(key)
                found.append((key, 0))
                left, right, next_shared = left + 1, right + 1, next_shared + 1
                continue
            if key in wanted and next_shared < len(shared) and shared[next_shared] != key:
                left += 1
                continue
        if key is not None:
            if key not in wanted:
                found.append((key, seen.get(key, 0)))
                seen[key] = seen.get(key, 0) + 1
                left += 1
                continue
            if key in merged:
                left += 1
        if right < len(new):
            merged.add(new[right])
            found.append((new[right], 0))
            if next_shared < len(shared) and shared[next_shared] == new[right]:
                next_shared += 1
            right += 1
    return found


def remove(type_: Type, value: Any, what: Set) -> Any:
    """``value`` without the fields in ``what``.

    None if nothing remains; so are its parts of which nothing remains but which are not
    themselves in ``what``: upstream leaves such a null, which still counts as there.
    """
    if not what:
        return value
    if type_.atomic:
        return None
    if isinstance(value, dict):
        return _remove_fields(type_, value, what) or None
    if type_.kind == "list" and isinstance(value, list):
        return _remove_items(type_, value, what) or None
    return value


def _remove_fields(type_: Type, value: dict[str, Any], what: Set) -> dict[str, Any]:
    found = {}
    for key, item in value.items():
        node = what.get(f"f:{key}")
        if node is None:
            found[key] = item
        elif not is_member(node):
            found[key] = remove(type_.child(key), item, node)
    return found


def _remove_items(type_: Type, value: list[Any], what: Set) -> list[Any]:
    found = []
    for item in value:
        node = what.get(item_key(type_, item))
        if node is None:
            found.append(item)
        elif not is_member(node):
            found.append(remove(type_.item, item, node))
    return found


def with_named(type_: Type, what: Set) -> Set:
    """``what`` and the fields above it that the schema names (but not entries of maps)."""
    found = {}
    for key, node in what.items():
        if key == SELF or not node:
            found[key] = node
        elif key.startswith("f:"):
            name = key[2:]
            below = with_named(type_.child(name), node)
            found[key] = {SELF: {}, **below} if name in type_.named else below
        else:
            found[key] = with_named(type_.item, node)
    return found
