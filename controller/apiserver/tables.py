"""Tables, as ``kubectl get`` asks for them, and metadata-only answers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from controller.apiserver.catalog import Column, Resource
from controller.apiserver.schema.formats import parse_date_time

Wire = dict[str, Any]


def text_at(wire: Mapping[str, Any], path: str) -> str:
    """The text at a dotted path, empty if absent."""
    node: Any = wire
    for step in path.split("."):
        node = node.get(step) if isinstance(node, Mapping) else None
    return "" if node is None else str(node)


def age(then: Any, now: dt.datetime | None = None) -> str:
    """Time since ``then`` (RFC 3339), in the short form of kubectl; ``<unknown>`` if absent."""
    if not isinstance(then, str) or not then:
        return "<unknown>"
    try:
        passed = (now or dt.datetime.now(dt.UTC)) - parse_date_time(then)
    except ValueError:
        return "<invalid>"
    return duration(int(passed.total_seconds()))


def duration(seconds: int) -> str:
    """45s, 5m30s, 12m, 3h20m, 26h, 5d4h, 12d, 2y30d."""
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    for below, unit, name, smaller, smaller_name in _SCALE:
        if seconds < below:
            first, rest = divmod(seconds, unit)
            return _two(first, name, rest // smaller if smaller else 0, smaller_name)
    return f"{seconds // (365 * 86400)}y"


_SCALE = (
    (120, 1, "s", 0, ""),
    (600, 60, "m", 1, "s"),
    (180 * 60, 60, "m", 0, ""),
    (8 * 3600, 3600, "h", 60, "m"),
    (48 * 3600, 3600, "h", 0, ""),
    (8 * 86400, 86400, "d", 3600, "h"),
    (730 * 86400, 86400, "d", 0, ""),
    (8 * 365 * 86400, 365 * 86400, "y", 86400, "d"),
)
"""Below which age: the unit shown, and the smaller one beside it."""


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def column_definitions(resource: Resource) -> list[Wire]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in resource.columns
    ]


def partial(wire: Mapping[str, Any]) -> Wire:
    """The metadata alone."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": wire["metadata"],
    }


def partial_list(metadata: Wire, items: Iterable[Mapping[str, Any]]) -> Wire:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "items": [partial(item) for item in items],
    }


def row(resource: Resource, wire: Mapping[str, Any], include: str) -> Wire:
    """One row. ``include``: what the row's object holds (Metadata, Object or None)."""
    found: Wire = {"cells": [cell(column, wire) for column in resource.columns]}
    if include == "Object":
        found["object"] = wire
    elif include != "None":
        found["object"] = partial(wire)
    return found


def cell(column: Column, wire: Mapping[str, Any]) -> Any:
    return column.cell(wire)


def table(
    resource: Resource,
    metadata: Wire,
    items: Iterable[Mapping[str, Any]],
    include: str,
    headers: bool = True,
) -> Wire:
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": column_definitions(resource) if headers else None,
        "rows": [row(resource, item, include) for item in items],
    }


def custom_column(definition: Mapping[str, Any], find: Callable[[Any], list[Any]]) -> Column:
    """A printer column of a CustomResourceDefinition."""
    type_ = definition["type"]
    path = definition["jsonPath"]
    return Column(
        definition["name"],
        type_,
        lambda wire: custom_cell(type_, find(wire)),
        definition.get("priority") or 0,
        definition.get("format") or "",
        definition.get("description")
        or f"Custom resource definition column (in JSONPath format): {path}",
    )


def custom_cell(type_: str, found: list[Any]) -> Any:
    """What a printer column shows of the values at its path; None shows as <none>."""
    if not found or found[0] is None:
        return None
    value = found[0]
    if type_ == "date":
        return age(value)
    if type_ == "integer":
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if type_ == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if type_ == "boolean":
        return value if isinstance(value, bool) else None
    return value if isinstance(value, str) else _go_text(value)


def _go_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return orjson.dumps(value).decode()
    return str(value)
