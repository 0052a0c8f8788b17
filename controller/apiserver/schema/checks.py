"""Whether an OpenAPI schema is structural, as apiextensions v1 demands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from controller.apiserver import errors
from controller.apiserver.cel.texts import BadPattern, compile_pattern
from controller.apiserver.errors import FieldError
from controller.apiserver.schema import cel
from controller.apiserver.schema.structural import MISSING, Node, compile_schema, validate

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_REASONS = (
    "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired",
)  # fmt: skip
_FORBIDDEN = ("$ref", "definitions", "dependencies", "patternProperties", "additionalItems")
_FIELD_PATH = re.compile(r"(\.[A-Za-z_$][\w$-]*|\['[^']+'\])+\Z")

KNOWN = frozenset(
    (
        "$ref", "$schema", "additionalItems", "additionalProperties", "allOf", "anyOf",
        "default", "definitions", "dependencies", "description", "enum", "example",
        "exclusiveMaximum", "exclusiveMinimum", "externalDocs", "format", "id", "items",
        "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength",
        "minProperties", "minimum", "multipleOf", "not", "nullable", "oneOf", "pattern",
        "patternProperties", "properties", "required", "title", "type", "uniqueItems",
        "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
    )
)  # fmt: skip
"""Fields of JSONSchemaProps."""


_NUMBERS = ("minimum", "maximum", "multipleOf")
_COUNTS = (
    "maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties",
)  # fmt: skip
_TEXTS = (
    "type", "format", "pattern", "title", "description", "$ref", "x-kubernetes-list-type",
    "x-kubernetes-map-type",
)  # fmt: skip
_FLAGS = (
    "nullable", "uniqueItems", "exclusiveMinimum", "exclusiveMaximum",
    "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)  # fmt: skip
_LISTS = (
    "required", "enum", "allOf", "anyOf", "oneOf", "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)  # fmt: skip
_EXPECTED: dict[str, tuple[type, ...]] = {
    "properties": (dict,),
    "items": (dict,),
    "not": (dict,),
    "additionalProperties": (dict, bool),
    **dict.fromkeys(_NUMBERS, (int, float)),
    **dict.fromkeys(_COUNTS, (int,)),
    **dict.fromkeys(_TEXTS, (str,)),
    **dict.fromkeys(_FLAGS, (bool,)),
    **dict.fromkeys(_LISTS, (list,)),
}
_ITEMS: dict[str, type] = {
    "required": str,
    "allOf": dict,
    "anyOf": dict,
    "oneOf": dict,
    "x-kubernetes-list-map-keys": str,
    "x-kubernetes-validations": dict,
}
_RULE = ("rule", "message", "messageExpression", "reason", "fieldPath")


class BadSchema(ValueError):
    """A field of a schema has the wrong JSON type."""


def _check_types(schema: dict[str, Any], path: str) -> None:
    for key in [key for key, value in schema.items() if value is None and key in _EXPECTED]:
        del schema[key]
    for key, value in schema.items():
        good = _EXPECTED.get(key)
        wrong = good is not None and (
            not isinstance(value, good) or (isinstance(value, bool) and bool not in good)
        )
        inner = _ITEMS.get(key)
        if wrong or (inner and any(not isinstance(item, inner) for item in value)):
            raise BadSchema(f"json: cannot unmarshal: {path}.{key} has the wrong type")
    for rule in schema.get("x-kubernetes-validations") or []:
        if any(not isinstance(rule.get(key) or "", str) for key in _RULE):
            raise BadSchema(f"json: cannot unmarshal: {path}.x-kubernetes-validations")


def prune_schema(schema: Any, path: str, unknown: list[str]) -> None:
    """Drop what JSONSchemaProps does not know, in place. Raises BadSchema."""
    if isinstance(schema, bool) or schema is None:
        return
    if not isinstance(schema, dict):
        raise BadSchema(f"json: cannot unmarshal: {path} is no object")
    _check_types(schema, path)
    for key in [key for key in schema if key not in KNOWN]:
        unknown.append(f"{path}.{key}")
        del schema[key]
    for key in ("items", "additionalProperties", "not"):
        prune_schema(schema.get(key), f"{path}.{key}", unknown)
    for key in ("allOf", "anyOf", "oneOf"):
        for at, item in enumerate(schema.get(key) or []):
            prune_schema(item, f"{path}.{key}[{at}]", unknown)
    properties = schema.get("properties") or {}
    for name, child in properties.items():
        where = f"{path}.properties[{name}]"
        if isinstance(child, bool):
            raise BadSchema(f"json: cannot unmarshal: {where} is no object")
        if child is None:  # as Go reads it
            properties[name] = {}
        prune_schema(child, where, unknown)


def validate_schema(schema: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    """Everything wrong with a schema, rules included."""
    found = list(_validate_level(schema, path, root=True, uncorrelated=""))
    yield from found
    if not found:
        yield from _validate_values(compile_schema(schema), path, root=True)


def _validate_level(
    schema: Mapping[str, Any], path: str, *, root: bool, uncorrelated: str
) -> Iterator[FieldError]:
    yield from _validate_type(schema, path, root)
    yield from _validate_keywords(schema, path, root)
    yield from _validate_list(schema, path)
    for at, rule in enumerate(schema.get("x-kubernetes-validations") or []):
        where = f"{path}.x-kubernetes-validations[{at}]"
        yield from _validate_rule(rule, where, uncorrelated)
    for name, child in (schema.get("properties") or {}).items():
        where = f"{path}.properties[{name}]"
        yield from _validate_level(child, where, root=False, uncorrelated=uncorrelated)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _validate_level(
            schema["additionalProperties"], f"{path}.additionalProperties", root=False,
            uncorrelated=uncorrelated,
        )  # fmt: skip
    if isinstance(schema.get("items"), dict):
        lost = "" if schema.get("x-kubernetes-list-type") == "map" else path
        yield from _validate_level(
            schema["items"], f"{path}.items", root=False, uncorrelated=uncorrelated or lost
        )


def _validate_type(schema: Mapping[str, Any], path: str, root: bool) -> Iterator[FieldError]:
    type_ = schema.get("type") or ""
    free = schema.get("x-kubernetes-int-or-string") or (
        schema.get("x-kubernetes-preserve-unknown-fields") and not root
    )
    if not type_ and root:
        yield errors.required(f"{path}.type", "must not be empty at the root")
    elif not type_ and not free:
        yield errors.required(f"{path}.type", "must not be empty for specified object fields")
    if root and type_ not in ("", "object"):
        yield errors.invalid(f"{path}.type", type_, "must be object at the root")
    if type_ and type_ not in _TYPES:
        yield errors.not_supported(f"{path}.type", type_, _TYPES)
    if type_ == "array" and "items" not in schema:
        yield errors.required(f"{path}.items", "must be specified")


def _validate_keywords(schema: Mapping[str, Any], path: str, root: bool) -> Iterator[FieldError]:
    if "additionalProperties" in schema and root:
        yield errors.forbidden_field(f"{path}.additionalProperties", "must not be used at the root")
    if "additionalProperties" in schema and schema.get("properties"):
        yield errors.forbidden_field(
            f"{path}.additionalProperties",
            "additionalProperties and properties are mutual exclusive",
        )
    for key in _FORBIDDEN:
        if key in schema:
            yield errors.forbidden_field(f"{path}.{key}", f"{key} is not supported")
    if schema.get("uniqueItems"):
        yield errors.forbidden_field(
            f"{path}.uniqueItems",
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        )
    if "pattern" in schema:
        try:
            compile_pattern(schema["pattern"])
        except BadPattern as error:
            detail = f"must be a valid regular expression, but isn't: {error}"
            yield errors.invalid(f"{path}.pattern", schema["pattern"], detail)


def _validate_list(schema: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if kind is None:
        return
    if kind not in ("atomic", "map", "set"):
        yield errors.not_supported(f"{path}.x-kubernetes-list-type", kind, ("atomic", "map", "set"))
    if kind != "map":
        return
    if not keys:
        yield errors.required(
            f"{path}.x-kubernetes-list-map-keys",
            "must not be empty if x-kubernetes-list-type is map",
        )
    items = schema.get("items") or {}
    for at, key in enumerate(keys):
        where = f"{path}.x-kubernetes-list-map-keys[{at}]"
        child = (items.get("properties") or {}).get(key)
        if child is None:
            yield errors.invalid(where, key, "must have at least one property in items.properties")
        elif key not in (items.get("required") or []) and "default" not in child:
            yield errors.required(
                f"{path}.items.properties[{key}].default",
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a "
                "required property",
            )


def _validate_rule(rule: Any, path: str, uncorrelated: str) -> Iterator[FieldError]:
    source = rule.get("rule") if isinstance(rule, dict) else ""
    if not isinstance(source, str) or not source.strip():
        yield errors.required(f"{path}.rule", "rule is not specified")
        return
    if uncorrelated and cel.uses_old_self(source):
        yield errors.invalid(
            f"{path}.rule", source,
            "oldSelf cannot be used on the uncorrelatable portion of the schema within "
            + uncorrelated,
        )  # fmt: skip
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        yield errors.not_supported(f"{path}.reason", reason, _REASONS)
    if "\n" in source and not rule.get("message") and not rule.get("messageExpression"):
        yield errors.required(
            f"{path}.message", "message must be specified if rule contains line breaks"
        )


def _validate_values(node: Node, path: str, *, root: bool) -> Iterator[FieldError]:
    """Defaults must fit their schema, rules must compile."""
    if node.default is not MISSING:
        found: list[FieldError] = []
        validate(node, node.default, MISSING, "", found)
        yield from (FieldError(e.reason, f"{path}.default", e.body) for e in found)
    for at, rule in enumerate(node.rules):
        yield from _compile_rule(rule, node, f"{path}.x-kubernetes-validations[{at}]", root)
    for name, child in node.properties.items():
        yield from _validate_values(child, f"{path}.properties[{name}]", root=False)
    if node.additional is not None:
        yield from _validate_values(node.additional, f"{path}.additionalProperties", root=False)
    if node.items is not None:
        yield from _validate_values(node.items, f"{path}.items", root=False)


def _compile_rule(
    rule: Mapping[str, Any], node: Node, path: str, root: bool
) -> Iterator[FieldError]:
    try:
        compiled = cel.compile_rule(rule, node, root)
    except cel.BadRule as error:
        shown = {
            "Rule": rule["rule"],
            "Message": rule.get("message") or "",
            "MessageExpression": rule.get("messageExpression") or "",
            "Reason": rule.get("reason"),
            "FieldPath": rule.get("fieldPath") or "",
            "OptionalOldSelf": rule.get("optionalOldSelf"),
        }
        text = f"Invalid value: {orjson.dumps(shown).decode()}: {error}"
        yield FieldError("FieldValueInvalid", f"{path}.rule", text)
        return
    if compiled.field_path and not _names_field(compiled.field_path, node):
        yield errors.invalid(f"{path}.fieldPath", compiled.field_path, "must be a valid path")


def _names_field(path: str, node: Node) -> bool:
    if not _FIELD_PATH.match(path):
        return False
    for plain, quoted in re.findall(r"\.([\w$-]+)|\['([^']+)'\]", path):
        child = node.properties.get(plain or quoted, node.additional)
        if child is None:
            return False
        node = child
    return True
