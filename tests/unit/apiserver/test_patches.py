"""Patches: laws that hold for any document."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.apiserver import patches, strategic
from controller.apiserver.errors import ApiError

KEYS = st.sampled_from(["a", "b", "c"])
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"])


def documents(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    )
    return st.dictionaries(KEYS, values, max_size=3)


FULL = documents(LEAVES.filter(lambda v: v is not None))


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The merge patch from ``old`` to ``new``."""
    found: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            found[key] = difference(before, value)
        elif key not in old or before != value or type(before) is not type(value):
            found[key] = value
    return found


@given(documents(LEAVES), documents(LEAVES))
def test_a_merge_patch_is_idempotent(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = patches.merge(target, patch)
    assert patches.merge(once, patch) == once


@given(FULL, FULL)
def test_a_difference_leads_from_old_to_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert patches.merge(old, difference(old, new)) == new


@given(FULL, documents(LEAVES))
def test_a_merge_patch_leaves_its_target(target: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr(target)
    patches.merge(target, patch)
    assert repr(target) == before


@given(st.recursive(LEAVES, lambda i: st.lists(i) | st.dictionaries(st.text(max_size=4), i)))
def test_any_json_patch_fits_or_is_refused(patch: Any) -> None:
    try:
        patches.apply_json_patch({"a": {"b": [1]}}, patches.parse_json_patch(patch))
    except ApiError as error:
        assert error.code in (400, 413, 422)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
                "path": st.sampled_from(["", "/a", "/a/b", "/a/b/-", "/a/b/0", "/x/y", "a"]),
            },
            optional={
                "from": st.sampled_from(["/a", "/a/b/0", "/q", 3]),
                "value": st.sampled_from([None, 1, {"c": []}]),
            },
        ),
        max_size=4,
    )
)
def test_any_operations_fit_or_are_refused(patch: list[dict[str, Any]]) -> None:
    try:
        found = patches.apply_json_patch({"a": {"b": [1]}}, patches.parse_json_patch(patch))
        assert isinstance(found, dict)
    except ApiError as error:
        assert error.code in (400, 422)


SCHEMA = {
    "properties": {
        "owners": {
            "type": "array",
            "x-kubernetes-patch-strategy": "merge",
            "x-kubernetes-patch-merge-key": "uid",
        },
        "finalizers": {"type": "array", "x-kubernetes-patch-strategy": "merge"},
        "plain": {"type": "array"},
    }
}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"owners": [{"uid": "1", "n": 2}]}, {"owners": [{"uid": "1", "n": 2}, {"uid": "2"}]}),
        ({"owners": [{"uid": "3"}]}, {"owners": [{"uid": "1"}, {"uid": "2"}, {"uid": "3"}]}),
        ({"owners": [{"uid": "1", "$patch": "delete"}]}, {"owners": [{"uid": "2"}]}),
        ({"owners": [{"$patch": "replace"}, {"uid": "9"}]}, {"owners": [{"uid": "9"}]}),
        ({"finalizers": ["b"]}, {"finalizers": ["a", "b"]}),
        ({"$deleteFromPrimitiveList/finalizers": ["a"]}, {"finalizers": []}),
        ({"plain": [2]}, {"plain": [2]}),
        ({"plain": None}, {"plain": "gone"}),
        ({"$setElementOrder/owners": [{"uid": "2"}]}, {}),
    ],
)
def test_strategic_merge(patch: dict[str, Any], expected: dict[str, Any]) -> None:
    target = {"owners": [{"uid": "1"}, {"uid": "2"}], "finalizers": ["a"], "plain": [1]}
    found = strategic.merge(target, patch, SCHEMA)
    for key, value in expected.items():
        assert found.get(key, "gone") == value
    assert target == {"owners": [{"uid": "1"}, {"uid": "2"}], "finalizers": ["a"], "plain": [1]}


def test_strategic_merge_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ApiError):
        strategic.merge({}, {"$patch": "shuffle"}, SCHEMA)
    with pytest.raises(ApiError):
        strategic.merge({}, {"owners": [{"n": 1}]}, SCHEMA)
