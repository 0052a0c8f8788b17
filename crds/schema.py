"""From a kind's model to its CustomResourceDefinition.

Pydantic writes a JSON Schema; here it becomes a *structural* one: references to definitions are
resolved in place, "or null" is dropped (an absent field is absent), every string and list of a
spec has a bound (the API server refuses CEL rules whose worst case it cannot bound), and the
marks of ``crds.base`` turn into CEL. A model that cannot be expressed is a SchemaError here, so
it is found when the CRDs are generated, never by a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from crds.base import (
    GROUP,
    IMMUTABLE_KEY,
    RULES_KEY,
    SUFFIXES,
    VERSION,
    BaseStatus,
    KindInfo,
    Resource,
)
from crds.refs import REF_KEY, ObjectRef

Schema = dict[str, Any]
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
_CEL_RESERVED = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function",
     "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
)  # fmt: skip


_UNITS = ", ".join(f"'{suffix}': {float(unit)!r}" for suffix, unit in SUFFIXES.items())
_AMOUNT = (
    f"type(q) == int ? double(q) : double(q.find('^[0-9.]+')) * {{{_UNITS}}}[q.find('[A-Za-z]*$')]"
)
"""CEL: the bytes of a quantity ``q``. Kubernetes' own quantity() is missing from other servers."""


class SchemaError(ValueError):
    """A model says something that a CustomResourceDefinition cannot."""


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
        schema["description"] = f"A reference to a {ref['kind']}.{own}"
    for _, child in children(schema, ""):
        _describe_references(child)


def finish(schema: Schema, path: str) -> Schema:
    """A spec's marked schema as the API server takes it; SchemaError names what cannot be."""
    _require_bounds(schema, path)
    _normalise(schema)
    _add_rules(schema, path, correlatable=True)
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


def children(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """The schemas directly below this one: properties, items, values of a map."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
    if "items" in schema:
        yield f"{path}[]", schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        yield f"{path}{{}}", schema["additionalProperties"]


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


# CEL ----------------------------------------------------------------------------------------


def _add_rules(schema: Schema, path: str, *, correlatable: bool) -> None:
    """Turn marks into ``x-kubernetes-validations``, in place, from here down.

    ``correlatable``: the API server can find this object's old self. It cannot below a list,
    unless the list is a map; there a rule about change is an error.
    """
    rules = [_rule(rule["rule"], rule["message"], rule["field_path"]) for rule in _marks(schema)]
    rules += _presence_rules(schema)
    if mark := schema.get(IMMUTABLE_KEY):
        rules.append(_rule(_same(schema, "self", "oldSelf"), _refusal(mark)))
    if not correlatable and any("oldSelf" in rule["rule"] for rule in rules):
        raise SchemaError(
            f"{path}: a rule about change needs the old item; mark the list with ListMap(key)"
        )
    if rules:
        schema["x-kubernetes-validations"] = rules
    keyed = schema.get("x-kubernetes-list-type") == "map"
    for below, child in children(schema, path):
        stays = keyed if child is schema.get("items") else True
        _add_rules(child, below, correlatable=correlatable and stays)


def _marks(schema: Schema) -> list[dict[str, Any]]:
    marks: list[dict[str, Any]] = schema.get(RULES_KEY, [])
    return marks


def _rule(rule: str, message: str, field: str | None = None) -> Schema:
    found = {"rule": rule, "message": message}
    return {**found, "fieldPath": f".{field}"} if field else found


def _refusal(mark: Mapping[str, Any]) -> str:
    return f"cannot change: {mark['why']}"


def _presence_rules(schema: Schema) -> list[Schema]:
    """Rules for immutable fields below that may be absent.

    A rule on a field is not asked when the field comes or goes, so the nearest object that is
    always there asks: neither may happen, or with ``once`` only the coming.
    """
    rules = []
    for path, mark in _optional_marks(schema):
        new, old = _presence("self", path), _presence("oldSelf", path)
        rule = f"!{old} || {new}" if mark["once"] else f"{new} == {old}"
        rules.append(_rule(rule, _refusal(mark), ".".join(path)))
    return rules


def _optional_marks(
    schema: Schema, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """(path, mark) of immutable fields that ``schema`` must guard: reached through objects only,
    and with every step to them optional."""
    for name, child in schema.get("properties", {}).items():
        if not _may_be_absent(schema, name):
            if path and IMMUTABLE_KEY in child:
                yield path, child[IMMUTABLE_KEY]
            continue
        if IMMUTABLE_KEY in child:
            yield (*path, name), child[IMMUTABLE_KEY]
        else:
            yield from _optional_marks(child, (*path, name))


def _may_be_absent(schema: Schema, name: str) -> bool:
    return name not in schema.get("required", []) and "default" not in schema["properties"][name]


def _presence(base: str, path: tuple[str, ...]) -> str:
    """CEL: every step of the path is there."""
    steps = [base, *(cel_name(step) for step in path)]
    tests = [f"has({'.'.join(steps[:end])})" for end in range(2, len(steps) + 1)]
    return tests[0] if len(tests) == 1 else f"({' && '.join(tests)})"


def _same(schema: Schema, new: str, old: str) -> str:
    """CEL: the two values are equal, quantities by what they mean (8Gi is 8192Mi)."""
    if schema.get("x-kubernetes-int-or-string"):
        return f"({new} == {old} || [[{new}, {old}].map(q, {_AMOUNT})].all(p, p[0] == p[1]))"
    if not _holds_quantity(schema):
        return f"{new} == {old}"
    return " && ".join(
        _same_property(schema, name, new, old) for name in schema.get("properties", {})
    )


def _same_property(schema: Schema, name: str, new: str, old: str) -> str:
    step = cel_name(name)
    same = _same(schema["properties"][name], f"{new}.{step}", f"{old}.{step}")
    if not _may_be_absent(schema, name):
        return same
    return f"(has({new}.{step}) ? has({old}.{step}) && {same} : !has({old}.{step}))"


def _holds_quantity(schema: Schema) -> bool:
    return any(
        child.get("x-kubernetes-int-or-string") or _holds_quantity(child)
        for child in schema.get("properties", {}).values()
    )


def cel_name(name: str) -> str:
    """A property's name in CEL, where the language's own words are escaped."""
    return f"__{name}__" if name in _CEL_RESERVED else name


# Shape --------------------------------------------------------------------------------------


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


def _rewrite(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """``schema`` with ``change`` applied to it and to everything below."""
    found = change(schema)
    if "properties" in found:
        properties = found["properties"].items()
        found = {**found, "properties": {name: _rewrite(sub, change) for name, sub in properties}}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found = {**found, key: _rewrite(found[key], change)}
    return found


def _strip(schema: Schema) -> Schema:
    def change(node: Schema) -> Schema:
        return {key: value for key, value in node.items() if key not in _DROPPED}

    return _rewrite(schema, change)


def _ordered(schema: Schema) -> Schema:
    """Keys in the order people read them; an unknown key is an error."""

    def change(node: Schema) -> Schema:
        if unknown := node.keys() - set(_ORDER):
            raise SchemaError(f"a CustomResourceDefinition has no {', '.join(sorted(unknown))}")
        return {key: node[key] for key in _ORDER if node.get(key) not in (None, "")}

    return _rewrite(schema, change)
