"""JSON patch and JSON merge patch."""

from __future__ import annotations

from typing import Any

import jsonpatch

from controller.apiserver import errors

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_OPERATIONS = frozenset({"add", "remove", "replace", "move", "copy", "test"})
_MAX_OPERATIONS = 10_000


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386. ``target`` is not changed, but parts of it may be shared."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), value)
    return found


def parse_merge(patch: Any) -> dict[str, Any]:
    """A merge patch of an object is an object. Raises ApiError (400)."""
    if not isinstance(patch, dict):
        raise errors.bad_request(
            f"error decoding patch: json: cannot unmarshal {_go_type(patch)} into Go value of type "
            "map[string]interface {}"
        )
    return patch


def parse_json_patch(patch: Any) -> list[dict[str, Any]]:
    """Raises ApiError (400) where RFC 6902 is not followed. ``null`` is an empty patch."""
    if patch is None:
        return []
    if not isinstance(patch, list):
        raise errors.bad_request(
            f"error decoding patch: json: cannot unmarshal {_go_type(patch)} into Go value of type "
            "[]handlers.jsonPatchOp"
        )
    if len(patch) > _MAX_OPERATIONS:
        raise errors.ApiError(
            413,
            "RequestEntityTooLarge",
            f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got "
            f"{len(patch)}",
        )
    for operation in patch:
        known = isinstance(operation, dict) and operation.get("op") in _OPERATIONS
        if not known or not isinstance(operation.get("path"), str):
            raise errors.bad_request(
                f"invalid operation {errors.render(operation)}: unsupported operation"
            )
    return patch


def apply_json_patch(target: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """RFC 6902. Raises ApiError (422) if it does not fit ``target``."""
    try:
        found = jsonpatch.JsonPatch(patch).apply(target)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError,
            ValueError, IndexError):  # fmt: skip
        raise errors.ApiError(
            422, "Invalid", "the server rejected our request due to an error in our request"
        ) from None
    if not isinstance(found, dict):
        raise errors.bad_request("error decoding patch: the patched object is no object")
    return found


def _go_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    names = {list: "array", dict: "object", str: "string", int: "number", float: "number"}
    return names.get(type(value), "null")
