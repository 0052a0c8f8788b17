"""CEL: from the marks of ``crds.base`` to ``x-kubernetes-validations``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from crds.base import IMMUTABLE_KEY, RULES_KEY, SUFFIXES
from crds.nodes import Schema, SchemaError, children

_CEL_RESERVED = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function",
     "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
)  # fmt: skip
_UNITS = ", ".join(f"'{suffix}': {float(unit)!r}" for suffix, unit in SUFFIXES.items())
_AMOUNT = (
    f"type(q) == int ? double(q) : double(q.find('^[0-9.]+')) * {{{_UNITS}}}[q.find('[A-Za-z]*$')]"
)
"""CEL: the bytes of a quantity ``q``. Kubernetes' own quantity() is missing from other servers."""


def add_rules(schema: Schema, path: str, *, correlatable: bool) -> None:
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
        add_rules(child, below, correlatable=correlatable and stays)


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
