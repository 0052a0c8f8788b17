"""What a replica holds of kinds that replicas divide: enough for its own objects, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import Elsewhere
from controller.keys import Key
from controller.sharding.arcs import EVERYTHING, NOTHING, SPACE, Arcs
from controller.watch.base import Change
from controller.watch.store import ObjectStore
from tests.unit.core.fakes import MODELS

BY_NAME = {model.__name__: model for model in MODELS}
DIVIDED = frozenset({"Branch", "Leaf"})
NAMES = ("a", "b", "c", "d")
KEYS = [Key(kind, "default" if kind == "Leaf" else "", name)
        for kind in BY_NAME for name in NAMES]  # fmt: skip
TOWARDS = {"Leaf": ("branch", "trunk", "needs", "kept", "rests", "hung"), "Branch": ("trunk",)}
ARCS = st.lists(st.integers(0, 15), max_size=8).map(
    lambda parts: Arcs.of([(SPACE * n // 16, SPACE * (n + 1) // 16) for n in parts])
)
STEP = st.one_of(
    st.tuples(st.just("hold"), ARCS),
    st.tuples(st.just("gone"), st.sampled_from(KEYS)),
    st.tuples(
        st.just("put"),
        st.sampled_from(KEYS),
        st.dictionaries(
            st.sampled_from(TOWARDS["Leaf"]), st.sampled_from(NAMES), max_size=3
        ),
        st.lists(st.sampled_from(KEYS), max_size=2),
        st.booleans(),
    ),
)  # fmt: skip


def uid(key: Key) -> str:
    return f"{key.name * 7}-{key.kind}"


def body(
    key: Key, version: int, refs: dict[str, str], owners: list[Key], *, deleting: bool
) -> dict[str, Any]:
    wanted = {field: {"name": name} for field, name in refs.items()}
    meta: dict[str, Any] = {
        "name": key.name, "namespace": key.namespace, "uid": uid(key), "generation": 1,
        "resourceVersion": str(version), "finalizers": ["x"],
        "ownerReferences": [
            {"apiVersion": "v1", "kind": o.kind, "name": o.name, "uid": uid(o)} for o in owners
        ],
    }  # fmt: skip
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    allowed = TOWARDS.get(key.kind, ())
    spec = {field: ref for field, ref in wanted.items() if field in allowed}
    if key.kind == "Branch":
        spec.setdefault("trunk", {"name": "a"})
    return {"kind": key.kind, "metadata": meta, "spec": spec}


def looks(edge: Any) -> bool:
    return bool(edge[0].on_delete != "keep")


@given(st.lists(STEP, max_size=40))
def test_references_are_all_known_and_what_work_looks_at_can_be_had(steps: list[Any]) -> None:
    part, whole = ObjectStore(BY_NAME, divided=DIVIDED), ObjectStore(BY_NAME)
    last: dict[Key, dict[str, Any]] = {}
    arcs = EVERYTHING
    for version, (what, *rest) in enumerate(steps, 1):
        if what == "hold":
            arcs = rest[0]
            part.hold(arcs)
        elif what == "put":
            key, refs, owners, deleting = rest
            last[key] = body(key, version, refs, owners, deleting=deleting)
            for store in (part, whole):
                store._dead.clear()
                store.apply(Change.PRESENT, key.kind, last[key])
        elif rest[0] in last:
            raw = last.pop(rest[0])
            for store in (part, whole):
                store.apply(Change.GONE, rest[0].kind, raw)
        for key in KEYS:
            alike(part, whole, key)
        for key in last:
            if arcs.covers(uid(key)):
                for lacking in part.lacking(key):
                    assert part.apply(Change.PRESENT, lacking.kind, last[lacking])
                assert_workable(part, key)


def alike(part: ObjectStore, whole: ObjectStore, key: Key) -> None:
    """All but the objects themselves is known of every object."""
    assert part.targets(key) == whole.targets(key)
    assert dict(part.dependents(key)) == dict(whole.dependents(key))
    assert sorted(part.owned(key)) == sorted(whole.owned(key))
    a, b = part.entry(key), whole.entry(key)
    assert (a is None) == (b is None)
    if a is not None and b is not None:
        assert (a.uid, a.version, a.deleting, a.ready) == (b.uid, b.version, b.deleting, b.ready)
        assert part.with_uid(key.kind, a.uid) == whole.with_uid(key.kind, a.uid)


def assert_workable(store: ObjectStore, key: Key) -> None:
    """It is there, and so is all that it looks at and has made."""
    assert store.lacking(key) == []
    assert store.load(key) is not None
    for edge in store.targets(key):
        target = edge[1]
        if looks(edge) and store.entry(target) is not None:
            assert store.get(target.kind, target.name, target.namespace) is not None
    for made in store.owned(key):
        assert store.get(made.kind, made.name, made.namespace) is not None


@given(st.lists(st.sampled_from(KEYS), min_size=1, unique=True), ARCS)
def test_others_objects_are_not_held(keys: list[Key], arcs: Arcs) -> None:
    """Without references, neither when they come nor when they are lost."""
    early, late = (ObjectStore(BY_NAME, divided=DIVIDED) for _ in range(2))
    early.hold(arcs)
    for store in (early, late):
        for key in keys:
            raw = body(key, 1, {}, [], deleting=False)
            store.apply(Change.PRESENT, key.kind, raw)
    late.hold(arcs)
    for store in (early, late):
        for key in keys:
            entry = store.entry(key)
            mine = arcs.covers(uid(key)) or key.kind not in DIVIDED
            assert entry is not None and entry.held == mine
            assert (store.share(key) is not None) == mine == (store.load(key) is not None)
            assert (key in [k for k in keys for o in store.list(key.kind)
                            if o.name == key.name and k == key]) == mine  # fmt: skip


def test_who_asks_for_what_is_elsewhere_is_told_so() -> None:
    store = ObjectStore(BY_NAME, divided=DIVIDED)
    store.hold(NOTHING)
    key = Key("Leaf", "default", "a")
    store.apply(Change.PRESENT, "Leaf", body(key, 1, {}, [], deleting=False))
    with pytest.raises(Elsewhere, match="Leaf/default/a is being read"):
        store.get("Leaf", "a", "default")
    assert store.lacking(Key("Trunk", "", "any")) == [key], "before the next look at anything"
    assert store.apply(Change.PRESENT, "Leaf", body(key, 1, {}, [], deleting=False))
    assert store.get("Leaf", "a", "default") is not None and store.lacking(key) == []
    assert store.get("Leaf", "b", "default") is None


def test_what_an_object_only_names_is_not_held_for_it() -> None:
    store = ObjectStore(BY_NAME, divided=frozenset({"Trunk"}))
    store.hold(NOTHING)
    leaf, trunk = Key("Leaf", "default", "a"), Key("Trunk", "", "b")
    store.apply(Change.PRESENT, "Leaf", body(leaf, 1, {"kept": "b"}, [], deleting=False))
    store.apply(Change.PRESENT, "Trunk", body(trunk, 2, {}, [], deleting=False))
    assert store.lacking(leaf) == []
    entry = store.entry(trunk)
    assert entry is not None and not entry.held
