"""kubernetes.io/docs: versions in CustomResourceDefinitions (conversion strategy None)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.client import TABLE, Cluster
from tests.conformance.conftest import DEFINITIONS, eventually
from tests.conformance.pages import page

GROUP = "versions.kumulus.dev"
PLURAL = "boats"
CRD = f"{DEFINITIONS}/{PLURAL}.{GROUP}"


def version(name: str, fields: dict[str, Any], *, storage: bool = False, **more: Any) -> Any:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": fields}},
    }
    return {
        "name": name, "served": True, "storage": storage,
        "schema": {"openAPIV3Schema": schema}, **more,
    }  # fmt: skip


TEXT = {"type": "string"}
NEW = version(
    "v1",
    {"color": TEXT, "crew": {"type": "integer"}, "sail": {"type": "boolean"}},
    storage=True,
    selectableFields=[{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.crew"}],
    additionalPrinterColumns=[{"name": "Color", "type": "string", "jsonPath": ".spec.color"}],
)
OLD = version(
    "v1beta1",
    {"color": TEXT, "flag": {"type": "string", "default": "white"}},
    deprecated=True,
    additionalPrinterColumns=[{"name": "Flag", "type": "string", "jsonPath": ".spec.flag"}],
)


def definition(*versions: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": PLURAL, "kind": "Boat"},
            "versions": list(versions),
        },
    }


class Boats:
    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def path(self, version: str, name: str = "") -> str:
        path = f"/apis/{GROUP}/{version}/namespaces/{self.namespace}/{PLURAL}"
        return f"{path}/{name}" if name else path

    def create(self, version: str, name: str, **spec: Any) -> dict[str, Any]:
        wire = {
            "apiVersion": f"{GROUP}/{version}", "kind": "Boat",
            "metadata": {"name": name}, "spec": spec,
        }  # fmt: skip
        return self.cluster.post(self.path(version), wire).ok()


@pytest.fixture
def boats(cluster: Cluster, namespace: str) -> Iterator[Boats]:
    cluster.post(DEFINITIONS, definition(NEW, OLD)).ok()
    found = Boats(cluster, namespace)
    for name in ("v1", "v1beta1"):
        eventually(lambda name=name: cluster.get(found.path(name)).code == 200)
    yield found
    cluster.delete(CRD).ok()
    eventually(lambda: cluster.get(CRD).code == 404)


@page(pages.VERSIONS, "writing-reading-and-updating-versioned-customresourcedefinition-objects")
def test_objects_are_served_in_the_version_asked_for(boats: Boats) -> None:
    boats.create("v1", "a", color="red")
    boats.create("v1beta1", "b", color="blue")
    for name in ("v1", "v1beta1"):
        found = boats.cluster.get(boats.path(name)).ok()
        assert found["apiVersion"] == f"{GROUP}/{name}"
        assert {item["apiVersion"] for item in found["items"]} == {f"{GROUP}/{name}"}
        events = boats.cluster.watch(boats.path(name))
        seen = {e["object"]["apiVersion"] for e in events}
        assert seen == {f"{GROUP}/{name}"}
    one, other = (boats.cluster.get(boats.path(v, "a")).ok() for v in ("v1", "v1beta1"))
    assert one["metadata"]["uid"] == other["metadata"]["uid"]
    assert one["metadata"]["resourceVersion"] == other["metadata"]["resourceVersion"]


@page(pages.VERSIONS, "specify-multiple-versions")
def test_what_the_stored_version_does_not_know_is_not_kept(boats: Boats) -> None:
    made = boats.create("v1beta1", "b", color="blue", flag="black")
    assert made["spec"] == {"color": "blue"}
    for name in ("v1", "v1beta1"):
        assert boats.cluster.get(boats.path(name, "b")).ok()["spec"] == {"color": "blue"}


@page(pages.VERSIONS, "specify-multiple-versions")
def test_what_the_version_asked_for_does_not_know_is_not_shown(boats: Boats) -> None:
    boats.create("v1", "a", color="red", crew=3)
    found = boats.cluster.get(boats.path("v1beta1", "a")).ok()
    assert found["spec"] == {"color": "red"}
    boats.cluster.merge(boats.path("v1beta1", "a"), {"spec": {"color": "blue"}}).ok()
    assert boats.cluster.get(boats.path("v1", "a")).ok()["spec"]["color"] == "blue"


@page(pages.API, "standard-api-terminology")
def test_a_body_must_be_of_the_version_of_the_path(boats: Boats) -> None:
    wire = boats.create("v1", "a", color="red")
    reply = boats.cluster.put(boats.path("v1beta1", "a"), wire)
    assert (reply.code, reply.json["reason"]) == (400, "BadRequest")
    assert "does not match the expected API version" in reply.message


@page(pages.VERSIONS, "version-deprecation")
def test_a_deprecated_version_warns(boats: Boats) -> None:
    boats.create("v1", "a")
    text = f'299 - "{GROUP}/v1beta1 Boat is deprecated; use {GROUP}/v1 Boat"'
    assert boats.cluster.get(boats.path("v1beta1")).warnings == [text]
    assert boats.cluster.get(boats.path("v1beta1", "none")).warnings == [text]
    assert boats.cluster.get(boats.path("v1")).warnings == []


@page(pages.DEFINITIONS, "additional-printer-columns")
def test_each_version_has_its_printer_columns(boats: Boats) -> None:
    for name, columns in (("v1", ["Name", "Color"]), ("v1beta1", ["Name", "Flag"])):
        found = boats.cluster("GET", boats.path(name), accept=TABLE).ok()
        assert [column["name"] for column in found["columnDefinitions"]] == columns


@page(pages.DEFINITIONS, "crd-selectable-fields")
def test_each_version_has_its_selectable_fields(boats: Boats) -> None:
    boats.create("v1", "a", color="red", crew=3)
    boats.create("v1", "b", color="blue", crew=4)

    def names(**query: str) -> list[str]:
        items = boats.cluster.get(boats.path("v1"), **query).ok()["items"]
        return [item["metadata"]["name"] for item in items]

    assert names(fieldSelector="spec.color=red") == ["a"]
    assert names(fieldSelector="spec.color!=red,spec.crew=4") == ["b"]
    reply = boats.cluster.get(boats.path("v1beta1"), fieldSelector="spec.color=red")
    assert (reply.code, reply.message) == (400, "field label not supported: spec.color")


@page(pages.DEFINITIONS, "crd-selectable-fields")
def test_a_watch_of_a_selectable_field(boats: Boats) -> None:
    start = boats.create("v1", "a", color="red")["metadata"]["resourceVersion"]
    for color in ("blue", "red"):
        boats.cluster.merge(boats.path("v1", "a"), {"spec": {"color": color}}).ok()
    query = {"resourceVersion": start, "fieldSelector": "spec.color=blue"}
    events = boats.cluster.watch(boats.path("v1"), **query)
    assert [e["type"] for e in events if e["type"] != "BOOKMARK"] == ["ADDED", "DELETED"]


@page(pages.VERSIONS, "upgrade-existing-objects-to-a-new-stored-version")
def test_the_storage_version_moves(boats: Boats) -> None:
    boats.create("v1", "a", color="red", crew=3)
    crd = boats.cluster.get(CRD).ok()
    crd["spec"]["versions"] = [{**NEW, "storage": False}, {**OLD, "storage": True}]
    moved = boats.cluster.put(CRD, crd).ok()
    assert moved["status"]["storedVersions"] == ["v1", "v1beta1"]
    assert boats.cluster.get(boats.path("v1", "a")).ok()["spec"]["color"] == "red"


@page(pages.VERSIONS, "previous-storage-versions")
def test_a_stored_version_may_not_go(boats: Boats) -> None:
    crd = boats.cluster.get(CRD).ok()
    crd["spec"]["versions"] = [{**OLD, "storage": True}]
    reply = boats.cluster.put(CRD, crd)
    assert reply.code == 422
    assert "status.storedVersions[0]" in reply.fields


@page(pages.VERSIONS, "version-removal")
def test_a_version_that_is_not_served_is_not_found(boats: Boats) -> None:
    boats.create("v1", "a")
    crd = boats.cluster.get(CRD).ok()
    crd["spec"]["versions"][1]["served"] = False
    boats.cluster.put(CRD, crd).ok()
    eventually(lambda: boats.cluster.get(boats.path("v1beta1")).code == 404)
    assert boats.cluster.get(boats.path("v1", "a")).code == 200


def refused(cluster: Cluster, *versions: Any) -> list[str]:
    wire = definition(*versions)
    wire["metadata"]["name"] = f"rafts.{GROUP}"
    wire["spec"]["names"] = {"plural": "rafts", "kind": "Raft"}
    reply = cluster.post(DEFINITIONS, wire)
    assert reply.code == 422, reply.text
    return reply.fields


@page(pages.DEFINITIONS, "crd-selectable-fields")
@pytest.mark.parametrize(
    "path",
    [".spec.no", ".metadata.name", ".kind", "spec.color", ".spec", ".spec.list[0]", ""],
)
def test_fields_that_cannot_be_selected(cluster: Cluster, path: str) -> None:
    wire = copy.deepcopy(NEW)
    wire["selectableFields"] = [{"jsonPath": path}]
    assert refused(cluster, wire) == ["spec.selectableFields[0].jsonPath"]


@page(pages.DEFINITIONS, "crd-selectable-fields")
def test_fields_are_selected_once(cluster: Cluster) -> None:
    wire = {**NEW, "selectableFields": [{"jsonPath": ".spec.color"}] * 2}
    assert refused(cluster, wire) == ["spec.selectableFields[1].jsonPath"]


@page(pages.VERSIONS, "version-deprecation")
@pytest.mark.parametrize(
    "more",
    [
        {"deprecationWarning": "old"},
        {"deprecated": True, "deprecationWarning": ""},
        {"deprecated": True, "deprecationWarning": "x" * 257},
        {"deprecated": True, "deprecationWarning": "two\nlines"},
    ],
)
def test_warnings_that_cannot_be_sent(cluster: Cluster, more: dict[str, Any]) -> None:
    assert refused(cluster, {**NEW, **more}) == ["spec.versions[0].deprecationWarning"]


@page(pages.VERSIONS, "specify-multiple-versions")
def test_one_version_is_stored(cluster: Cluster) -> None:
    assert "spec.versions" in refused(cluster, NEW, {**NEW, "name": "v2"})
    assert "spec.versions" in refused(cluster, {**NEW, "storage": False})
    assert "spec.versions" in refused(cluster, NEW, {**NEW, "storage": False})


@page(pages.DEFINITIONS, "additional-printer-columns")
def test_columns_that_cannot_be_shown(cluster: Cluster) -> None:
    columns = [
        {"name": "", "type": "string", "jsonPath": ".a"},
        {"name": "a", "type": "text", "jsonPath": ".a"},
        {"name": "b", "type": "string", "jsonPath": "a"},
        {"name": "c", "type": "string", "jsonPath": ".a", "format": "none"},
    ]
    fields = refused(cluster, {**NEW, "additionalPrinterColumns": columns})
    where = "spec.additionalPrinterColumns"
    expected = [
        f"{where}[{at}].{key}" for at, key in enumerate(("name", "type", "JSONPath", "format"))
    ]
    assert fields == expected
