"""kubernetes.io/docs: API concepts (lists, paging, resource versions, watches, tables)."""

from __future__ import annotations

import pytest

from tests.conformance import pages
from tests.conformance.client import TABLE
from tests.conformance.conftest import Widgets
from tests.conformance.pages import page

PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@page(pages.LABELS, "label-selectors")
@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("a=1", ["x", "y"]),
        ("a==1,b=2", ["x"]),
        ("a!=1", ["z"]),
        ("b", ["x", "z"]),
        ("!b", ["y"]),
        ("a in (1,2),b notin (2)", ["y", "z"]),
        ("a notin (1)", ["z"]),
        ("", ["x", "y", "z"]),
    ],
)
def test_label_selectors(widgets: Widgets, selector: str, names: list[str]) -> None:
    widgets.create("x", labels={"a": "1", "b": "2"})
    widgets.create("y", labels={"a": "1"})
    widgets.create("z", labels={"a": "2", "b": "3"})
    assert widgets.names(labelSelector=selector) == names


@page(pages.LABELS, "label-selectors")
@pytest.mark.parametrize("selector", ["a b", "a=b=c", "a in 1", "a in (", ",", "a,,b", "-a=b"])
def test_bad_label_selectors(widgets: Widgets, selector: str) -> None:
    reply = widgets.cluster.get(widgets.path, labelSelector=selector)
    assert (reply.code, reply.json["reason"]) == (400, "BadRequest")


@page(pages.FIELD_SELECTORS, "supported-fields")
def test_field_selectors(widgets: Widgets) -> None:
    widgets.create("x")
    widgets.create("y")
    assert widgets.names(fieldSelector="metadata.name=x") == ["x"]
    assert widgets.names(fieldSelector="metadata.name!=x") == ["y"]
    assert widgets.names(fieldSelector=f"metadata.namespace={widgets.namespace}") == ["x", "y"]
    unknown = widgets.cluster.get(widgets.path, fieldSelector="spec.size=1")
    assert (unknown.code, unknown.message) == (400, "field label not supported: spec.size")


@page(pages.API, "retrieving-large-results-sets-in-chunks")
def test_pages_are_of_one_version(widgets: Widgets) -> None:
    for name in "abcde":
        widgets.create(name)
    first = widgets.cluster.get(widgets.path, limit=2).ok()
    assert [i["metadata"]["name"] for i in first["items"]] == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3
    widgets.cluster.delete(widgets.at("c")).ok()
    widgets.cluster.merge(widgets.at("d"), {"spec": {"size": 9}}).ok()
    widgets.create("f")
    token = first["metadata"]["continue"]
    rest = widgets.cluster.get(widgets.path, **{"limit": 10, "continue": token}).ok()
    assert [i["metadata"]["name"] for i in rest["items"]] == ["c", "d", "e"]
    assert rest["items"][1]["spec"]["size"] == 1
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


@page(pages.API, "semantics-for-get-and-list")
def test_a_list_as_it_was(widgets: Widgets) -> None:
    version = widgets.create("a")["metadata"]["resourceVersion"]
    widgets.create("b")
    exact = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    assert widgets.names(**exact) == ["a"]
    not_older = {"resourceVersion": version, "resourceVersionMatch": "NotOlderThan"}
    assert widgets.names(**not_older) == ["a", "b"]


@page(pages.API, "semantics-for-get-and-list")
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"limit": "x"}, 400),
        ({"continue": "x"}, 400),
        ({"resourceVersion": "abc"}, 400),
        ({"resourceVersion": "99999999"}, 504),
        ({"resourceVersionMatch": "Exact"}, 422),
        ({"resourceVersion": "0", "resourceVersionMatch": "Foo"}, 422),
        ({"sendInitialEvents": "true"}, 422),
        ({"watch": "1", "sendInitialEvents": "true"}, 422),
    ],
)
def test_options_that_make_no_sense(widgets: Widgets, query: dict[str, str], code: int) -> None:
    assert widgets.cluster.get(widgets.path, **query).code == code


@page(pages.API, "efficient-detection-of-changes")
def test_a_watch_goes_on_from_a_version(widgets: Widgets) -> None:
    version = widgets.create("a")["metadata"]["resourceVersion"]
    widgets.create("b")
    widgets.cluster.merge(widgets.at("b"), {"spec": {"size": 2}}).ok()
    widgets.cluster.delete(widgets.at("b")).ok()
    events = widgets.cluster.watch(widgets.path, resourceVersion=version)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", "b"),
        ("MODIFIED", "b"),
        ("DELETED", "b"),
    ]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(versions)
    assert versions[0] > int(version)


@page(pages.API, "semantics-for-watch")
def test_a_watch_without_a_version_begins_with_what_is_there(widgets: Widgets) -> None:
    widgets.create("a")
    for query in ({}, {"resourceVersion": "0"}):
        events = widgets.cluster.watch(widgets.path, **query)
        assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [("ADDED", "a")]


@page(pages.API, "efficient-detection-of-changes")
def test_objects_come_into_a_selector_and_leave_it(widgets: Widgets) -> None:
    version = widgets.create("a", labels={"in": "no"})["metadata"]["resourceVersion"]
    for value in ("yes", "no"):
        widgets.cluster.merge(widgets.at("a"), {"metadata": {"labels": {"in": value}}}).ok()
    query = {"resourceVersion": version, "labelSelector": "in=yes"}
    events = widgets.cluster.watch(widgets.path, **query)
    assert [e["type"] for e in events] == ["ADDED", "DELETED"]


@page(pages.API, "streaming-lists")
def test_a_watch_list_ends_its_first_part_with_a_bookmark(widgets: Widgets) -> None:
    widgets.create("a")
    query = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    events = widgets.cluster.watch(widgets.path, **query)
    assert [e["type"] for e in events[:2]] == ["ADDED", "BOOKMARK"]
    annotations = events[1]["object"]["metadata"]["annotations"]
    assert annotations == {"k8s.io/initial-events-end": "true"}


@page(pages.API, "receiving-resources-as-tables")
def test_a_table_has_the_printer_columns(widgets: Widgets) -> None:
    widgets.create("a", {"size": 7})
    found = widgets.cluster("GET", widgets.path, accept=TABLE).ok()
    assert found["kind"] == "Table"
    names = [column["name"] for column in found["columnDefinitions"]]
    assert names == ["Name", "Size", "Age"]
    assert found["rows"][0]["cells"][:2] == ["a", 7]
    assert found["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


@page(pages.API, "receiving-resources-as-tables")
def test_metadata_alone(widgets: Widgets) -> None:
    widgets.create("a")
    one = widgets.cluster("GET", widgets.at("a"), accept=PARTIAL).ok()
    assert (one["kind"], one["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert "spec" not in one
    many = widgets.cluster("GET", widgets.path, accept=PARTIAL_LIST).ok()
    assert many["kind"] == "PartialObjectMetadataList"
    assert "spec" not in many["items"][0]


@page(pages.API, "alternate-representations-of-resources")
def test_what_cannot_be_accepted_is_406(widgets: Widgets) -> None:
    widgets.create("a")
    reply = widgets.cluster("GET", widgets.at("a"), accept="text/html")
    assert (reply.code, reply.json["reason"]) == (406, "NotAcceptable")
    assert widgets.cluster("GET", widgets.at("a"), accept="application/yaml").code == 200


@page(pages.API, "resource-uris")
def test_unknown_paths_are_not_found(widgets: Widgets) -> None:
    for path in ("/apis/conformance.kumulus.dev/v1/nothing", "/apis/no.such/v1/x", "/nowhere"):
        assert widgets.cluster.get(path).code == 404
