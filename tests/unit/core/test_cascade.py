"""Deletion: children before parents, nothing stuck, and just what the preview said."""

from __future__ import annotations

import random
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.cascade.graph import CascadeCycle, Graph, UnknownTarget, blockers, doomed_with
from controller.cascade.preview import preview
from controller.errors import Terminal, Transient
from controller.keys import Key
from crds import kinds
from crds.base import BaseSpec, BaseStatus, KindInfo, ObjectMeta, Resource
from crds.refs import ObjectRef, Ref
from tests.unit.core.fakes import (
    WORLD,
    Branch,
    BranchSpec,
    FakeApi,
    FakeSource,
    Leaf,
    LeafSpec,
    Trunk,
    in_virtual_time,
    running,
)


def ref(name: str) -> ObjectRef:
    return ObjectRef(name=name)


TRUNKS, BRANCHES, LEAVES = ("t0", "t1"), ("b0", "b1", "b2"), ("l0", "l1", "l2", "l3", "l4")
trunk_refs = st.one_of(st.none(), st.sampled_from(TRUNKS).map(ref))
branch_refs = st.one_of(st.none(), st.sampled_from(BRANCHES).map(ref))


@st.composite
def topologies(draw: st.DrawFn, *, blocks: bool = False) -> list[Resource]:
    """Trunks, branches on them, leaves on either or both; some only rest, hang or are kept."""
    objects: list[Resource] = [Trunk(metadata=ObjectMeta(name=name)) for name in TRUNKS]
    for name in draw(st.sets(st.sampled_from(BRANCHES))):
        trunk = ref(draw(st.sampled_from(TRUNKS)))
        spec = BranchSpec(trunk=trunk, other=draw(trunk_refs))
        objects.append(Branch(metadata=ObjectMeta(name=name), spec=spec))
    there = {o.name for o in objects}
    on_branch = branch_refs.map(lambda r: r if r and r.name in there else None)
    for name in draw(st.sets(st.sampled_from(LEAVES))):
        leaf = LeafSpec(
            branch=draw(on_branch), trunk=draw(trunk_refs), kept=draw(trunk_refs),
            rests=draw(trunk_refs), hung=draw(trunk_refs),
            needs=draw(on_branch) if blocks else None,
        )  # fmt: skip
        objects.append(Leaf(metadata=ObjectMeta(name=name, namespace="ns"), spec=leaf))
    return objects


@settings(max_examples=25)
@given(topologies(), st.integers(0, 2**32), st.booleans())
def test_a_deletion_takes_what_its_preview_shows_children_first(
    objects: list[Resource], seed: int, bad_days: bool
) -> None:
    rng = random.Random(seed)

    async def scenario() -> None:
        api = FakeApi()
        source = FakeSource(api, lag=lambda: rng.random() * 0.5)
        async with running(api, source) as bench:
            for obj in sorted(objects, key=lambda _: rng.random()):
                bench.api.put(obj)
            await bench.settle(20)
            before = bench.api.keys()
            target = Key("Trunk", "", "t0")
            shown = preview(bench.core.store, target)
            dependents = {key: set(bench.core.store.dependents(key)) for key in before}
            stopped = {n.key for n in shown.walk() if n.effect in ("stop", "detach")}
            holding = {
                key for key in stopped
                if any(r.path[0] == "status" for r in bench.core.store.dependents(target)[key])
            }  # fmt: skip
            if bad_days:
                for key in before:
                    WORLD.troubles[key] = [Transient("a bad day"), Terminal("a very bad day")]
                WORLD.deletions_take = 2.0
                bench.api.faults = [Transient("the API, too")] * rng.randrange(4)
            bench.api.remove(target)
            await bench.settle(400)
            left = bench.api.keys()
            gone = [key for key in WORLD.deleted if key not in left]
            assert set(gone) == set(shown.deleted()), "what the preview shows, and no more"
            assert left == before - set(shown.deleted())
            assert len(gone) == len(set(gone)) or bad_days
            last = {key: n for n, key in enumerate(WORLD.deleted)}
            for parent in gone:
                for child in dependents[parent] & set(gone):
                    if child in doomed_with_of(shown, parent):
                        assert last[child] < last[parent], f"{child} outlived {parent}"
            assert holding <= set(WORLD.let_go), "who held on has let go"

    in_virtual_time(scenario)


