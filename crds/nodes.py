"""A JSON Schema as a tree: what is below a node, and the tree rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]


class SchemaError(ValueError):
    """A model says something that a CustomResourceDefinition cannot."""


def children(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """The schemas directly below this one: properties, items, values of a map."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
    if "items" in schema:
        yield f"{path}[]", schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        yield f"{path}{{}}", schema["additionalProperties"]


def rewrite(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """``schema`` with ``change`` applied to it and to everything below."""
    found = change(schema)
    if "properties" in found:
        properties = found["properties"].items()
        found = {**found, "properties": {name: rewrite(sub, change) for name, sub in properties}}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found = {**found, key: rewrite(found[key], change)}
    return found
