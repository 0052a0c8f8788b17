"""From models to structural schemas: types, bounds, marks to CEL, and what cannot be said."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from crds import kinds
from crds.base import (
    BaseSpec,
    BaseStatus,
    Column,
    Immutable,
    KindInfo,
    ListMap,
    Model,
    Quantity,
    Resource,
    Rule,
    Timestamp,
)
from crds.nodes import SchemaError, children
from crds.refs import ObjectRef, Ref
from crds.schema import definition, finish, marked
from tests.support.cel_rules import broken

Name = Annotated[str, Field(max_length=20)]


class Inner(Model):
    """The inside."""

    fixed: Annotated[Name, Immutable("inner is fixed")]
    free: Name | None = None


class Item(Model):
    name: Name
    size: Annotated[Quantity, Immutable("an item keeps its size")]


class SampleSpec(BaseSpec):
    RULES = (Rule("self.count > 0 || has(self.late)", "count something", "count"),)
    count: Annotated[int, Field(ge=0, le=9)] = 1
    mode: Annotated[Literal["A", "B"], Immutable("modes differ")] = "A"
    only: Literal["X"] = "X"
    zone_ref: Annotated[ObjectRef, Ref("Zone", on_delete="cascade"), Immutable("it stays")]
    never: Annotated[Name, Immutable("never set")] | None = None
    late: Annotated[Name, Immutable("set once", once=True)] | None = None
    size: Annotated[Quantity, Immutable("no resize", once=True)] | None = None
    inner: Inner | None = None
    items: Annotated[list[Item], Field(max_length=4), ListMap("name")] = []
    tags: Annotated[list[Name], Field(max_length=3)] = []
    at: Timestamp | None = None


class SampleStatus(BaseStatus):
    seen: int = 0
    note: str = "a default that no status gets"


class Sample(Resource):
    """A sample."""

    INFO = KindInfo("samples", "sample", ("sm",), columns=(Column("Wide", ".spec.x", priority=1),))
    spec: SampleSpec
    status: SampleStatus = SampleStatus()


BASE = {"zoneRef": {"name": "z"}, "count": 1, "mode": "A"}


def schema_of(annotation: Any) -> dict[str, Any]:
    return finish(marked(annotation), "spec")


SPEC = schema_of(SampleSpec)


def test_definition_carries_names_scope_status_and_columns() -> None:
    found = definition(Sample)
    assert found["metadata"]["name"] == "samples.kumulus.dev"
    assert found["spec"]["names"] == {
        "kind": "Sample",
        "listKind": "SampleList",
        "plural": "samples",
        "singular": "sample",
        "shortNames": ["sm"],
        "categories": ["kumulus"],
    }
    version = found["spec"]["versions"][0]
    assert found["spec"]["scope"] == "Cluster"
    assert version["subresources"] == {"status": {}}
    assert version["additionalPrinterColumns"] == [
        {"name": "Wide", "type": "string", "jsonPath": ".spec.x", "priority": 1}
    ]
    root = version["schema"]["openAPIV3Schema"]
    assert root["required"] == ["spec"]
    assert root["properties"]["metadata"]["properties"]["name"]["maxLength"] == 63


def test_properties_in_full() -> None:
    reference = {
        "description": "Zone by name.",
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string",
                "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
                "minLength": 1,
                "maxLength": 253,
            }
        },
        "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": "cannot change: it stays"}
        ],
    }
    properties = SPEC["properties"]
    assert properties["count"] == {"type": "integer", "default": 1, "minimum": 0, "maximum": 9}
    assert properties["only"] == {"type": "string", "enum": ["X"], "default": "X"}
    assert properties["zoneRef"] == reference
    assert properties["at"] == {"type": "string", "format": "date-time"}
    assert properties["tags"] == {
        "type": "array",
        "maxItems": 3,
        "items": {"type": "string", "maxLength": 20},
        "x-kubernetes-list-type": "atomic",
    }
    assert properties["inner"]["description"] == "The inside."
    assert properties["items"]["x-kubernetes-list-map-keys"] == ["name"]
    assert "type" not in properties["size"]
    assert properties["size"]["x-kubernetes-int-or-string"] is True
    first = ["description", "deletionPolicy", "tags", "systemTags", "count", "mode"]
    assert list(properties)[:6] == first


def test_a_status_has_bounds_and_no_defaults() -> None:
    root = definition(Sample)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    status = root["properties"]["status"]["properties"]
    assert status["note"] == {"type": "string", "maxLength": 32768}
    assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert not [path for path, node in walk(root["properties"]["status"]) if "default" in node]


CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, ""),
    ({}, {"count": 5, "tags": ["t"]}, ""),
    ({}, {"mode": "B"}, "modes differ"),
    ({}, {"zoneRef": {"name": "y"}}, "it stays"),
    ({}, {"never": "a"}, "never set"),
    ({"never": "a"}, {}, "never set"),
    ({"never": "a"}, {"never": "b"}, "never set"),
    ({"never": "a"}, {"never": "a"}, ""),
    ({}, {"late": "a"}, ""),
    ({"late": "a"}, {}, "set once"),
    ({"late": "a"}, {"late": "b"}, "set once"),
    ({"size": "8Gi"}, {"size": 2**33}, ""),
    ({"size": "8Gi"}, {"size": "8192Mi"}, ""),
    ({"size": "8Gi"}, {"size": "9Gi"}, "no resize"),
    ({}, {"inner": {"fixed": "a"}}, "inner is fixed"),
    ({"inner": {"fixed": "a"}}, {}, "inner is fixed"),
    ({"inner": {"fixed": "a"}}, {"inner": {"fixed": "b"}}, "inner is fixed"),
    ({"inner": {"fixed": "a"}}, {"inner": {"fixed": "a", "free": "b"}}, ""),
    ({}, {"items": [{"name": "a", "size": 1}]}, ""),
    ({"items": [{"name": "a", "size": 1}]}, {}, ""),
    ({"items": [{"name": "a", "size": 1}]}, {"items": [{"name": "a", "size": "1"}]}, ""),
    (
        {"items": [{"name": "a", "size": 1}, {"name": "b", "size": 2}]},
        {"items": [{"name": "b", "size": 3}]},
        "an item keeps its size",
    ),
]


@pytest.mark.parametrize(("old", "new", "why"), CHANGES)
def test_what_may_change(old: dict[str, Any], new: dict[str, Any], why: str) -> None:
    found = set(broken(SPEC, BASE | new, BASE | old))
    assert found == ({f"cannot change: {why}"} if why else set())


def test_declared_rules_are_asked_on_creation_too() -> None:
    assert list(broken(SPEC, BASE | {"count": 0})) == ["count something"]
    assert SPEC["x-kubernetes-validations"][0]["fieldPath"] == ".count"


class Box(Model):
    size: Quantity | None = None
    label: Name | None = None


class BoxSpec(BaseSpec):
    box: Annotated[Box, Immutable("boxes stay")] = Box()


@given(
    st.dictionaries(st.sampled_from(["size", "label"]), st.sampled_from(["1Ki", "1024", "2Ki"])),
    st.dictionaries(st.sampled_from(["size", "label"]), st.sampled_from(["1Ki", "1024", "2Ki"])),
)
def test_an_immutable_object_is_compared_by_meaning(
    old: dict[str, str], new: dict[str, str]
) -> None:
    refused = list(broken(schema_of(BoxSpec), {"box": new}, {"box": old}))
    same = Box.model_validate(old) == Box.model_validate(new)
    assert bool(refused) != same


class Unbounded(BaseSpec):
    text: str


class UnboundedList(BaseSpec):
    names: list[Name] = []


class Either(BaseSpec):
    either: int | bool = 1


class AtomicItems(BaseSpec):
    items: Annotated[list[Item], Field(max_length=4)] = []


class UnboundedMap(BaseSpec):
    labels: dict[str, Name] = {}


@pytest.mark.parametrize(
    ("model", "path", "fix"),
    [
        (Unbounded, "spec.text", "maxLength"),
        (UnboundedList, "spec.names", "maxItems"),
        (UnboundedMap, "spec.labels", "maxProperties"),
        (Either, "spec.either", "anyOf"),
        (AtomicItems, "spec.items[].size", "ListMap"),
    ],
)
def test_what_cannot_be_said_is_an_error_that_names_the_field(
    model: type[BaseSpec], path: str, fix: str
) -> None:
    with pytest.raises(SchemaError, match=fix) as caught:
        schema_of(model)
    assert str(caught.value).startswith(path)


def test_words_of_cel_are_escaped() -> None:
    class Escaped(BaseSpec):
        namespace: Annotated[Name, Immutable("no")] | None = None

    schema = schema_of(Escaped)
    rule = "has(self.__namespace__) == has(oldSelf.__namespace__)"
    assert schema["x-kubernetes-validations"][0]["rule"] == rule


def walk(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    below = [entry for sub, child in children(schema, path) for entry in walk(child, sub)]
    return [(path, schema), *below]


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_kind_is_structural_and_bounded(kind: str) -> None:
    root = definition(kinds()[kind])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in walk(root["properties"]["spec"]) + walk(root["properties"]["status"]):
        assert not node.keys() & {"$ref", "anyOf", "oneOf", "allOf", "nullable", "title"}, path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if node.get("type") == "string" and not node.keys() & {"enum", "format"}:
            assert "maxLength" in node, path
    names = [column.name for column in kinds()[kind].INFO.columns]
    assert names[0] == "State"
    assert names[-1] == "Age"
