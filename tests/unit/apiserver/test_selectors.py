"""Selectors against a model, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.apiserver.errors import ApiError
from controller.apiserver.selectors import (
    field_text,
    label_key_error,
    label_value_error,
    parse_fields,
    parse_labels,
)

KEYS = st.sampled_from(["a", "b", "example.com/c", "in", "notin"])
VALUES = st.sampled_from(["", "1", "2", "x-y", "A.b_c"])
LABELS = st.dictionaries(KEYS, VALUES, max_size=4)


@st.composite
def requirements(draw: st.DrawFn) -> tuple[str, object]:
    """A requirement's text, and a function that says whether it holds."""
    key, values = draw(KEYS), draw(st.lists(VALUES, min_size=1, max_size=3, unique=True))
    listed = ",".join(values)
    return draw(
        st.sampled_from(
            [
                (f"{key}={values[0]}", lambda have: have.get(key) == values[0]),
                (f"{key}=={values[0]}", lambda have: have.get(key) == values[0]),
                (f"{key}!={values[0]}", lambda have: have.get(key) != values[0]),
                (f"{key} in ({listed})", lambda have: have.get(key) in values),
                (f"{key} notin ({listed})", lambda have: have.get(key) not in values),
                (f"{key}", lambda have: key in have),
                (f"!{key}", lambda have: key not in have),
            ]
        )
    )


@given(st.lists(requirements(), max_size=4), LABELS, st.sampled_from(["", " "]))
def test_a_selector_means_what_it_says(terms, labels, space) -> None:
    text = f",{space}".join(text for text, _ in terms)
    expected = all(holds(labels) for _, holds in terms)
    assert parse_labels(text).matches(labels) == expected


@given(st.text(alphabet="ab=!,() <>inot/.-1", max_size=24))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_labels(text).matches({"a": "b"})
    except ApiError as error:
        assert error.code == 400


@given(st.text(max_size=24))
def test_any_field_selector_is_parsed_or_refused(text: str) -> None:
    try:
        parse_fields(text, ("metadata.name",)).matches({"metadata": {"name": "x"}})
    except ApiError as error:
        assert error.code == 400


@pytest.mark.parametrize(
    ("selector", "value", "holds"),
    [
        ("n>5", "6", True),
        ("n>5", "5", False),
        ("n<5", "4", True),
        ("n<5", "x", False),
    ],
)
def test_comparisons(selector: str, value: str, holds: bool) -> None:
    assert parse_labels(selector).matches({"n": value}) is holds
    assert not parse_labels(selector).matches({})


@pytest.mark.parametrize(
    ("text", "name", "holds"),
    [
        ("metadata.name=x", "x", True),
        ("metadata.name==x", "y", False),
        ("metadata.name!=x", "y", True),
        (r"metadata.name=a\,b", "a,b", True),
        (r"metadata.name=a\=b", "a=b", True),
        ("metadata.name=", "", True),
    ],
)
def test_field_selectors(text: str, name: str, holds: bool) -> None:
    selector = parse_fields(text, ("metadata.name",))
    assert selector.matches({"metadata": {"name": name}}) is holds


def test_field_text_of_every_type() -> None:
    wire = {"a": {"s": "x", "t": True, "n": 5, "none": None, "list": [1]}}
    texts = [field_text(wire, f"a.{key}") for key in ("s", "t", "n", "none", "list", "no")]
    assert texts == ["x", "true", "5", "", "", ""]


@pytest.mark.parametrize("key", ["a", "a.b", "example.com/a", "A-1", "x" * 63, "a" * 253 + "/b"])
def test_good_label_keys(key: str) -> None:
    assert label_key_error(key) == ""


@pytest.mark.parametrize("key", ["", "/a", "a/", "-a", "a-", "x" * 64, "Example.com/a", "a/b/c"])
def test_bad_label_keys(key: str) -> None:
    assert label_key_error(key)


def test_label_values() -> None:
    assert label_value_error("") == ""
    assert label_value_error("x" * 64)
    assert label_value_error("a\n")
