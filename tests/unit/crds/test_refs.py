"""Reference declarations: what they yield, and which ones cannot work."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from crds import kinds
from crds.base import BaseSpec, BaseStatus, KindInfo, Resource
from crds.refs import (
    DeclarationError,
    ObjectRef,
    Ref,
    Reference,
    references,
    targets,
    verify,
)
from crds.schema import object_schema
from tests.support.openapi import values

MODELS = kinds()
STRATEGIES = {
    (kind, part): values(object_schema(model)["properties"][part])
    for kind, model in MODELS.items()
    for part in ("spec", "status")
}
EVERY = [reference for model in MODELS.values() for reference in references(model)]


def step_into(schema: dict[str, Any], reference: Reference) -> dict[str, Any]:
    for step in reference.path:
        schema = schema["items"] if step == "*" else schema["properties"][step]
    return schema


@pytest.mark.parametrize("reference", EVERY, ids=lambda r: f"{r.source}.{'.'.join(r.path)}")
def test_a_reference_is_a_name_in_the_schema(reference: Reference) -> None:
    found = step_into(object_schema(MODELS[reference.source]), reference)
    assert found["required"] == ["name"]
    assert found["description"].startswith(f"{reference.target} by name.")
    assert not (reference.path[0] == "status" and reference.wait)


@pytest.mark.parametrize("kind", sorted(MODELS))
@given(st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_targets_are_the_names_that_an_object_holds(kind: str, data: st.DataObject) -> None:
    """Every ``…Ref`` in an object is found by exactly one declaration."""
    wire = {part: data.draw(STRATEGIES[kind, part]) for part in ("spec", "status")}
    found = [name for ref in references(MODELS[kind]) for name in targets(wire, ref)]
    assert sorted(found) == sorted(names_in(wire))


def names_in(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in names_in(item)]
    if not isinstance(value, dict):
        return []
    held = []
    for field, inner in value.items():
        refs = [inner] if field.endswith("Ref") else inner if field.endswith("Refs") else []
        held += [ref["name"] for ref in refs] or names_in(inner)
    return held


@pytest.mark.parametrize("wire", [{}, {"spec": None}, {"spec": {"zoneRef": "zone-1"}},
                                  {"spec": {"zoneRef": {"name": 5}}}])  # fmt: skip
def test_targets_of_a_malformed_object_are_none(wire: dict[str, Any]) -> None:
    assert [name for ref in references(MODELS["Cluster"]) for name in targets(wire, ref)] == []


def test_the_declarations_work() -> None:
    verify(MODELS)


def test_what_zstack_s_cascade_says() -> None:
    edges = {(ref.target, ref.source, ref.on_delete) for ref in EVERY}
    assert {
        ("Zone", "Cluster", "cascade"),
        ("Zone", "PrimaryStorage", "cascade"),
        ("Zone", "L2Network", "cascade"),
        ("Zone", "VirtualMachine", "cascade"),
        ("Cluster", "Host", "cascade"),
        ("L2Network", "L3Network", "cascade"),
        ("Host", "VirtualMachine", "stop"),
        ("Cluster", "VirtualMachine", "stop"),
        ("L3Network", "VirtualMachine", "detach"),
        ("PrimaryStorage", "VirtualMachine", "cascade"),
        ("PrimaryStorage", "Volume", "cascade"),
        ("BackupStorage", "Image", "cascade"),
        ("Image", "VirtualMachine", "keep"),
        ("InstanceOffering", "VirtualMachine", "keep"),
        ("DiskOffering", "Volume", "keep"),
        ("Zone", "BackupStorage", "keep"),
    } <= edges


def kind(name: str, ref: Ref, namespaced: bool = False) -> type[Resource]:
    """A kind with one reference."""
    spec = type(
        f"{name}Spec",
        (BaseSpec,),
        {"__annotations__": {"other_ref": Annotated[ObjectRef, ref]}, "other_ref": Field()},
    )
    info = KindInfo(f"{name.lower()}s", name.lower(), namespaced=namespaced)
    annotations = {"spec": spec, "status": BaseStatus}
    return type(name, (Resource,), {"__annotations__": annotations, "INFO": info})


@pytest.mark.parametrize(
    ("models", "why"),
    [
        ([kind("A", Ref("B", "cascade")), kind("B", Ref("A", "cascade"))], "circle: A → B → A"),
        ([kind("A", Ref("A", "cascade"))], "circle: A → A"),
        ([kind("A", Ref("Gone", "keep"))], "A.spec.otherRef refers to Gone, which is no kind"),
        (
            [kind("A", Ref("B", "keep")), kind("B", Ref("B", "keep"), namespaced=True)],
            "B, which is namespaced; A is not",
        ),
    ],
)
def test_what_cannot_work_is_named(models: list[type[Resource]], why: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        verify({model.__name__: model for model in models})
    message = str(caught.value)
    assert why in message or why.replace("A → B → A", "B → A → B") in message


def test_kinds_of_tests_are_no_kinds() -> None:
    assert not {"A", "B"} & kinds().keys()
