"""Strategic merge patch, for built-in kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.apiserver import errors

Wire = dict[str, Any]
_MERGE_KEY = "x-kubernetes-patch-merge-key"
_STRATEGY = "x-kubernetes-patch-strategy"
_DIRECTIVE = "$patch"


def merge(target: Wire, patch: Wire, schema: Mapping[str, Any]) -> Wire:
    """``target`` changed by ``patch``; lists merge where the schema says by which key.

    Knows ``$patch: replace|delete|merge``, ``$deleteFromPrimitiveList/…``, ``$retainKeys`` and
    ``$setElementOrder/…``. Raises ApiError (400) for others.
    """
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise errors.bad_request(f"unrecognized directive {errors.render(directive)}")
    found = dict(target)
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        found = {key: value for key, value in found.items() if key in retained}
    for key, value in patch.items():
        if key in (_DIRECTIVE, "$retainKeys") or key.startswith("$setElementOrder/"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            found[name] = [v for v in found.get(name) or [] if v not in value]
        elif value is None:
            found.pop(key, None)
        else:
            found[key] = _merge_value(found.get(key), value, _child(schema, key))
    return found


def _child(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = (schema.get("properties") or {}).get(key, schema.get("additionalProperties"))
    return found if isinstance(found, Mapping) else {}


def _merge_value(old: Any, new: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(new, dict):
        return merge(old if isinstance(old, dict) else {}, new, schema)
    if isinstance(new, list) and schema.get(_STRATEGY) == "merge":
        return _merge_list(old if isinstance(old, list) else [], new, schema)
    return new


def _merge_list(old: list[Any], new: list[Any], schema: Mapping[str, Any]) -> list[Any]:
    key = schema.get(_MERGE_KEY)
    if key is None:
        return [*old, *(item for item in new if item not in old)]
    if any(isinstance(item, dict) and item == {_DIRECTIVE: "replace"} for item in new):
        return [item for item in new if item != {_DIRECTIVE: "replace"}]
    found = list(old)
    for item in new:
        _merge_item(found, item, key, schema.get("items") or {})
    return found


def _merge_item(found: list[Any], item: Any, key: str, schema: Mapping[str, Any]) -> None:
    if not isinstance(item, dict) or key not in item:
        raise errors.bad_request(
            f"map: {errors.render(item)} does not contain declared merge key: {key}"
        )
    at = next((i for i, old in enumerate(found) if old.get(key) == item[key]), -1)
    if item.get(_DIRECTIVE) == "delete":
        if at >= 0:
            del found[at]
    elif at >= 0:
        found[at] = merge(found[at], item, schema)
    else:
        found.append(merge({}, item, schema))
