"""Structural schemas (apiextensions v1), compiled once: pruning, defaulting, validation.

``compile_schema`` turns a JSON schema into a tree of ``Node``. ``prune`` and ``default`` change an
object in place; ``validate`` reports what is wrong in Kubernetes' words. Validation ratchets: what
did not change against the old object is not judged again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.apiserver import errors, meta
from controller.apiserver.errors import FieldError
from controller.apiserver.schema.values import Check, checks_of

MISSING: Any = object()
"""In place of an old value: there is none to compare with."""

PythonType = type
_DEEP = (dict, list)
_SCALARS = (str, bool, int)
_EXACT: dict[str, type] = {
    "string": str, "boolean": bool, "integer": int, "object": dict, "array": list,
}  # fmt: skip


@dataclass
class Node:
    """One level of a schema."""

    type: str = ""
    properties: dict[str, Node] = field(default_factory=dict)
    additional: Node | None = None
    items: Node | None = None
    required: tuple[str, ...] = ()
    nullable: bool = False
    preserve: bool = False
    embedded: bool = False
    int_or_string: bool = False
    default: Any = MISSING
    list_type: str = "atomic"
    map_keys: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    rules: tuple[Mapping[str, Any], ...] = ()
    has_defaults: bool = False
    exact: PythonType | None = None
    """The Python type of which every value is of this JSON type."""
    plain: bool = False
    """Whether that alone makes a value valid."""
    raw: Mapping[str, Any] = field(default_factory=dict)


def compile_schema(schema: Mapping[str, Any]) -> Node:
    """``schema`` has been validated (``schema.crd``)."""
    node = Node(
        type=schema.get("type", ""),
        properties={k: compile_schema(v) for k, v in (schema.get("properties") or {}).items()},
        additional=_additional(schema.get("additionalProperties")),
        items=compile_schema(schema["items"]) if isinstance(schema.get("items"), dict) else None,
        required=tuple(schema.get("required") or ()),
        nullable=bool(schema.get("nullable")),
        preserve=bool(schema.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(schema.get("x-kubernetes-embedded-resource")),
        int_or_string=bool(schema.get("x-kubernetes-int-or-string")),
        default=schema.get("default", MISSING),
        list_type=schema.get("x-kubernetes-list-type") or "atomic",
        map_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        rules=tuple(schema.get("x-kubernetes-validations") or ()),
        raw=schema,
    )
    node.checks = (*checks_of(schema), *_combinations(schema, node))
    node.has_defaults = _has_defaults(node)
    node.exact = None if node.int_or_string else _EXACT.get(node.type)
    node.plain = node.exact in _SCALARS and not node.checks
    return node


def _additional(schema: Any) -> Node | None:
    if isinstance(schema, dict):
        return compile_schema(schema)
    return Node(preserve=True) if schema is True else None


def children(node: Node) -> list[Node]:
    """The nodes one level down."""
    found = list(node.properties.values())
    found.extend(child for child in (node.additional, node.items) if child is not None)
    return found


def _has_defaults(node: Node) -> bool:
    return any(child.has_defaults or child.default is not MISSING for child in children(node))


# Pruning


def prune(node: Node, value: Any, path: str, unknown: list[str]) -> None:
    """Drop what the schema does not know, in place; name it in ``unknown``."""
    if isinstance(value, dict):
        _prune_object(node, value, path, unknown)
    elif isinstance(value, list) and node.items is not None:
        for at, item in enumerate(value):
            prune(node.items, item, f"{path}[{at}]", unknown)


def _prune_object(node: Node, value: dict[str, Any], path: str, unknown: list[str]) -> None:
    prefix = f"{path}." if path else ""
    dropped = []
    for key, item in value.items():
        child = node.properties.get(key, node.additional)
        if child is not None:
            if isinstance(item, _DEEP):
                prune(child, item, prefix + key, unknown)
        elif node.embedded and key in ("apiVersion", "kind", "metadata"):
            if key == "metadata":
                value[key] = meta.coerce(item, prefix + key, unknown)
        elif not node.preserve:
            dropped.append(key)
    for key in dropped:
        unknown.append(prefix + key)
        del value[key]


# Defaulting


def default(node: Node, value: Any) -> None:
    """Drop nulls that may not be, then fill in defaults, in place."""
    if isinstance(value, dict):
        _default_object(node, value)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            default(node.items, item)


def _default_object(node: Node, value: dict[str, Any]) -> None:
    if None in value.values():
        _drop_nulls(node, value)
    if node.has_defaults:
        for key, known in node.properties.items():
            if known.default is not MISSING and key not in value:
                value[key] = copy.deepcopy(known.default)
    for key, item in value.items():
        if isinstance(item, _DEEP):
            child = node.properties.get(key, node.additional)
            if child is not None:
                default(child, item)


def _drop_nulls(node: Node, value: dict[str, Any]) -> None:
    for key in [key for key, item in value.items() if item is None]:
        child = node.properties.get(key)
        if child is None and node.additional is not None and not node.additional.preserve:
            child = node.additional
        if child is not None and not child.nullable:
            del value[key]


# Validation


def validate(node: Node, value: Any, old: Any, path: str, found: list[FieldError]) -> None:
    """Report what is wrong with ``value``. ``old``: the value before, or MISSING."""
    if old is not MISSING and same(value, old):
        return
    if value is None:
        if not node.nullable and node.type:
            found.append(_wrong_type(node.type, value, path))
        return
    fits = type(value) is node.exact or _type_fits(node, value, path, found)
    for check in node.checks:  # also of a wrong type: what else is wrong is said at once
        check(value, path, found)
    if not fits:
        return
    if isinstance(value, dict):
        _validate_object(node, value, old, path, found)
    elif isinstance(value, list):
        _validate_list(node, value, old, path, found)


def same(left: Any, right: Any) -> bool:
    """JSON equality: 1 and true differ, which Python's == does not see."""
    if left is right:
        return True
    if left != right:
        return False
    if isinstance(left, dict):
        return all(same(item, right[key]) for key, item in left.items())
    if isinstance(left, list):
        return all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool)


