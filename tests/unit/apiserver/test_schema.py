"""Structural schemas and CEL rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.apiserver.cel import texts
from controller.apiserver.errors import FieldError
from controller.apiserver.schema import cel, structural
from controller.apiserver.schema.structural import MISSING, compile_schema
from crds import kinds
from crds.schema import definition as crd_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "x", "maxLength": 3},
        "count": {"type": "integer", "minimum": 0},
        "ratio": {"type": "number"},
        "maybe": {"type": "string", "nullable": True},
        "nested": {
            "type": "object",
            "default": {},
            "properties": {"deep": {"type": "boolean", "default": True}},
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "items": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {
                "type": "object",
                "required": ["k"],
                "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 5}},
            },
        },
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
NODE = compile_schema(SCHEMA)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*SCHEMA["properties"], "k", "v", "odd"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def problems(value: Any, old: Any = MISSING) -> list[str]:
    found: list[FieldError] = []
    structural.validate(NODE, value, old, "", found)
    return [str(error) for error in found]


@given(JSON)
def test_any_value_is_judged_without_an_exception(value: Any) -> None:
    structural.prune(NODE, value, "", [])
    structural.default(NODE, value)
    problems(value)


@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "odd"]), JSON))
def test_pruning_and_defaulting_are_idempotent(value: dict[str, Any]) -> None:
    structural.prune(NODE, value, "", [])
    structural.default(NODE, value)
    once = copy.deepcopy(value)
    unknown: list[str] = []
    structural.prune(NODE, value, "", unknown)
    structural.default(NODE, value)
    assert structural.same(value, once)
    assert unknown == []


@given(JSON)
def test_what_did_not_change_is_not_judged_again(value: Any) -> None:
    assert problems(value, copy.deepcopy(value)) == []


def test_defaults_go_into_defaults() -> None:
    value: dict[str, Any] = {"name": None, "maybe": None}
    structural.default(NODE, value)
    assert value == {"name": "x", "maybe": None, "nested": {"deep": True}}


def test_defaults_are_not_shared() -> None:
    one: dict[str, Any] = {}
    two: dict[str, Any] = {}
    structural.default(NODE, one)
    structural.default(NODE, two)
    one["nested"]["deep"] = False
    assert two["nested"]["deep"] is True


def test_pruning_names_what_it_drops() -> None:
    value = {"odd": 1, "items": [{"k": "a", "z": 1}], "labels": {"any": "x"}, "free": {"y": {}}}
    unknown: list[str] = []
    structural.prune(NODE, value, "", unknown)
    assert sorted(unknown) == ["items[0].z", "odd"]
    assert value == {"items": [{"k": "a"}], "labels": {"any": "x"}, "free": {"y": {}}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"set": [1, 2, 1]}, "set[2]: Duplicate value: 1"),
        ({"labels": {"a": 1}}, 'labels.a: Invalid value: "integer": labels.a in body must'),
        ({"ratio": "x"}, 'ratio: Invalid value: "string": ratio in body must be of type number'),
        ({"count": None}, 'count: Invalid value: "null": count in body must be of type integer'),
        ({"items": [{"k": "a", "v": 6}]}, "items[0].v: Invalid value: 6: items[0].v in body"),
        ({"name": "abcd"}, "name: Too long: may not be more than 3 bytes"),
    ],
)  # fmt: skip
def test_errors_name_the_field(value: Any, text: str) -> None:
    assert problems(value)[0].startswith(text)


def test_items_of_a_list_map_are_compared_by_key() -> None:
    old = {"items": [{"k": "a", "v": 9}, {"k": "b", "v": 1}]}
    new = {"items": [{"k": "b", "v": 1}, {"k": "a", "v": 9}]}
    assert problems(new, old) == []
    assert len(problems({"items": [{"k": "a", "v": 8}]}, old)) == 1


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [("^a$", "a", True), ("^a$", "a\n", False), ("[$]", "$", True), (r"a\z", "a\n", False)],
)
def test_patterns_are_gos(pattern: str, text: str, fits: bool) -> None:
    assert (texts.compile_pattern(pattern)(text)) is fits


@pytest.mark.parametrize(("left", "right"), [(1, True), ([0], [False]), ({"a": 1}, {"a": True})])
def test_json_equality_knows_booleans(left: Any, right: Any) -> None:
    assert not structural.same(left, right)
    assert structural.same(left, copy.deepcopy(left))


# Rules


def broken(rule: str, value: Any, old: Any = MISSING, schema: Any = None, **more: Any) -> list[str]:
    base = schema or {**SCHEMA}
    compiled = compile_schema({**base, "x-kubernetes-validations": [{"rule": rule, **more}]})
    node = cel.compile_rules(compiled)
    assert node is not None
    found: list[FieldError] = []
    cel.judge(node, value, old, "spec", found)
    return [str(error) for error in found]


@pytest.mark.parametrize(
    "rule",
    [
        "has(self.name)",
        "!has(self.maybe)",
        "self.count > 1 && self.count <= 5",
        "self.ratio == 2.0",
        "self.name.matches('^[a-z]+$')",
        "self.name.startsWith('ab') && self.name.size() == 3",
        "self.items.all(i, i.v < 5)",
        "self.items.exists(i, i.k == 'a')",
        "self.items.exists_one(i, i.k == 'a')",
        "self.items.map(i, i.k).filter(k, k in ['a', 'z']).size() == 1",
        "type(self.count) == int",
        "self.labels.all(k, k != 'z') && 'x' in self.labels",
        "self.?maybe.orValue('none') == 'none'",
        "self.set.sum() == 6 && self.set.max() == 3 && self.set.isSorted()",
        "self.name.find('[b-z]+') == 'bc'",
        "self.name == 'oldSelf' || true",
        "timestamp('2024-01-01T00:00:00Z') < timestamp('2025-01-01T00:00:00Z')",
    ],
)
def test_rules_that_hold(rule: str) -> None:
    value = {
        "name": "abc", "count": 5, "ratio": 2, "labels": {"x": "y"}, "set": [1, 2, 3],
        "items": [{"k": "a", "v": 1}, {"k": "b", "v": 2}],
    }  # fmt: skip
    assert broken(rule, value) == []


def test_a_broken_rule_says_where_and_why() -> None:
    found = broken("self.count > 5", {"count": 1}, message="too few", fieldPath=".count")
    assert found == ["spec.count: Invalid value: too few"]
    plain = broken("self.count > 5", {"count": 1})
    assert plain == ["spec: Invalid value: failed rule: self.count > 5"]
    reason = broken("false", {}, reason="FieldValueForbidden", message="no")
    assert reason == ["spec: Forbidden: no"]
    spoken = broken(
        "self.count > 5", {"count": 1}, messageExpression="'only ' + string(self.count)"
    )
    assert spoken == ["spec: Invalid value: only 1"]


def test_a_rule_that_cannot_be_evaluated_refuses() -> None:
    found = broken("self.count > 5", {})
    assert found == [
        'spec: Invalid value: "object": no such key: count evaluating rule: self.count > 5'
    ]


def test_transition_rules_need_an_old_value() -> None:
    rule = "self.count >= oldSelf.count"
    assert broken(rule, {"count": 1}) == []
    assert broken(rule, {"count": 1}, {"count": 1}) == []
    assert len(broken(rule, {"count": 1}, {"count": 2})) == 1


def test_other_rules_ratchet() -> None:
    assert broken("self.count > 5", {"count": 1}, {"count": 1}) == []
    assert len(broken("self.count > 5", {"count": 1}, {"count": 2})) == 1


def test_names_that_cel_cannot_write_are_escaped() -> None:
    schema = {
        "type": "object",
        "properties": {"namespace": {"type": "string"}, "a-b": {"type": "integer"}},
    }
    rule = "self.__namespace__ == 'x' && self.a__dash__b == 1"
    assert broken(rule, {"namespace": "x", "a-b": 1}, schema=schema) == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("self.nope == 1", "undefined field 'nope'"),
        ("has(self.nested.nope)", "undefined field 'nope'"),
        ("self.count", ""),
        ("self.(", "Syntax error"),
        ("quantity('1') == 1", "no matching overload"),
        ("math.sqrt(4) == 2.0", "undeclared reference"),
        ("1 + 'a' == 2", "no matching overload"),
        ("size(1) == 1", "no matching overload"),
        ("'a'", "must evaluate to a bool"),
    ],
)
def test_rules_that_do_not_compile(rule: str, text: str) -> None:
    if not text:
        return
    node = compile_schema({**SCHEMA, "x-kubernetes-validations": [{"rule": rule}]})
    with pytest.raises(cel.BadRule, match=text):
        cel.compile_rules(node)


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_our_own_definitions_are_valid(kind: str) -> None:
    from controller.apiserver.schema import crd

    wire = crd_of(kinds()[kind])
    crd.fill_defaults(wire)
    assert [str(e) for e in crd.validate(wire, None)] == []
    assert [r.kind for r in crd.resources(wire)] == [kind]
