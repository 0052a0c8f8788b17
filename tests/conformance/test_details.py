"""What clients seldom do: options that contradict each other, names left out, YAML said twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.client import JSON_PATCH, TABLE, Cluster
from tests.conformance.conftest import DEFINITIONS, Widgets, definition, eventually
from tests.conformance.pages import page

PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
UNSUPPORTED = ("FieldValueNotSupported", "resourceVersionMatch")
FORBIDDEN = ("FieldValueForbidden", "resourceVersionMatch")


def causes(reply: Any) -> list[tuple[str, str]]:
    return [(c.get("reason", ""), c.get("field", "")) for c in reply.json["details"]["causes"]]


@page(pages.API, "semantics-for-get-and-list")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"resourceVersionMatch": "Wrong"}, [FORBIDDEN, UNSUPPORTED]),
        ({"resourceVersionMatch": "Wrong", "resourceVersion": "1"}, [UNSUPPORTED]),
        ({"resourceVersionMatch": "Wrong", "resourceVersion": "x"}, [UNSUPPORTED]),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, [FORBIDDEN]),
        ({"resourceVersionMatch": "Exact", "watch": "1"}, [FORBIDDEN, UNSUPPORTED]),
        (
            {"resourceVersionMatch": "Exact", "watch": "1", "sendInitialEvents": "true"},
            [FORBIDDEN, UNSUPPORTED],
        ),
        ({"resourceVersionMatch": "NotOlderThan", "watch": "1"}, [FORBIDDEN]),
        ({"sendInitialEvents": "true", "watch": "1"}, [FORBIDDEN]),
    ],
)
def test_matches_that_make_no_sense(
    widgets: Widgets, query: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    reply = widgets.cluster.get(widgets.path, **query)
    assert (reply.code, causes(reply)) == (422, expected)


@page(pages.API, "semantics-for-get-and-list")
def test_a_get_waits_for_its_version(widgets: Widgets) -> None:
    version = widgets.create("x")["metadata"]["resourceVersion"]
    for given in ("0", version):
        assert widgets.cluster.get(widgets.at("x"), resourceVersion=given).code == 200
    late = widgets.cluster.get(widgets.at("x"), resourceVersion="99999999")
    assert (late.code, late.json["reason"]) == (504, "Timeout")
    assert late.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert widgets.cluster.get(widgets.at("x"), resourceVersion="x").code in (400, 500)


@page(pages.API, "streaming-lists")
@pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}])
def test_a_watch_from_any_version_marks_the_end_of_what_is_there(
    widgets: Widgets, query: dict[str, str]
) -> None:
    widgets.create("x")
    events = widgets.cluster.watch(widgets.path, allowWatchBookmarks="true", **query)
    assert [e["type"] for e in events[:2]] == ["ADDED", "BOOKMARK"]
    annotations = events[1]["object"]["metadata"]["annotations"]
    assert annotations == {"k8s.io/initial-events-end": "true"}


@page(pages.API, "streaming-lists")
def test_a_watch_may_leave_out_what_is_there(widgets: Widgets) -> None:
    widgets.create("x")
    query = {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
    assert widgets.cluster.watch(widgets.path, **query) == []


@page(pages.API, "receiving-resources-as-tables")
def test_a_watch_of_rows(widgets: Widgets) -> None:
    widgets.create("x", {"size": 4})
    query = {"watch": "1", "timeoutSeconds": 1}
    events = widgets.cluster("GET", widgets.path, accept=TABLE, query=query).events
    assert [e["object"]["kind"] for e in events] == ["Table"]
    assert events[0]["object"]["rows"][0]["cells"][:2] == ["x", 4]


@page(pages.API, "receiving-resources-as-tables")
@pytest.mark.parametrize(
    ("include", "kind"),
    [("None", None), ("Metadata", "PartialObjectMetadata"), ("Object", "Widget")],
)
def test_rows_have_as_much_of_the_object_as_is_asked_for(
    widgets: Widgets, include: str, kind: str | None
) -> None:
    widgets.create("x")
    query = {"includeObject": include}
    row = widgets.cluster("GET", widgets.path, accept=TABLE, query=query).ok()["rows"][0]
    assert (row.get("object") or {}).get("kind") == kind


@page(pages.API, "receiving-resources-as-tables")
def test_a_watch_of_metadata(widgets: Widgets) -> None:
    widgets.create("x")
    query = {"watch": "1", "timeoutSeconds": 1}
    events = widgets.cluster("GET", widgets.path, accept=PARTIAL, query=query).events
    assert [sorted(e["object"]) for e in events] == [["apiVersion", "kind", "metadata"]]


@page(pages.API, "response-compression")
def test_large_answers_are_compressed(widgets: Widgets) -> None:
    widgets.create("x", annotations={"x": "y" * 200_000})
    headers = {"Accept-Encoding": "gzip"}
    connection = widgets.cluster.connection()
    try:
        token = widgets.cluster._token
        more = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", widgets.path, headers={**headers, **more})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "Accept-Encoding" in answer.headers["Vary"]
        assert body[:2] == b"\x1f\x8b"
    finally:
        connection.close()
    plain = widgets.cluster.get(widgets.path)
    assert "content-encoding" not in plain.headers


@page(pages.API, "field-validation")
def test_keys_that_stand_twice_in_yaml(widgets: Widgets) -> None:
    text = (
        b"apiVersion: conformance.kumulus.dev/v1\nkind: Widget\nmetadata: {name: x}\nspec:\n"
        b"  size: 1\n  size: 2\n  colour: red\n"
    )

    def post(level: str) -> Any:
        query = {"fieldValidation": level, "dryRun": "All"}
        return widgets.cluster("POST", widgets.path, text, content="application/yaml", query=query)

    twice = 'line 6: key \\"size\\" already set in map'
    unknown = 'unknown field \\"spec.colour\\"'
    assert post("Warn").warnings == [f'299 - "{twice}"', f'299 - "{unknown}"']
    assert post("Ignore").warnings == []
    refused = post("Strict")
    assert refused.code == 400
    assert refused.message.endswith(
        'strict decoding error: yaml: unmarshal errors:\n  line 6: key "size" already set in map, '
        'unknown field "spec.colour"'
    )


@page(pages.API, "field-validation")
@pytest.mark.parametrize("how", ["merge", "json", "put"])
def test_changes_are_validated_too(widgets: Widgets, how: str) -> None:
    def change(level: str) -> Any:
        query = {"fieldValidation": level, "dryRun": "All"}
        if how == "merge":
            return widgets.cluster.merge(widgets.at("x"), {"spec": {"colour": "red"}}, **query)
        if how == "put":
            wire = widgets.cluster.get(widgets.at("x")).ok()
            wire["spec"]["colour"] = "red"
            return widgets.cluster.put(widgets.at("x"), wire, **query)
        patch = [{"op": "add", "path": "/spec/colour", "value": "red"}]
        return widgets.cluster("PATCH", widgets.at("x"), patch, content=JSON_PATCH, query=query)

    widgets.create("x")
    assert change("Warn").warnings == ['299 - "unknown field \\"spec.colour\\""']
    assert change("Ignore").warnings == []
    refused = change("Strict")
    assert refused.code == (400 if how == "put" else 422)
    assert 'unknown field "spec.colour"' in refused.message


@page(pages.API, "updates-to-existing-resources")
@pytest.mark.parametrize("version", ["", "0", None])
def test_a_patch_may_not_take_the_version_away(widgets: Widgets, version: str | None) -> None:
    widgets.create("x")
    reply = widgets.cluster.merge(widgets.at("x"), {"metadata": {"resourceVersion": version}})
    assert (reply.code, reply.fields) == (422, ["metadata.resourceVersion"])


@page(pages.NAMES, "names")
def test_an_update_names_its_object(widgets: Widgets) -> None:
    wire = widgets.create("x")
    del wire["metadata"]["name"]
    path = f"/api/v1/namespaces/{widgets.namespace}/configmaps"
    widgets.cluster.post(path, {"metadata": {"name": "x"}}).ok()
    for reply in (
        widgets.cluster.put(widgets.at("x"), wire),
        widgets.cluster.merge(widgets.at("x"), {"metadata": {"name": None}}),
        widgets.cluster.merge(widgets.at("x"), {"metadata": None}),
        widgets.cluster.merge(f"{path}/x", {"metadata": {"name": ""}}),
    ):
        assert reply.code == 400
        assert reply.message == (
            "the name of the object (x based on URL) was undeterminable: name must be provided"
        )


@page(pages.API, "generated-values")
def test_the_beginning_of_a_name_can_be_changed(widgets: Widgets) -> None:
    widgets.create("x")
    changed = widgets.cluster.merge(widgets.at("x"), {"metadata": {"generateName": "y-"}}).ok()
    assert changed["metadata"]["generateName"] == "y-"
    gone = widgets.cluster.merge(widgets.at("x"), {"metadata": {"generateName": None}}).ok()
    assert "generateName" not in gone["metadata"]


@page(pages.API, "resource-deletion")
def test_no_collection_of_all_namespaces_is_deleted(widgets: Widgets) -> None:
    widgets.create("x")
    for path in ("/apis/conformance.kumulus.dev/v1/widgets", "/api/v1/configmaps"):
        assert widgets.cluster.delete(path).code in (404, 405)
    assert widgets.names() == ["x"]


@page(pages.API, "make-a-dry-run-request")
def test_dry_runs_of_every_verb(widgets: Widgets) -> None:
    before = widgets.create("x", {"size": 2}, labels={"a": "b"})
    cluster, path = widgets.cluster, widgets.at("x")
    changed = {**before, "spec": {"size": 5}}
    apply = {**widgets.make("x", {"size": 6})}
    for reply in (
        cluster.put(path, changed, dryRun="All"),
        cluster.merge(path, {"spec": {"size": 4}}, dryRun="All"),
        cluster.merge(f"{path}/status", {"status": {"ready": True}}, dryRun="All"),
        cluster(
            "PATCH", path, apply, content="application/apply-patch+yaml",
            query={"dryRun": "All", "fieldManager": "me", "force": "true"},
        ),
        cluster.delete(path, {"dryRun": ["All"]}),
        cluster.delete(widgets.path, labelSelector="a=b", dryRun="All"),
    ):  # fmt: skip
        reply.ok()
    assert cluster.get(path).ok() == before


@page(pages.API, "resource-deletion")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"propagationPolicy": "Never"}, "propagationPolicy"),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, "propagationPolicy"),
        ({"dryRun": ["Some"]}, "dryRun"),
    ],
)
def test_deletions_that_make_no_sense(widgets: Widgets, body: Any, field: str) -> None:
    widgets.create("x")
    reply = widgets.cluster.delete(widgets.at("x"), body)
    assert (reply.code, reply.fields) == (422, [field])


@page(pages.API, "resource-deletion")
def test_a_collection_is_deleted_by_field(widgets: Widgets) -> None:
    for name in ("x", "y"):
        widgets.create(name)
    reply = widgets.cluster.delete(widgets.path, fieldSelector="metadata.name=x").ok()
    assert [item["metadata"]["name"] for item in reply["items"]] == ["x"]
    assert widgets.names() == ["y"]


@page(pages.OVERVIEW, "openapi-v3")
def test_openapi_has_every_path(cluster: Cluster) -> None:
    found = cluster.get("/openapi/v3/apis/conformance.kumulus.dev/v1").ok()["paths"]
    base = "/apis/conformance.kumulus.dev/v1"
    within = f"{base}/namespaces/{{namespace}}/widgets"
    assert set(found) == {
        f"{base}/widgets", within, f"{within}/{{name}}", f"{within}/{{name}}/status",
    }  # fmt: skip
    listed = {parameter["name"] for parameter in found[within]["get"]["parameters"]}
    assert {"labelSelector", "limit", "resourceVersionMatch", "watch", "timeoutSeconds"} <= listed
    names = {parameter["name"] for parameter in found[f"{within}/{{name}}"]["parameters"]}
    assert {"name", "namespace"} <= names


@pytest.fixture
def rival(cluster: Cluster) -> Iterator[str]:
    path = f"{DEFINITIONS}/gizmos.conformance.kumulus.dev"
    yield path
    cluster.delete(path)
    eventually(lambda: cluster.get(path).code == 404)


@page(pages.DEFINITIONS, "create-a-customresourcedefinition")
@pytest.mark.parametrize(
    ("names", "reason", "taken"),
    [
        ({"kind": "Widget", "listKind": "GizmoList"}, "KindConflict", "Widget"),
        ({"kind": "Gizmo", "singular": "widget"}, "SingularConflict", "widget"),
        ({"kind": "Gizmo", "shortNames": ["gz", "wdg"]}, "ShortNamesConflict", "wdg"),
        ({"kind": "Gizmo", "listKind": "WidgetList"}, "ListKindConflict", "WidgetList"),
        ({"kind": "Widget", "singular": "widget"}, "ListKindConflict", "WidgetList"),
    ],
)
def test_names_that_others_have_are_not_accepted(
    cluster: Cluster, rival: str, names: dict[str, Any], reason: str, taken: str
) -> None:
    """Within a group. The definition is served once it asks for others."""
    wire = definition("gizmos", "conformance.kumulus.dev")
    wire["spec"]["names"] = {"plural": "gizmos", **names}
    cluster.post(DEFINITIONS, wire).ok()

    def conditions() -> dict[str, dict[str, str]]:
        found = cluster.get(rival).json.get("status", {}).get("conditions") or []
        return {condition["type"]: condition for condition in found}

    eventually(lambda: "NamesAccepted" in conditions())
    accepted = conditions()["NamesAccepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", reason)
    assert accepted["message"] == f'"{taken}" is already in use'
    assert conditions()["Established"]["status"] == "False"
    assert cluster.get(rival).ok()["status"]["acceptedNames"]["plural"] == "gizmos"
    time.sleep(0.2)
    assert cluster.get("/apis/conformance.kumulus.dev/v1/gizmos").code == 404
    if "shortNames" in names:
        return  # upstream does not look at these again
    free = {"kind": "Gizmo", "singular": "gizmo", "listKind": "GizmoList"}
    cluster.merge(rival, {"spec": {"names": free}}).ok()
    eventually(lambda: conditions()["Established"]["status"] == "True")
    assert conditions()["NamesAccepted"]["reason"] == "NoConflicts"


@pytest.fixture
def collector(cluster: Cluster) -> None:
    """The whole garbage collector comes with a whole API; the reference server has a stand-in."""
    if cluster.get("/apis/events.k8s.io/v1").code == 404:
        pytest.skip("this server's garbage collector is a stand-in")


def _config(cluster: Cluster, namespace: str, child: str, /, **owner: Any) -> str:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    references = [{"apiVersion": "v1", "kind": "ConfigMap"} | owner] if owner else []
    wire = {"metadata": {"name": child, "ownerReferences": references}}
    uid: str = cluster.post(path, wire).ok()["metadata"]["uid"]
    return uid


@page(pages.OWNERS, "owner-references-in-object-specifications")
def test_dependents_of_absent_owners_go(cluster: Cluster, namespace: str) -> None:
    uid = _config(cluster, namespace, "owner")
    _config(cluster, namespace, "child", name="owner", uid=uid)
    _config(cluster, namespace, "orphan", name="owner", uid="7f6c2b1e-0000-4000-8000-000000000000")
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    eventually(lambda: cluster.get(f"{path}/orphan").code == 404)
    assert cluster.get(f"{path}/child").code == 200


@page(pages.OWNERS, "owner-references-in-object-specifications")
@pytest.mark.usefixtures("collector")
def test_an_owner_in_another_namespace_is_none(cluster: Cluster, namespace: str) -> None:
    elsewhere = f"{namespace}-elsewhere"
    cluster.post("/api/v1/namespaces", {"metadata": {"name": elsewhere}}).ok()
    try:
        uid = _config(cluster, elsewhere, "owner")
        _config(cluster, namespace, "child", name="owner", uid=uid)
        child = f"/api/v1/namespaces/{namespace}/configmaps/child"
        eventually(lambda: cluster.get(child).code == 404)
    finally:
        cluster.delete(f"/api/v1/namespaces/{elsewhere}")


@page(pages.OWNERS, "owner-references-in-object-specifications")
def test_a_namespaced_object_may_have_a_cluster_wide_owner(
    cluster: Cluster, namespace: str
) -> None:
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    role = cluster.post(roles, {"metadata": {"name": namespace}, "rules": []}).ok()
    owner = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": namespace}
    _config(cluster, namespace, "child", uid=role["metadata"]["uid"], **owner)
    child = f"/api/v1/namespaces/{namespace}/configmaps/child"
    time.sleep(0.5)
    assert cluster.get(child).code == 200
    cluster.delete(f"{roles}/{namespace}").ok()
    eventually(lambda: cluster.get(child).code == 404)


@page(pages.API, "resource-uris")
def test_events_of_both_groups_are_the_same(cluster: Cluster, namespace: str) -> None:
    """KEP-383: one object, seen in two versions."""
    if cluster.get("/apis/events.k8s.io/v1").code == 404:
        pytest.skip("this server has no events.k8s.io")
    event = {
        "metadata": {"name": "e"}, "regarding": {"kind": "ConfigMap", "name": "x",
                                                 "namespace": namespace},
        "reason": "Seen", "note": "it was seen", "type": "Normal", "action": "Look",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "kumulus.dev/test", "reportingInstance": "one",
    }  # fmt: skip
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    made = cluster.post(path, event).ok()
    core = cluster.get(f"/api/v1/namespaces/{namespace}/events/e").ok()
    assert core["metadata"]["uid"] == made["metadata"]["uid"]
    assert (core["message"], core["involvedObject"]["name"]) == ("it was seen", "x")
    cluster.delete(f"/api/v1/namespaces/{namespace}/events/e").ok()
    assert cluster.get(f"{path}/e").code == 404


@page(pages.API, "api-concepts")
def test_a_body_that_is_too_large_is_refused(widgets: Widgets) -> None:
    wire = widgets.make("x", {"size": 1, "free": {"a": "x" * (3 * 1024 * 1024)}})
    reply = widgets.cluster.post(widgets.path, wire)
    assert (reply.code, reply.json["reason"]) == (413, "RequestEntityTooLarge")
