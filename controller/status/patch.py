"""The smallest JSON merge patch (RFC 7386) from one status to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

_SORTED = orjson.OPT_SORT_KEYS
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def compact(value: Mapping[str, Any]) -> dict[str, Any]:
    """Without empty strings, lists and objects: absent means the same. 0 and false stay."""
    kept = {
        key: compact(item) if isinstance(item, Mapping) else item for key, item in value.items()
    }
    return {key: item for key, item in kept.items() if item not in _EMPTY}


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What turns ``old`` into ``new``: null deletes a key, lists are replaced. {}: they equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = merge_patch(before, value)
            if inner:
                patch[key] = inner
        elif key not in old or not _same(before, value):
            patch[key] = value
    return patch


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is not true, at any depth."""
    if one != other:
        return False
    return orjson.dumps(one, option=_SORTED) == orjson.dumps(other, option=_SORTED)