def _validate_object(
    node: Node, value: dict[str, Any], old: Any, path: str, found: list[FieldError]
) -> None:
    prefix = f"{path}." if path else ""
    for key in node.required:
        if key not in value:
            found.append(errors.required(prefix + key))
    before = old if isinstance(old, dict) else {}
    for key, item in value.items():
        child = node.properties.get(key, node.additional)
        if child is None or (child.plain and type(item) is child.exact):
            continue
        validate(child, item, before.get(key, MISSING), prefix + key, found)
    if node.embedded:
        for key in ("apiVersion", "kind"):
            if not value.get(key):
                found.append(errors.required(prefix + key))


def _validate_list(
    node: Node, value: list[Any], old: Any, path: str, found: list[FieldError]
) -> None:
    if node.items is not None:
        partners = correlate(node, value, old)
        for at, item in enumerate(value):
            validate(node.items, item, partners[at], f"{path}[{at}]", found)
    if node.list_type == "set":
        _unique(value, path, found, lambda item: item)
    elif node.list_type == "map":
        _unique(value, path, found, lambda item: map_key(node, item))


def map_key(node: Node, item: Any) -> dict[str, Any]:
    """What identifies an item of a list map."""
    if not isinstance(item, dict):
        return {}
    found = {key: item[key] for key in node.map_keys if key in item}
    if node.items is not None:
        for key in node.map_keys:
            child = node.items.properties.get(key)
            if key not in found and child is not None and child.default is not MISSING:
                found[key] = child.default
    return found


def correlate(node: Node, value: list[Any], old: Any) -> list[Any]:
    """For each item the old one that it stands for, or MISSING: by key in list maps only."""
    if node.list_type != "map" or not isinstance(old, list):
        return [MISSING] * len(value)
    before = {errors.render(map_key(node, item)): item for item in old}
    return [before.get(errors.render(map_key(node, item)), MISSING) for item in value]


def _unique(
    value: list[Any], path: str, found: list[FieldError], key: Callable[[Any], Any]
) -> None:
    seen: dict[str, int] = {}
    for at, item in enumerate(value):
        identity = key(item)
        text = errors.render(identity)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 2:  # said once, however many there are
            found.append(errors.duplicate(f"{path}[{at}]", identity))


def json_type(value: Any) -> str:
    """The type's name in error texts."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _wrong_type(wanted: str, value: Any, path: str) -> FieldError:
    given = json_type(value)
    text = f"{path} in body must be of type {wanted}: {errors.render(given)}"
    return errors.type_invalid(path, given, text)


def _type_fits(node: Node, value: Any, path: str, found: list[FieldError]) -> bool:
    given = json_type(value)
    if node.int_or_string:
        fits, wanted = given in ("integer", "string"), "integer,string"
    else:
        wanted = node.type
        fits = not wanted or given == wanted or (wanted == "number" and given == "integer")
    if fits:
        return True
    found.append(_wrong_type(wanted, value, path))
    if node.type == "integer" and given == "number":
        detail = f"Checked value must be of type integer (default format) in {path}"
        found.append(errors.invalid("<nil>", "", detail))
    return False


# Combinations of schemas


def _combinations(schema: Mapping[str, Any], node: Node) -> list[Check]:
    makers: list[tuple[str, Callable[[Any], Check]]] = [
        ("allOf", _all_of),
        ("anyOf", _any_of),
        ("oneOf", _one_of),
        ("not", _not),
    ]
    found = []
    for key, maker in makers:
        if schema.get(key) is None or (key in ("anyOf", "allOf") and node.int_or_string):
            continue
        found.append(maker(schema[key]))
    return found


def _errors_of(node: Node, value: Any, path: str) -> list[FieldError]:
    found: list[FieldError] = []
    validate(node, value, MISSING, path, found)
    return found


def _all_of(schemas: Any) -> Check:
    nodes = [compile_schema(item) for item in schemas]

    def check(value: Any, path: str, found: list[FieldError]) -> None:
        for node in nodes:
            found.extend(_errors_of(node, value, path))

    return check


def _combination(schemas: Any, fits: Callable[[int], bool], text: str) -> Check:
    nodes = [compile_schema(item) for item in schemas]

    def check(value: Any, path: str, found: list[FieldError]) -> None:
        problems = [_errors_of(node, value, path) for node in nodes]
        if not fits(sum(not wrong for wrong in problems)):
            found.append(errors.invalid("<nil>", "", f"{errors.render(path)} {text}"))
            if all(problems):  # what the nearest alternative lacks
                nearest: list[FieldError] = min(problems, key=len)
                found.extend(nearest)

    return check


def _any_of(schemas: Any) -> Check:
    text = "must validate at least one schema (anyOf)"
    return _combination(schemas, lambda good: good >= 1, text)


def _one_of(schemas: Any) -> Check:
    return _combination(
        schemas, lambda good: good == 1, "must validate one and only one schema (oneOf)"
    )


def _not(schema: Any) -> Check:
    return _combination([schema], lambda good: good == 0, "must not validate the schema (not)")
