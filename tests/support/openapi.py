"""Structural schemas for tests: values that fit one, and whether a value fits.

Written apart from the product's own validation, so that each can find the other wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "boolean": bool, "array": list, "object": dict,
}  # fmt: skip


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that fit the schema."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        written = st.from_regex(schema["pattern"].replace("$", r"\Z").replace("+", "{1,6}"))
        return st.one_of(st.integers(schema["minimum"], 2**63 - 1), written)
    return {
        "string": _strings, "integer": _integers, "boolean": lambda _: st.booleans(),
        "array": _arrays, "object": _objects,
    }[schema["type"]](schema)  # fmt: skip


def _strings(schema: Schema) -> st.SearchStrategy[str]:
    low, high = schema.get("minLength", 0), schema.get("maxLength", 50)
    if schema.get("format") == "date-time":
        times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 28), timezones=st.just(UTC))
        return times.map(lambda t: t.isoformat(timespec="seconds").replace("+00:00", "Z"))
    if "pattern" in schema:
        pattern = schema["pattern"]
        whole = pattern.replace("$", r"\Z") if pattern.endswith("$") else pattern
        ascii_only = st.characters(codec="ascii", min_codepoint=33)
        found = st.from_regex(whole, alphabet=ascii_only)
        return found.filter(lambda text: low <= len(text) <= high)
    alphabet = st.characters(exclude_categories=("Cs",))
    return st.text(alphabet, min_size=low, max_size=min(high, 40))


def _integers(schema: Schema) -> st.SearchStrategy[int]:
    return st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1))


def _arrays(schema: Schema) -> st.SearchStrategy[list[Any]]:
    keys = schema.get("x-kubernetes-list-map-keys", [])
    unique = (lambda item: tuple(item[key] for key in keys)) if keys else None
    size = min(schema.get("maxItems", 3), 3)
    return st.lists(values(schema["items"]), max_size=size, unique_by=unique)


def _objects(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    every = {name: values(child) for name, child in schema.get("properties", {}).items()}
    required = set(schema.get("required", []))
    return st.fixed_dictionaries(
        {name: every[name] for name in sorted(required)},
        optional={name: every[name] for name in every if name not in required},
    )


def problems(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """What is wrong with a value; nothing if it fits. Unknown fields are wrong too."""
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, int | str) and not isinstance(value, bool)
    else:
        fits = isinstance(value, _TYPES[schema["type"]])
        fits = fits and not (schema["type"] == "integer" and isinstance(value, bool))
    if not fits:
        yield f"{path}: {value!r} has the wrong type"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not in {schema['enum']}"
    if isinstance(value, str):
        yield from _string_problems(schema, value, path)
    elif isinstance(value, int):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{path}: {value} is out of bounds"
    elif isinstance(value, list):
        yield from _array_problems(schema, value, path)
    elif isinstance(value, dict):
        yield from _object_problems(schema, value, path)


def _string_problems(schema: Schema, value: str, path: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: length {len(value)}"
    if "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if schema.get("format") == "date-time" and not _TIME.match(value):
        yield f"{path}: {value!r} is no time"


def _array_problems(schema: Schema, value: list[Any], path: str) -> Iterator[str]:
    if len(value) > schema.get("maxItems", len(value)):
        yield f"{path}: {len(value)} items"
    for i, item in enumerate(value):
        yield from problems(schema["items"], item, f"{path}[{i}]")
    if keys := schema.get("x-kubernetes-list-map-keys"):
        found = [tuple(item.get(key) for key in keys) for item in value if isinstance(item, dict)]
        if len(set(found)) < len(found):
            yield f"{path}: an item is there twice"


def _object_problems(schema: Schema, value: dict[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{path}.{name}: missing"
    for name, child in value.items():
        if name in properties:
            yield from problems(properties[name], child, f"{path}.{name}")
        else:
            yield f"{path}.{name}: unknown"
