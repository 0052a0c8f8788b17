"""Server-side apply: laws that hold for any objects."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.apiserver.builtin_schemas import OBJECT_META
from controller.apiserver.catalog import Resource
from controller.apiserver.errors import ApiError
from controller.apiserver.fields import applied, managed, sets
from controller.apiserver.fields.managed import Manager
from controller.apiserver.fields.types import root
from controller.apiserver.fields.values import compare, owned
from controller.apiserver.schema.structural import compile_schema

NUMBER = {"type": "integer"}
SCHEMA = compile_schema(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "a": NUMBER,
                    "b": NUMBER,
                    "map": {"type": "object", "additionalProperties": NUMBER},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "plain": {"type": "array", "items": NUMBER},
                    "set": {"type": "array", "items": NUMBER, "x-kubernetes-list-type": "set"},
                    "list": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["k"],
                        "items": {
                            "type": "object",
                            "properties": {"k": {"type": "string"}, "v": NUMBER, "w": NUMBER},
                        },
                    },
                },
            }
        },
    }
)
RESOURCE = Resource("x.y", "v1", "Thing", "things", "thing", True, SCHEMA)
TYPE = root(SCHEMA, compile_schema(OBJECT_META))
VALUES = st.integers(0, 2)
# Collections are not empty: an empty one is owned by nobody (a list) or as a leaf (a map), upstream
# too, so the laws below do not hold for them.
ITEMS = st.lists(
    st.fixed_dictionaries({"k": st.sampled_from("xyz")}, optional={"v": VALUES, "w": VALUES}),
    min_size=1, max_size=3, unique_by=lambda item: item["k"],
)  # fmt: skip
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "a": VALUES,
        "b": VALUES,
        "map": st.dictionaries(st.sampled_from("pqr"), VALUES, min_size=1, max_size=2),
        "free": st.dictionaries(
            st.sampled_from("pqr"),
            VALUES | st.dictionaries(st.just("s"), VALUES, min_size=1),
            min_size=1,
            max_size=2,
        ),
        "plain": st.lists(VALUES, max_size=2),
        "set": st.lists(VALUES, min_size=1, max_size=3, unique=True),
        "list": ITEMS,
    },
)
FIRST = Manager("first", "Apply", "x.y/v1")
SECOND = Manager("second", "Apply", "x.y/v1")


def thing(spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "x.y/v1",
        "kind": "Thing",
        "metadata": {"name": "t"},
        **({"spec": spec} if spec else {}),
    }


def put(live: Any, spec: Any, who: Manager = FIRST, force: bool = True) -> dict[str, Any]:
    return applied.apply(RESOURCE, live, thing(spec), who, force)


def untimed(wire: dict[str, Any]) -> list[Any]:
    entries = wire["metadata"]["managedFields"]
    return sorted(({k: v for k, v in e.items() if k != "time"} for e in entries), key=repr)


def fields(wire: dict[str, Any], who: Manager) -> sets.Set:
    entries = wire["metadata"]["managedFields"]
    found = [e["fieldsV1"] for e in entries if managed.identity(e) == who.identity()]
    return found[0] if found else {}


@given(SPECS, SPECS)
def test_apply_is_idempotent(live: Any, config: Any) -> None:
    once = put(put(None, live, SECOND), config)
    assert put(once, config) == once


@given(SPECS, SPECS)
def test_the_object_has_what_was_applied(live: Any, config: Any) -> None:
    found = put(put(None, live, SECOND), config)
    assert sets.difference(owned(TYPE, thing(config)), owned(TYPE, found)) == {}
    again = applied.merge(TYPE, found, thing(config))
    assert compare(TYPE, again, found) == (None, None, None)


@given(SPECS, SPECS)
def test_disjoint_configurations_commute(one: Any, two: Any) -> None:
    left = {key: one[key] for key in one if key in ("a", "map", "plain", "list")}
    right = {key: two[key] for key in two if key in ("b", "free", "set")}
    forth = put(put(None, left, FIRST, False), right, SECOND, False)
    back = put(put(None, right, SECOND, False), left, FIRST, False)
    assert forth.get("spec") == back.get("spec")
    assert untimed(forth) == untimed(back)


@given(SPECS, SPECS, SPECS)
def test_a_field_goes_when_its_last_owner_drops_it(one: Any, two: Any, three: Any) -> None:
    before = put(put(None, one, FIRST), two, SECOND)
    after = put(before, three, FIRST)
    claims = sets.union(owned(TYPE, thing(three)), fields(before, SECOND))
    had = sets.difference(fields(before, FIRST), claims)
    present = owned(TYPE, after)
    for path in sets.paths(had):
        # An object that the schema does not name stays while anything below it is owned.
        below = [p for p in sets.paths(claims) if p.startswith(path) and p != path]
        assert below or path not in set(sets.paths(present))
    kept = sets.intersection(fields(before, SECOND), owned(TYPE, before))
    assert sets.difference(kept, sets.union(present, fields(before, SECOND))) == {}


@given(SPECS, SPECS)
def test_without_force_nothing_of_others_is_changed(live: Any, config: Any) -> None:
    before = put(None, live, SECOND)
    try:
        after = put(before, config, FIRST, False)
    except ApiError as error:
        assert (error.code, error.reason) == (409, "Conflict")
        assert error.details["causes"]
        return
    assert fields(after, SECOND) == fields(before, SECOND)
    modified = compare(TYPE, before.get("spec") or {}, after.get("spec") or {}).modified
    assert sets.intersection(fields(before, SECOND).get("f:spec", {}), modified or {}) == {}


@given(SPECS, SPECS)
def test_an_update_owns_exactly_what_it_changed(old: Any, new: Any) -> None:
    creator = Manager("creator", "Update", "x.y/v1")
    writer = Manager("writer", "Update", "x.y/v1")
    entries = managed.track(TYPE, {}, {"spec": old}, [], creator)
    found = managed.track(TYPE, {"spec": old}, {"spec": new}, entries, writer)
    added, modified, removed = compare(TYPE, {"spec": old}, {"spec": new})
    mine = [e["fieldsV1"] for e in found if e["manager"] == "writer"]
    changed = sets.union(added or {}, modified or {})
    assert (mine[0] if mine else {}) == changed
    for entry in found:
        if entry["manager"] == "creator":
            assert sets.intersection(entry["fieldsV1"], changed) == {}
            assert sets.intersection(entry["fieldsV1"], removed or {}) == {}
    if old == new:
        assert found is entries


NODES = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from(["f:a", "f:b", "."]), inner, max_size=3),
    max_leaves=6,
)


@given(NODES, NODES, NODES)
def test_sets_keep_the_laws_of_sets(one: Any, two: Any, three: Any) -> None:
    a, b, c = (sets.decode({"f:r": n}) for n in (one, two, three))
    as_set = lambda s: set(sets.paths(s))  # noqa: E731
    assert as_set(sets.union(a, b)) == as_set(a) | as_set(b)
    assert as_set(sets.difference(a, b)) == as_set(a) - as_set(b)
    assert as_set(sets.intersection(a, b)) == as_set(a) & as_set(b)
    assert as_set(sets.difference(a, sets.union(b, c))) == as_set(a) - as_set(b) - as_set(c)
    assert sets.difference(a, a) == {}


def test_updaters_are_bounded() -> None:
    entries: Any = []
    spec: dict[str, Any] = {}
    for number in range(14):
        new = {**spec, f"k{number}": 1}
        who = Manager(f"m{number:02}", "Update", "x.y/v1")
        old = {"spec": {"map": spec}}
        entries = managed.track(TYPE, old, {"spec": {"map": new}}, entries, who)
        spec = new
    assert len(entries) == 10
    everything: sets.Set = {}
    for entry in entries:
        everything = sets.union(everything, entry["fieldsV1"])
    assert {f".spec.map.k{n}" for n in range(14)} <= set(sets.paths(everything))
    assert entries[0]["manager"] == "ancient-changes"
