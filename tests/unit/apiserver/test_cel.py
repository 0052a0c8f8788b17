"""CEL as the server runs it: what is rewritten means the same, and what costs too much ends."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.apiserver import yaml_bodies
from controller.apiserver.cel import quantities, semver, texts, urls
from controller.apiserver.cel.budget import OBJECT_LIMIT, Budget, Exceeded
from controller.apiserver.cel.environment import CompileError, Environment, EvaluationError
from controller.apiserver.cel.functions import T

ENVIRONMENT = Environment({"self": T.DYN})


def value_of(source: str, self: Any = None, budget: Budget | None = None) -> Any:
    program = ENVIRONMENT.compile(source)
    return program.eval(ENVIRONMENT.activation({"self": self}), budget or Budget())


NUMBERS = st.lists(st.integers(-5, 5), max_size=6)


@given(NUMBERS, NUMBERS)
def test_what_is_counted_answers_the_same(left: list[int], right: list[int]) -> None:
    both = {"a": left, "b": right}
    assert value_of("self.a.all(x, self.b.exists(y, x == y))", both) is all(
        x in right for x in left
    )
    assert value_of("self.a.map(x, x > 0, x * 2)", both) == [x * 2 for x in left if x > 0]
    assert value_of("self.a.filter(x, x in self.b).size()", both) == sum(x in right for x in left)
    assert value_of("sets.contains(self.a, self.b)", both) is (set(left) >= set(right))
    assert value_of("sets.intersects(self.a, self.b)", both) is bool(set(left) & set(right))
    assert value_of("self.a.distinct()", both) == list(dict.fromkeys(left))
    assert value_of("self.a.sum()", both) == sum(left)
    assert value_of("self.a.transformList(i, x, i + x)", both) == [
        i + x for i, x in enumerate(left)
    ]


# The library cuts strings where they have a NUL.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)


@given(TEXT, TEXT)
def test_what_is_weighed_answers_the_same(left: str, right: str) -> None:
    both = {"a": left, "b": right}
    assert value_of("self.a + self.b", both) == left + right
    assert value_of("[self.a, self.b].join('-')", both) == f"{left}-{right}"
    assert value_of("[self.a + '1', self.b].map(x, x + self.b)", both) == [
        f"{left}1{right}",
        right + right,
    ]
    assert value_of("1.5 + 2.0 == 3.5 && self.b + self.b == self.b + self.b", both) is True


def test_true_is_not_one() -> None:
    assert value_of("self.indexOf(1)", [True, 1]) == 1
    assert value_of("sets.equivalent(self, self)", [True, 1, {"a": [1]}]) is True
    assert value_of("self.distinct().size()", [True, 1, 1.0]) == 2


def test_costs_are_drawn_from_the_budget() -> None:
    spent = Budget()
    value_of("self.all(x, x > 0)", [1] * 100, spent)
    assert OBJECT_LIMIT > spent.left > OBJECT_LIMIT - 5_000
    before = spent.left
    value_of("self == 1", 1, spent)
    assert spent.left == before


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("self.all(x, self.all(y, x == y))", [1] * 200),
        ("self.all(x, self.sum() > 0)", [1] * 5_000),
        ("self.exists(x, self.sum() < 0) || true", [1] * 5_000),
        ("true || self.all(x, x) ? self.map(x, self.sum()).size() > 0 : true", [1] * 5_000),
        ("lists.range(1000000).sum() + lists.range(1000000).sum() > 0", None),
        ("self.map(x, (x + x).size()).size() > 0", ["y" * 10_000] * 2_000),
    ],
)
def test_what_costs_too_much_ends(source: str, value: Any) -> None:
    with pytest.raises(Exceeded, match="actual cost limit exceeded"):
        value_of(source, value)


def test_a_budget_is_for_all_rules_of_an_object() -> None:
    spent = Budget(limit=3_000)
    numbers = [1] * 100
    with pytest.raises(Exceeded):
        for _ in range(10):
            value_of("self.all(x, x > 0)", numbers, spent)
    assert spent.left <= 0


def test_time_is_limited_too() -> None:
    """Whatever is not counted: here, no time is left from the beginning."""
    with pytest.raises(Exceeded):
        value_of("self.all(x, x > 0)", [1], Budget(seconds=-1))


def test_optional_variables() -> None:
    environment = Environment({"old": T.DYN}, optional=("old",))
    program = environment.compile("old.hasValue() ? old.value() : 'none'")
    for given_value, expected in (([], "none"), (["x"], "x")):
        assert program.eval(environment.activation({"old": given_value}), Budget()) == expected


def test_kubernetes_types_are_no_maps_to_the_checker() -> None:
    for source in ("ip('::1').size()", "quantity('1').a", "url('/') == 'a'", "ip('::1') == 1"):
        with pytest.raises(CompileError, match=r"no matching overload|cannot be the operand"):
            ENVIRONMENT.compile(source)
    with pytest.raises(EvaluationError, match="no such overload"):
        value_of("dyn(ip('::1')) < 1")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_value_is_evaluated_or_refused(value: Any) -> None:
    for source in (
        "self.sum()", "self.min()", "self.indexOf(1)", "self.findAll('a')", "-self",
        "self.join('')", "url(self)", "quantity(self)", "format.uri().validate(self)",
    ):  # fmt: skip
        try:
            value_of(source, value)
        except EvaluationError as error:
            assert "Traceback" not in str(error)


# Patterns


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("^a$", "a\n", False), ("[$]", "$", True), (r"a\z", "a\n", False), (r"\pL", "ä", True),
        (r"^\Qa.b\E$", "a.b", True), ("(?i)A", "a", True), ("", "", True),
        ("^(a+)+$", "a" * 5_000 + "b", False), ("(x*)*y", "x" * 5_000, False),
    ],
)  # fmt: skip
def test_patterns_are_gos_and_end(pattern: str, text: str, fits: bool) -> None:
    assert texts.compile_pattern(pattern)(text) is fits


@pytest.mark.parametrize("pattern", ["(", "a**", "(?=a)", "[b-a]", "a{1,2000}", r"\1"])
def test_what_is_no_pattern_says_why(pattern: str) -> None:
    with pytest.raises(texts.BadPattern, match="error parsing regexp: "):
        texts.compile_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "without"),
    [
        ("(a)(?P<n>b)(?<m>c)", "(?:a)(?:b)(?:c)"), (r"\(a\)", r"\(a\)"), ("[(]a[)]", "[(]a[)]"),
        ("[]()]", "[]()]"), ("[^](]", "[^](]"), ("(?:a)(?i:b)", "(?:a)(?i:b)"),
        ("[[:alpha:](]", "[[:alpha:](]"), (r"[\](]", r"[\](]"),
    ],
)  # fmt: skip
def test_groups_capture_nothing(pattern: str, without: str) -> None:
    assert texts.without_groups(pattern) == without
    texts.compile_pattern(without)


# What libraries parse


@given(st.decimals("-1e6", "1e6", places=3), st.sampled_from(["", "k", "m", "Ki", "e3", "E2"]))
def test_quantities_are_exact(number: Decimal, suffix: str) -> None:
    factor = {"": 1, "k": 1000, "m": Decimal("0.001"), "Ki": 1024, "e3": 1000, "E2": 100}[suffix]
    assert quantities.parse(f"{number:f}{suffix}") == number * factor * 10**9


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("1e999999999", (2**63 - 1) * 10**9), ("1e-999999999", 1), ("0e999999999", 0),
        ("-1e-12", -1), (".5", 5 * 10**8), ("+1.", 10**9),
    ],
)  # fmt: skip
def test_quantities_have_an_end(text: str, nano: int) -> None:
    assert quantities.parse(text) == nano


@given(st.text(max_size=12))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (quantities.parse, semver.parse, urls.parse):
        with contextlib.suppress(ValueError):
            parse(text)


def test_aliases_do_not_multiply() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(yaml_bodies.NotYaml, match="excessive aliasing"):
        yaml_bodies.read("\n".join(lines).encode())
    with pytest.raises(yaml_bodies.NotYaml, match="excessive aliasing"):
        yaml_bodies.read(b"a: &a [*a]")
    assert yaml_bodies.read(b"a: &a [1]\nb: *a") == ({"a": [1], "b": [1]}, [])