def doomed_with_of(shown: Any, parent: Key) -> set[Key]:
    """Keys below ``parent`` in a preview."""
    node = next(n for n in shown.walk() if n.key == parent)
    return set(node.deleted()) - {parent}


@settings(max_examples=40)
@given(topologies(blocks=True))
def test_previews_list_each_object_once_and_children_first(objects: list[Resource]) -> None:
    async def scenario() -> None:
        async with running() as bench:
            for obj in objects:
                bench.api.put(obj)
            await bench.settle(10)
            view = bench.core.store
            for key in sorted(bench.api.keys()):
                shown = preview(view, key)
                deleted = shown.deleted()
                assert len(deleted) == len(set(deleted)) and deleted[-1] == key
                assert set(deleted) == set(doomed_with(view, key))
                place = {k: n for n, k in enumerate(deleted)}
                for child in deleted:
                    for reference, target in view.targets(child):
                        if reference.on_delete == "cascade" and target in place:
                            assert place[child] < place[target]
                survivors = {n.key for n in shown.walk() if n.effect != "delete"}
                assert not survivors & set(deleted)
                assert {user for user, _ in blockers(view, key)} == {
                    n.key for n in shown.walk() if n.effect == "block"
                }

    in_virtual_time(scenario)


@pytest.mark.looptime
async def test_a_user_blocks_before_anything_is_deleted_and_frees_by_leaving() -> None:
    async with running() as bench:
        bench.api.put(Trunk(metadata=ObjectMeta(name="t")))
        bench.api.put(Branch(metadata=ObjectMeta(name="b"), spec=BranchSpec(trunk=ref("t"))))
        bench.api.put(Branch(metadata=ObjectMeta(name="c"), spec=BranchSpec(trunk=ref("t"))))
        bench.api.put(
            Leaf(metadata=ObjectMeta(name="l", namespace="ns"), spec=LeafSpec(needs=ref("b")))
        )
        await bench.settle()
        trunk = Key("Trunk", "", "t")
        bench.api.remove(trunk)
        await bench.settle(50)
        blocked = bench.condition(trunk)
        assert blocked["reason"] == "DeletionBlocked"
        assert "Leaf/ns/l needs Branch/b" in blocked["message"]
        assert bench.api.requests("delete", "branches") == [], "all or nothing"
        bench.api.edit(Key("Leaf", "ns", "l"), lambda o: o["spec"].pop("needs"))
        await bench.settle(50)
        assert bench.api.keys() == {Key("Leaf", "ns", "l")}


@pytest.mark.looptime
async def test_a_parent_says_for_whom_it_waits() -> None:
    async with running() as bench:
        WORLD.deletions_take = 10.0
        bench.api.put(Trunk(metadata=ObjectMeta(name="t")))
        for n in range(5):
            meta = ObjectMeta(name=f"l{n}", namespace="ns")
            bench.api.put(Leaf(metadata=meta, spec=LeafSpec(trunk=ref("t"))))
        await bench.settle()
        bench.api.remove(Key("Trunk", "", "t"))
        await bench.settle(5)
        waiting = bench.condition(Key("Trunk", "", "t"))
        assert waiting["reason"] == "WaitingForChildren"
        assert "5 Leafs (ns/l0, ns/l1, ns/l2, …)" in waiting["message"]
        await bench.settle(7)
        assert bench.api.keys() == {Key("Trunk", "", "t")}, "siblings go in parallel"
        await bench.settle(10)
        assert bench.api.keys() == set()


