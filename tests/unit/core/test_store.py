"""The store: stale news is ignored, who refers to whom is always known, readers get copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.keys import Key
from controller.watch.base import Change
from controller.watch.changed import Changed
from controller.watch.entry import LAST_APPLIED
from controller.watch.store import ObjectStore, key_of
from controller.watch.wakes import CROWD, Waker
from crds.refs import references, targets
from tests.unit.core.fakes import MODELS, Leaf, LeafActuator, Trunk

BY_NAME = {model.__name__: model for model in MODELS}
PRESENT, GONE = Change.PRESENT, Change.GONE


def store() -> ObjectStore:
    return ObjectStore(BY_NAME)


def raw(
    kind: str,
    name: str,
    version: int,
    *,
    namespace: str = "",
    uid: str | None = None,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **meta: Any,
) -> dict[str, Any]:
    metadata = {
        "name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "generation": 1,
        "resourceVersion": str(version), **meta,
    }  # fmt: skip
    found = {"kind": kind, "metadata": metadata, "spec": spec or {}}
    return found | ({"status": status} if status is not None else {})


def ref(name: str) -> dict[str, str]:
    return {"name": name}


def test_older_and_equal_versions_are_old_news() -> None:
    s = store()
    assert s.apply(PRESENT, "Trunk", raw("Trunk", "t", 5, spec={"size": 5}), own=True)
    assert not s.apply(PRESENT, "Trunk", raw("Trunk", "t", 4, spec={"size": 4}))
    assert not s.apply(PRESENT, "Trunk", raw("Trunk", "t", 5, spec={"size": 0}))
    assert s.get("Trunk", "t").spec.size == 5
    assert s.apply(PRESENT, "Trunk", raw("Trunk", "t", 6, spec={"size": 6}))
    assert s.get("Trunk", "t").spec.size == 6


def test_late_news_does_not_bring_a_dead_object_back() -> None:
    s = store()
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 5))
    assert s.apply(GONE, "Trunk", raw("Trunk", "t", 9))
    assert not s.apply(PRESENT, "Trunk", raw("Trunk", "t", 8))
    assert s.get("Trunk", "t") is None
    assert s.apply(PRESENT, "Trunk", raw("Trunk", "t", 10, uid="another"))


def test_the_end_of_a_namesake_does_not_take_the_living_one() -> None:
    s = store()
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 10, uid="new"))
    assert not s.apply(GONE, "Trunk", raw("Trunk", "t", 11, uid="old"))
    assert s.get("Trunk", "t").uid == "new"
    assert not s.apply(PRESENT, "Trunk", raw("Trunk", "t", 9, uid="old"))
    assert s.get("Trunk", "t").uid == "new"


def test_the_answer_that_the_last_finalizer_is_off_is_the_end() -> None:
    s = store()
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 5, finalizers=["f"], deletionTimestamp="now"))
    assert s.entry(Key("Trunk", "", "t")) is not None
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 6, deletionTimestamp="now"), own=True)
    assert s.entry(Key("Trunk", "", "t")) is None


def test_who_loads_gets_a_copy_and_who_looks_shares_one() -> None:
    s, key = store(), Key("Leaf", "ns", "l")
    s.apply(PRESENT, "Leaf", raw("Leaf", "l", 1, namespace="ns", spec={"trunk": ref("t")}))
    own = s.load(key)
    own.spec.trunk.name = "mine"
    own.metadata.labels["a"] = "b"
    seen = s.get("Leaf", "l", "ns")
    assert seen.spec.trunk.name == "t" and seen.metadata.labels == {}
    assert s.get("Leaf", "l", "ns") is seen


def test_a_change_is_seen_by_who_looks_next() -> None:
    s = store()
    s.apply(PRESENT, "Leaf", raw("Leaf", "l", 1, namespace="ns", spec={"trunk": ref("t")}))
    before = s.get("Leaf", "l", "ns")
    s.apply(PRESENT, "Leaf", raw("Leaf", "l", 2, namespace="ns", spec={"trunk": ref("u")}))
    assert s.get("Leaf", "l", "ns").spec.trunk.name == "u"
    assert before.spec.trunk.name == "t"
    s.apply(GONE, "Leaf", raw("Leaf", "l", 3, namespace="ns", spec={"trunk": ref("u")}))
    assert s.get("Leaf", "l", "ns") is None


def test_what_nobody_reads_is_not_kept() -> None:
    s = store()
    noise = {LAST_APPLIED: "x" * 10_000, "mine": "kept"}
    s.apply(
        PRESENT,
        "Trunk",
        raw("Trunk", "t", 1, managedFields=[{"manager": "y" * 10_000}], annotations=noise),
    )
    entry = s.entry(Key("Trunk", "", "t"))
    assert entry is not None and len(entry.raw) < 500
    assert s.get("Trunk", "t").metadata.annotations == {"mine": "kept"}


def test_lists_by_namespace() -> None:
    s = store()
    for namespace, name in (("a", "1"), ("a", "2"), ("b", "3")):
        s.apply(PRESENT, "Leaf", raw("Leaf", name, 1, namespace=namespace))
    assert [leaf.name for leaf in s.list("Leaf", "a")] == ["1", "2"]
    assert len(list(s.list("Leaf"))) == 3
    s.apply(GONE, "Leaf", raw("Leaf", "1", 2, namespace="a"))
    assert [leaf.name for leaf in s.list("Leaf", "a")] == ["2"]


def test_an_object_that_cannot_be_parsed_is_kept_aside_with_the_reason() -> None:
    s = store()
    bad = {"size": "secret-value", "trunk": ref("t")}
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 1, spec=bad))
    key = Key("Trunk", "", "t")
    assert s.get("Trunk", "t") is None and list(s.list("Trunk")) == []
    entry = s.entry(key)
    assert entry is not None and entry.invalid is not None
    assert "spec.size" in entry.invalid and "secret-value" not in entry.invalid
    assert s.apply(PRESENT, "Trunk", raw("Trunk", "t", 2, spec={"size": 1}))
    assert s.get("Trunk", "t").spec.size == 1


def test_doomed_follows_what_is_deleted_together() -> None:
    s = store()
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 1))
    s.apply(PRESENT, "Branch", raw("Branch", "b", 2, spec={"trunk": ref("t")}))
    leaf = {"branch": ref("b"), "kept": ref("k")}
    s.apply(PRESENT, "Leaf", raw("Leaf", "l", 3, namespace="ns", spec=leaf))
    assert not s.doomed(s.get("Leaf", "l", "ns"))
    gone = {"finalizers": ["f"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    s.apply(PRESENT, "Trunk", raw("Trunk", "k", 4, **gone))
    assert not s.doomed(s.get("Leaf", "l", "ns")), "keep is no cascade"
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 5, **gone))
    assert s.doomed(s.get("Leaf", "l", "ns")) and s.doomed(s.get("Trunk", "t"))


def test_ready_means_ready_for_the_spec_as_it_is() -> None:
    s = store()
    condition = {"type": "Ready", "status": "True", "reason": "Ready", "observedGeneration": 1}
    key = Key("Trunk", "", "t")
    for version, generation, expected in ((1, 1, True), (2, 2, False)):
        found = raw("Trunk", "t", version, status={"conditions": [condition]})
        found["metadata"]["generation"] = generation
        s.apply(PRESENT, "Trunk", found)
        entry = s.entry(key)
        assert entry is not None and entry.ready is expected


# -- the index against the plainest way to find out

names = st.sampled_from(["x", "y", "z"])
refs = st.one_of(st.none(), names.map(ref))
leaf_specs = st.fixed_dictionaries(
    dict.fromkeys(("branch", "trunk", "needs", "kept", "rests", "hung"), refs)
)
news = st.one_of(
    st.tuples(st.just(PRESENT), st.just("Trunk"), names, st.just({})),
    st.tuples(st.just(PRESENT), st.just("Branch"), names, st.fixed_dictionaries({"trunk": refs})),
    st.tuples(st.just(PRESENT), st.just("Leaf"), names, leaf_specs),
    st.tuples(st.just(GONE), st.sampled_from(["Trunk", "Branch", "Leaf"]), names, st.just({})),
)


@given(st.lists(news, max_size=40))
def test_the_index_is_what_reading_everything_would_find(steps: list[Any]) -> None:
    s = store()
    living: dict[Key, dict[str, Any]] = {}
    for version, (change, kind, name, spec) in enumerate(steps, start=1):
        namespace = "ns" if kind == "Leaf" else ""
        key = Key(kind, namespace, name)
        uid = living[key]["metadata"]["uid"] if key in living else f"{key}-{version}"
        found = raw(
            kind, name, version, namespace=namespace, uid=uid,
            spec={k: v for k, v in spec.items() if v},
        )  # fmt: skip
        s.apply(change, kind, found)
        living.pop(key, None)
        if change is PRESENT:
            living[key] = found
    expected: dict[Key, dict[Key, list[Any]]] = {}
    for key, found in living.items():
        for reference in references(BY_NAME[key.kind]):
            for name in targets(found, reference):
                target = Key(reference.target, "", name)
                expected.setdefault(target, {}).setdefault(key, []).append(reference)
    for kind in BY_NAME:
        assert set(s.keys(kind)) == {key for key in living if key.kind == kind}
        for name in "xyz":
            target = Key(kind, "", name)
            got = {k: sorted(map(str, v)) for k, v in s.dependents(target).items()}
            wanted = {k: sorted(map(str, v)) for k, v in expected.get(target, {}).items()}
            assert got == wanted


# -- who is woken


class Woken:
    def __init__(self) -> None:
        self.now: list[Key] = []
        self.later: list[Key] = []

    def add(self, key: Key) -> None:
        self.now.append(key)

    def add_after(self, key: Key, delay: float) -> None:
        self.later.append(key)


@pytest.fixture
def watched() -> tuple[ObjectStore, Woken]:
    s, woken = store(), Woken()
    s.subscribe(Waker(s, woken, {"Leaf": LeafActuator()}))
    return s, woken


def test_an_own_status_wakes_others_and_not_oneself(watched: tuple[ObjectStore, Woken]) -> None:
    s, woken = watched
    s.apply(PRESENT, "Leaf", raw("Leaf", "l", 1, namespace="ns", spec={"trunk": ref("t")}))
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 2))
    woken.now.clear()
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 3, status={"state": "Enabled"}), own=True)
    assert woken.now == [Key("Leaf", "ns", "l")]
    woken.now.clear()
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 4, status={"state": "Enabled"}))
    assert woken.now == [Key("Trunk", "", "t")], "nothing changed that concerns the leaf"


def test_owners_are_woken(watched: tuple[ObjectStore, Woken]) -> None:
    s, woken = watched
    owners = [
        {"apiVersion": "kumulus.dev/v1alpha1", "kind": "Trunk", "name": "t", "uid": "u"},
        {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "v"},
    ]
    s.apply(PRESENT, "Leaf", raw("Leaf", "l", 1, namespace="ns", ownerReferences=owners))
    assert set(woken.now) == {Key("Leaf", "ns", "l"), Key("Trunk", "", "t")}


def test_parents_being_deleted_are_woken_and_crowds_are_collected(
    watched: tuple[ObjectStore, Woken],
) -> None:
    s, woken = watched
    gone = {"finalizers": ["f"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    s.apply(PRESENT, "Trunk", raw("Trunk", "t", 1, **gone))
    spec = {"trunk": ref("t")}
    for n in range(CROWD + 2):
        s.apply(PRESENT, "Leaf", raw("Leaf", f"l{n}", 2 + n, namespace="ns", spec=spec))
    woken.now.clear()
    woken.later.clear()
    for n in range(CROWD + 2):
        s.apply(GONE, "Leaf", raw("Leaf", f"l{n}", 50 + n, namespace="ns"))
    trunk = Key("Trunk", "", "t")
    assert woken.later.count(trunk) == 1
    assert woken.now.count(trunk) == CROWD + 1


def test_listeners_hear_what_was_and_what_is() -> None:
    s, heard = store(), list[Changed]()
    s.subscribe(heard.append)
    s.apply(PRESENT, "Leaf", raw("Leaf", "l", 1, namespace="ns", spec={"trunk": ref("a")}))
    s.apply(PRESENT, "Leaf", raw("Leaf", "l", 2, namespace="ns", spec={"trunk": ref("b")}))
    s.apply(GONE, "Leaf", raw("Leaf", "l", 3, namespace="ns"))
    assert [(bool(c.old), bool(c.new), c.moved) for c in heard] == [
        (False, True, True), (True, True, True), (True, False, True),
    ]  # fmt: skip
    assert {t.name for t in heard[1].targets} == {"a", "b"}


def test_keys_of_parsed_objects() -> None:
    assert key_of(Trunk(metadata={"name": "t"})) == Key("Trunk", "", "t")  # type: ignore[arg-type]
    leaf = Leaf(metadata={"name": "l", "namespace": "ns"})  # type: ignore[arg-type]
    assert key_of(leaf) == Key("Leaf", "ns", "l")
