"""From a kind's model to its CustomResourceDefinition.

Pydantic writes a JSON Schema; here it becomes a *structural* one: references to definitions are
resolved in place, "or null" is dropped (an absent field is absent), every string and list of a
spec has a bound (the API server refuses CEL rules whose worst case it cannot bound), and the
marks of ``crds.base`` turn into CEL. A model that cannot be expressed is a SchemaError here, so
it is found when the CRDs are generated, never by a user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from crds.base import (
    GROUP,
    IMMUTABLE_KEY,
    RULES_KEY,
    VERSION,
    BaseStatus,
    KindInfo,
    Resource,
)
from crds.nodes import Schema, SchemaError, children, rewrite
from crds.refs import REF_KEY, ObjectRef
from crds.rules import add_rules

CATEGORY = "kumulus"
STATUS_STRING = 32768
STATUS_LIST = 1024
"""Bounds of what a status does not bound itself: as long as a condition's message."""

_DROPPED = ("title", IMMUTABLE_KEY, RULES_KEY, REF_KEY)
_ORDER = (
    "description", "type", "x-kubernetes-int-or-string", "format", "enum", "default", "pattern",
    "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties",
    "required", "properties", "additionalProperties", "items", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations",
)  # fmt: skip


def definition(model: type[Resource]) -> Schema:
    """The CustomResourceDefinition of a kind."""
    info = model.INFO
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": object_schema(model)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": _columns(info),
    }
    names = {
        "kind": model.__name__,
        "listKind": f"{model.__name__}List",
        "plural": info.plural,
        "singular": info.singular,
        "shortNames": list(info.short_names),
        "categories": [CATEGORY],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if info.namespaced else "Cluster",
            "names": {key: value for key, value in names.items() if value},
            "versions": [version],
        },
    }


def object_schema(model: type[Resource]) -> Schema:
    """The structural schema of a whole object of this kind."""
    field = model.model_fields["spec"]
    spec = finish(marked(field.annotation), f"{model.__name__}.spec")
    if not field.is_required() and _has_defaults(spec):
        spec["default"] = {}
    name = {"type": "string", "maxLength": model.INFO.max_name}
    schema = {
        "description": model.__doc__ or "",
        "type": "object",
        "required": ["spec"] if field.is_required() else None,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": spec,
            "status": _status(marked(model.model_fields["status"].annotation)),
        },
    }
    return _ordered(schema)


def marked(annotation: Any) -> Schema:
    """The schema of a type, complete and in place, with our marks still in it."""
    found = TypeAdapter(annotation).json_schema(schema_generator=_Generator)
    resolved: Schema = _inline(found, found.get("$defs", {}))
    _describe_references(resolved)
    return resolved


def _describe_references(schema: Schema) -> None:
    """Say what a reference refers to, before what the field says of it."""
    if ref := schema.get(REF_KEY):
        said = schema.get("description", "")
        own = "" if said == (ObjectRef.__doc__ or "") else f" {said}"
        schema["description"] = f"{ref['kind']} by name.{own}"
    for _, child in children(schema, ""):
        _describe_references(child)


def finish(schema: Schema, path: str) -> Schema:
    """A spec's marked schema as the API server takes it; SchemaError names what cannot be."""
    _require_bounds(schema, path)
    _normalise(schema)
    add_rules(schema, path, correlatable=True)
    return _ordered(_strip(schema))


class _Generator(GenerateJsonSchema):
    """Pydantic's own generator, without null: on the wire an absent value is absent."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def encode_default(self, dft: Any) -> Any:
        """A default model is ``{}``: its fields have defaults of their own."""
        return {} if hasattr(dft, "model_dump") else super().encode_default(dft)


def _inline(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return {key: _inline(value, definitions) for key, value in node.items() if key != "$defs"}


def _require_bounds(schema: Schema, path: str) -> None:
    if unsupported := schema.keys() & {"anyOf", "oneOf", "allOf", "$ref", "prefixItems"}:
        raise SchemaError(f"{path}: a structural schema has no {', '.join(sorted(unsupported))}")
    if _unbounded_by(schema):
        raise SchemaError(f"{path}: give it a {_unbounded_by(schema)}; CEL needs a bound")
    for below, child in children(schema, path):
        _require_bounds(child, below)


def _unbounded_by(schema: Schema) -> str | None:
    """The bound that a schema lacks, or None."""
    kind = schema.get("type")
    if kind == "string" and not schema.keys() & {"maxLength", "enum", "const"}:
        return None if schema.get("format") == "date-time" else "maxLength"
    if kind == "array" and "maxItems" not in schema:
        return "maxItems"
    if "additionalProperties" in schema and "maxProperties" not in schema:
        return "maxProperties"
    return None


def _normalise(schema: Schema) -> None:
    """Into the API server's words: enum for const, list types, defaults only where they say more
    than absence does."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    for _, child in children(schema, ""):
        _normalise(child)
    if schema.get("type") == "array" and "x-kubernetes-list-type" not in schema:
        schema["x-kubernetes-list-type"] = "atomic"
    if schema.get("default") in (None, []) or (
        schema["default"] == {} and not _has_defaults(schema)
    ):
        schema.pop("default", None)


def _has_defaults(schema: Schema) -> bool:
    return any("default" in child for child in schema.get("properties", {}).values())


def _status(schema: Schema) -> Schema:
    """A status has bounds but no defaults: it holds what a controller wrote, nothing else.

    A field that a kind narrows keeps what BaseStatus says of it.
    """
    for name, common in marked(BaseStatus)["properties"].items():
        schema["properties"][name].setdefault("description", common.get("description", ""))

    def visit(node: Schema) -> None:
        if _unbounded_by(node) == "maxLength":
            node["maxLength"] = STATUS_STRING
        elif _unbounded_by(node) == "maxItems":
            node["maxItems"] = STATUS_LIST
        for _, child in children(node, ""):
            visit(child)
            child.pop("default", None)

    visit(schema)
    _normalise(schema)
    return _strip(schema)


def _columns(info: KindInfo) -> list[Schema]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "jsonPath": column.path,
            **({"priority": column.priority} if column.priority else {}),
        }
        for column in info.columns
    ]


def _strip(schema: Schema) -> Schema:
    def change(node: Schema) -> Schema:
        return {key: value for key, value in node.items() if key not in _DROPPED}

    return rewrite(schema, change)


def _ordered(schema: Schema) -> Schema:
    """Keys in the order people read them; an unknown key is an error."""

    def change(node: Schema) -> Schema:
        if unknown := node.keys() - set(_ORDER):
            raise SchemaError(f"a CustomResourceDefinition has no {', '.join(sorted(unknown))}")
        return {key: node[key] for key in _ORDER if node.get(key) not in (None, "")}

    return rewrite(schema, change)
