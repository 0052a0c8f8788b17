"""Whether an applied configuration fits its types, in the words of upstream's typed values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controller.apiserver.errors import render
from controller.apiserver.fields.sets import paths
from controller.apiserver.fields.types import Type
from controller.apiserver.fields.values import item_key

_GO_TYPES: dict[type, str] = {
    str: "string", bool: "bool", int: "int64", float: "float64",
    list: "[]interface {}", dict: "map[string]interface {}",
}  # fmt: skip


def problems(type_: Type, value: Any, path: str = "") -> Iterator[str]:
    """What is wrong with a value: fields that the schema does not know, wrong types, duplicates."""
    if value is None:
        return
    if type_.kind == "map":
        yield from _map(type_, value, path)
    elif type_.kind == "list":
        yield from _list(type_, value, path)
    elif why := _scalar(type_.kind, value):
        yield f"{path}: {why}"


def _map(type_: Type, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: expected map, got &{{{_plain(value)}}}"
        return
    for key, item in value.items():
        if key in type_.named or type_.element is not None:
            yield from problems(type_.child(key), item, f"{path}.{key}")
        else:
            yield f"{path}.{key}: field not declared in schema"


def _list(type_: Type, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: expected list, got &{{{_plain(value)}}}"
        return
    if type_.atomic:
        for at, item in enumerate(value):
            yield from problems(type_.item, item, f"{path}[{at}]")
        return
    seen = set()
    for at, item in enumerate(value):
        key = item_key(type_, item)
        if type_.keys and key == "k:{}":
            yield _keyless(type_, at, path)
            return  # as upstream: it looks no further
        shown = next(paths({key: {}}))
        if key in seen:
            yield f"{path}: duplicate entries for key {shown}"
        seen.add(key)
        yield from problems(type_.item, item, path + shown)


def _keyless(type_: Type, at: int, path: str) -> str:
    return (
        f"{path}: element {at}: associative list with keys has an element that omits all key "
        f"fields {render(list(type_.keys))} (and doesn't have default values for any key fields)"
    )


def _scalar(kind: str, value: Any) -> str:
    """Why a value is not of this scalar kind; empty if it is."""
    if kind == "string" and not isinstance(value, str):
        return f"expected string, got &value.valueUnstructured{{Value:{render(value)}}}"
    if kind == "boolean" and not isinstance(value, bool):
        return f"expected boolean, got &{{{_plain(value)}}}"
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        return f"expected numeric (int or float), got {_GO_TYPES.get(type(value), 'nil')}"
    return ""


def _plain(value: Any) -> str:
    """As Go prints a value."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{_plain(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_plain, value)) + "]"
    return value if isinstance(value, str) else render(value)
