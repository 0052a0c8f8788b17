"""Status patches: they turn the old into the new, and hold nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.reconcile.conditions import conditions_after
from controller.reconcile.findings import INTERNAL, Finding
from controller.status.patch import compact, merge_patch
from crds.base import Condition
from tests.unit.core.fakes import merge

names = st.sampled_from("abcd")
scalars = st.one_of(st.booleans(), st.integers(-2, 2), st.sampled_from(["", "x", "y"]))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
statuses = st.dictionaries(names, values, max_size=4).map(compact)


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(statuses, statuses)
def test_a_patch_turns_the_old_into_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    patched = copy.deepcopy(old)
    merge(patched, merge_patch(old, new))
    assert same(compact(patched), new)


@given(statuses)
def test_equal_statuses_need_no_patch(status: dict[str, Any]) -> None:
    assert merge_patch(status, copy.deepcopy(status)) == {}


@given(statuses, statuses)
def test_a_patch_repeats_nothing_that_is_there(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = merge_patch(old, new)
    assert all(key not in old or not same(old[key], value) for key, value in patch.items())
    assert (patch == {}) == same(old, new)


def test_a_removed_field_becomes_null_and_inner_fields_stay() -> None:
    old = {"a": 1, "b": {"x": 1, "y": 2}, "c": [1]}
    assert merge_patch(old, {"b": {"x": 1, "y": 3}, "c": [2]}) == {
        "a": None, "b": {"y": 3}, "c": [2],
    }  # fmt: skip


def test_zeros_stay_and_empties_go() -> None:
    value = {"zero": 0, "no": False, "text": "", "list": [], "deep": {"none": None}}
    assert compact(value) == {"zero": 0, "no": False}


ends = st.sampled_from(
    ["ready", "pending", "waiting", "transient", "terminal", "internal", "invalid"]
)


@given(st.lists(st.tuples(ends, st.sampled_from(["A", "B"])), max_size=12))
def test_conditions_obey_kstatus(history: list[tuple[Any, str]]) -> None:
    """At most one of Ready, Reconciling and Stalled is true, and exactly one; a transition time
    is that of the last flip."""
    conditions: list[Condition] = [Condition(type="Other", status="True", reason="Theirs")]
    flips: dict[str, tuple[str, float]] = {}
    for now, (end, reason) in enumerate(history):
        conditions = conditions_after(conditions, Finding(end, reason), 7, float(now))
        ours = {c.type: c for c in conditions if c.type != "Other"}
        assert sum(c.status == "True" for c in ours.values()) == 1
        assert all(c.observed_generation == 7 and c.reason for c in ours.values())
        for kind, condition in ours.items():
            if flips.get(kind, ("", 0))[0] != condition.status:
                flips[kind] = (condition.status, now)
            assert condition.last_transition_time is not None
            assert condition.last_transition_time.timestamp() == flips[kind][1]
        assert [c.reason for c in conditions if c.type == "Other"] == ["Theirs"]


@pytest.mark.parametrize("end", ["terminal", "invalid"])
def test_stalled_means_that_nobody_is_working(end: Any) -> None:
    conditions = {c.type: c for c in conditions_after([], Finding(end, "Bad", "why"), 1, 0)}
    assert conditions["Stalled"].status == "True"
    assert conditions["Reconciling"].status == "False"
    assert conditions["Ready"].message == "why"


def test_an_endless_message_is_cut() -> None:
    conditions = conditions_after([], Finding("waiting", "Talk", "x" * 10**6), 1, 0)
    assert all(len(c.message) <= 4096 for c in conditions)
    assert "log" in INTERNAL.message