@pytest.mark.looptime
async def test_deleting_a_crowd_takes_few_writes() -> None:
    async with running() as bench:
        bench.api.put(Trunk(metadata=ObjectMeta(name="t")))
        for n in range(200):
            meta = ObjectMeta(name=f"l{n}", namespace="ns")
            bench.api.put(Leaf(metadata=meta, spec=LeafSpec(trunk=ref("t"))))
        await bench.settle(30)
        bench.api.log.clear()
        bench.api.remove(Key("Trunk", "", "t"))
        await bench.settle(60)
        assert bench.api.keys() == set()
        assert len(bench.api.requests("patch status", "trunks")) < 30
        assert len(bench.api.requests("delete", "leaves")) == 200


@pytest.mark.looptime
async def test_a_child_that_comes_late_goes_too() -> None:
    async with running() as bench:
        WORLD.deletions_take = 5.0
        bench.api.put(Trunk(metadata=ObjectMeta(name="t")))
        spec = BranchSpec(trunk=ref("t"))
        bench.api.put(Branch(metadata=ObjectMeta(name="b"), spec=spec))
        await bench.settle()
        bench.api.remove(Key("Trunk", "", "t"))
        await bench.settle(2)
        bench.api.put(Branch(metadata=ObjectMeta(name="late"), spec=spec))
        await bench.settle(30)
        assert bench.api.keys() == set()


@pytest.mark.looptime
async def test_a_child_that_cannot_be_parsed_is_deleted_with_its_parent() -> None:
    async with running() as bench:
        bench.api.put(Trunk(metadata=ObjectMeta(name="t")))
        meta = ObjectMeta(name="l", namespace="ns")
        await bench.settle()
        bench.api.put(
            Leaf(
                metadata=meta, spec=LeafSpec.model_construct(trunk=ref("t"), description="x" * 3000)
            )
        )
        await bench.settle()
        assert bench.condition(Key("Leaf", "ns", "l"))["reason"] == "InvalidSpec"
        bench.api.remove(Key("Trunk", "", "t"))
        await bench.settle(30)
        assert bench.api.keys() == set(), "it never got a finalizer"


@pytest.mark.looptime
async def test_others_finalizers_are_left_alone() -> None:
    async with running() as bench:
        meta = ObjectMeta(name="t", finalizers=["example.com/theirs"])
        bench.api.put(Trunk(metadata=meta))
        await bench.settle()
        key = Key("Trunk", "", "t")
        bench.api.remove(key)
        await bench.settle(30)
        obj = bench.api.find(key)
        assert obj is not None and obj["metadata"]["finalizers"] == ["example.com/theirs"]
        assert WORLD.deleted == [key], "cleaned up once, and not again"


def test_our_kinds_have_no_circle() -> None:
    graph = Graph(kinds().values())
    assert "Cluster" in graph.children("Zone")
    assert graph.children("InstanceOffering") == ()


def toy(name: str, **refs: Ref) -> type[Resource]:
    """A kind called ``name`` with these references in its spec."""
    fields = {field: Annotated[ObjectRef, found] for field, found in refs.items()}
    spec = type(f"{name}Spec", (BaseSpec,), {"__annotations__": fields, "__module__": __name__})
    body = {
        "INFO": KindInfo(plural=name.lower(), singular=name.lower()),
        "__annotations__": {"spec": spec, "status": BaseStatus},
        "__module__": __name__,
    }
    return type(name, (Resource,), body)


def test_a_circle_is_shown() -> None:
    models = [
        toy("Hen", egg=Ref("Egg", on_delete="cascade")),
        toy("Egg", chick=Ref("Chick", on_delete="cascade")),
        toy("Chick", hen=Ref("Hen", on_delete="cascade")),
    ]
    with pytest.raises(CascadeCycle, match=r"Chick → Egg → Hen → Chick"):
        Graph(models)
    Graph([toy("Hen", egg=Ref("Egg", on_delete="cascade")), toy("Egg", h=Ref("Hen", "keep"))])


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(UnknownTarget, match=r"Cart\.spec\.horse refers to Horse"):
        Graph([toy("Cart", horse=Ref("Horse", on_delete="keep"))])
