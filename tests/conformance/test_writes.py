"""kubernetes.io/docs: API concepts (updates, patches, dry run, deletion, preconditions)."""

from __future__ import annotations

import pytest

from tests.conformance import pages
from tests.conformance.client import JSON_PATCH, STRATEGIC, Cluster
from tests.conformance.conftest import Widgets, eventually
from tests.conformance.pages import page


@page(pages.API, "standard-api-terminology")
def test_a_new_object_gets_its_metadata_from_the_server(widgets: Widgets) -> None:
    found = widgets.create("x", uid="mine", generation=9, creationTimestamp="2001-01-01T00:00:00Z")
    metadata = found["metadata"]
    assert metadata["uid"] != "mine"
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"] > "2020"
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["namespace"] == widgets.namespace


@page(pages.NAMES, "names")
def test_a_name_is_taken_once(widgets: Widgets) -> None:
    widgets.create("x")
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert (reply.code, reply.json["reason"]) == (409, "AlreadyExists")
    assert reply.message == 'widgets.conformance.kumulus.dev "x" already exists'


@page(pages.API, "generated-values")
def test_generate_name_makes_a_name(widgets: Widgets) -> None:
    wire = widgets.make("")
    wire["metadata"] = {"generateName": "web-"}
    names = {widgets.cluster.post(widgets.path, wire).ok()["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


@page(pages.NAMESPACES)
def test_the_namespace_must_exist_and_match(widgets: Widgets) -> None:
    elsewhere = "/apis/conformance.kumulus.dev/v1/namespaces/nowhere/widgets"
    reply = widgets.cluster.post(elsewhere, widgets.make("x"))
    assert (reply.code, reply.message) == (404, 'namespaces "nowhere" not found')
    other = widgets.cluster.post(widgets.path, widgets.make("x", namespace="default"))
    assert other.code == 400
    assert "does not match the namespace sent on the request" in other.message


@page(pages.API, "resource-uris")
def test_what_is_not_there_is_not_found(widgets: Widgets) -> None:
    for reply in (
        widgets.cluster.get(widgets.at("none")),
        widgets.cluster.delete(widgets.at("none")),
        widgets.cluster.put(widgets.at("none"), widgets.make("none")),
        widgets.cluster.merge(widgets.at("none"), {}),
    ):
        assert (reply.code, reply.json["reason"]) == (404, "NotFound")
        assert reply.message == 'widgets.conformance.kumulus.dev "none" not found'


@page(pages.API, "updates-to-existing-resources")
def test_a_put_says_which_version_it_replaces(widgets: Widgets) -> None:
    found = widgets.create("x", {"size": 2})
    blind = widgets.cluster.put(widgets.at("x"), widgets.make("x", {"size": 3}))
    assert blind.code == 422
    assert "metadata.resourceVersion: Invalid value: 0: must be specified" in blind.message
    version = found["metadata"]["resourceVersion"]
    new = widgets.make("x", {"size": 3}, resourceVersion=version)
    assert widgets.cluster.put(widgets.at("x"), new).ok()["metadata"]["generation"] == 2
    stale = widgets.cluster.put(widgets.at("x"), new)
    assert (stale.code, stale.json["reason"]) == (409, "Conflict")
    assert "the object has been modified" in stale.message


@page(pages.API, "resource-versions")
def test_an_update_that_changes_nothing_writes_nothing(widgets: Widgets) -> None:
    before = widgets.create("x", {"size": 2})["metadata"]["resourceVersion"]
    after = widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 2}}).ok()
    assert after["metadata"]["resourceVersion"] == before


@page(pages.DEFINITIONS, "status-subresource")
def test_generation_follows_the_spec_alone(widgets: Widgets) -> None:
    widgets.create("x", {"size": 2})
    labelled = widgets.cluster.merge(widgets.at("x"), {"metadata": {"labels": {"a": "b"}}}).ok()
    assert labelled["metadata"]["generation"] == 1
    grown = widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 3}}).ok()
    assert grown["metadata"]["generation"] == 2


@page(pages.DEFINITIONS, "status-subresource")
def test_status_and_spec_are_written_apart(widgets: Widgets) -> None:
    wire = {**widgets.make("x", {"size": 2}), "status": {"ready": True}}
    assert "status" not in widgets.cluster.post(widgets.path, wire).ok()
    change = {"spec": {"size": 9}, "status": {"ready": True}, "metadata": {"labels": {"a": "b"}}}
    found = widgets.cluster.merge(widgets.at("x") + "/status", change).ok()
    assert found["spec"]["size"] == 2
    assert found["status"] == {"ready": True}
    assert "labels" not in found["metadata"]
    assert found["metadata"]["generation"] == 1
    main = widgets.cluster.merge(widgets.at("x"), {"status": {"ready": False}}).ok()
    assert main["status"] == {"ready": True}


@page(pages.API, "patch-and-apply")
def test_a_json_patch_is_applied_in_order(widgets: Widgets) -> None:
    widgets.create("x", {"size": 2})
    patch = [
        {"op": "test", "path": "/spec/size", "value": 2},
        {"op": "replace", "path": "/spec/size", "value": 3},
        {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
    ]
    found = widgets.cluster("PATCH", widgets.at("x"), patch, content=JSON_PATCH).ok()
    assert found["spec"]["size"] == 3
    assert found["metadata"]["labels"] == {"a": "b"}


@page(pages.API, "patch-and-apply")
@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ([{"op": "test", "path": "/spec/size", "value": 9}], 422),
        ([{"op": "remove", "path": "/spec/zz"}], 422),
        ([{"op": "bad", "path": "/spec/zz"}], 400),
        ({}, 400),
    ],
)
def test_a_json_patch_that_does_not_fit(widgets: Widgets, patch: object, code: int) -> None:
    widgets.create("x", {"size": 2})
    assert widgets.cluster("PATCH", widgets.at("x"), patch, content=JSON_PATCH).code == code


@page(pages.API, "patch-and-apply")
def test_a_merge_patch_removes_by_null(widgets: Widgets) -> None:
    widgets.create("x", {"size": 2, "name": "abc"}, labels={"a": "b"})
    found = widgets.cluster.merge(
        widgets.at("x"), {"spec": {"name": None}, "metadata": {"labels": {"a": None}}}
    ).ok()
    assert "name" not in found["spec"]
    assert "labels" not in found["metadata"]


@page(pages.PATCHES, "notes-on-the-strategic-merge-patch")
def test_a_strategic_patch_is_for_built_in_kinds(widgets: Widgets) -> None:
    widgets.create("x")
    reply = widgets.cluster("PATCH", widgets.at("x"), {}, content=STRATEGIC)
    assert (reply.code, reply.json["reason"]) == (415, "UnsupportedMediaType")
    path = f"/api/v1/namespaces/{widgets.namespace}/configmaps"
    widgets.cluster.post(path, {"metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}).ok()
    found = widgets.cluster(
        "PATCH", f"{path}/c", {"data": {"a": None, "c": "3"}}, content=STRATEGIC
    ).ok()
    assert found["data"] == {"b": "2", "c": "3"}


@page(pages.NAMES, "uids")
def test_metadata_that_never_changes(widgets: Widgets) -> None:
    widgets.create("x")
    uid = widgets.cluster.merge(widgets.at("x"), {"metadata": {"uid": "1"}})
    assert uid.code == 422
    assert 'metadata.uid: Invalid value: "1": field is immutable' in uid.message
    name = widgets.cluster.merge(widgets.at("x"), {"metadata": {"name": "z"}})
    assert name.code == 400
    assert "does not match the name on the URL (x)" in name.message


@page(pages.API, "updates-to-existing-resources")
def test_a_patch_may_be_conditional(widgets: Widgets) -> None:
    widgets.create("x")
    reply = widgets.cluster.merge(widgets.at("x"), {"metadata": {"resourceVersion": "1"}})
    assert (reply.code, reply.json["reason"]) == (409, "Conflict")


@page(pages.API, "make-a-dry-run-request")
def test_a_dry_run_stores_nothing(widgets: Widgets) -> None:
    made = widgets.cluster.post(widgets.path, widgets.make("x", {"size": 2}), dryRun="All").ok()
    assert made["spec"]["mode"] == "A"
    assert widgets.cluster.get(widgets.at("x")).code == 404
    widgets.create("x", {"size": 2})
    widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 3}}, dryRun="All").ok()
    widgets.cluster.delete(widgets.at("x"), dryRun="All")
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 2
    assert widgets.cluster.post(widgets.path, widgets.make("y"), dryRun="Nope").code == 422


@page(pages.API, "resource-deletion")
def test_a_deletion_without_finalizers_is_done_at_once(widgets: Widgets) -> None:
    uid = widgets.create("x")["metadata"]["uid"]
    reply = widgets.cluster.delete(widgets.at("x")).ok()
    assert reply["status"] == "Success"
    assert reply["details"] == {
        "name": "x",
        "group": "conformance.kumulus.dev",
        "kind": "widgets",
        "uid": uid,
    }
    assert widgets.cluster.get(widgets.at("x")).code == 404


@page(pages.FINALIZERS, "how-finalizers-work")
def test_finalizers_hold_a_deletion_back(widgets: Widgets) -> None:
    widgets.create("x", finalizers=["example.com/hold"])
    found = widgets.cluster.delete(widgets.at("x")).ok()
    assert found["metadata"]["deletionTimestamp"]
    assert found["metadata"]["generation"] == 2
    more = widgets.cluster.merge(
        widgets.at("x"), {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    )
    assert more.code == 422
    assert "no new finalizers can be added if the object is being deleted" in more.message
    widgets.cluster.merge(widgets.at("x"), {"metadata": {"finalizers": []}}).ok()
    assert widgets.cluster.get(widgets.at("x")).code == 404


@page(pages.API, "resource-deletion")
def test_preconditions_of_a_deletion(widgets: Widgets) -> None:
    found = widgets.create("x")["metadata"]
    for wrong in ({"uid": "x"}, {"resourceVersion": "1"}):
        reply = widgets.cluster.delete(widgets.at("x"), {"preconditions": wrong})
        assert (reply.code, reply.json["reason"]) == (409, "Conflict")
        assert "in the precondition" in reply.message
    good = {"uid": found["uid"], "resourceVersion": found["resourceVersion"]}
    assert widgets.cluster.delete(widgets.at("x"), {"preconditions": good}).code == 200


@page(pages.API, "resource-deletion")
def test_a_collection_is_deleted_by_selector(widgets: Widgets) -> None:
    for at in range(4):
        widgets.create(f"x{at}", labels={"half": str(at % 2)})
    widgets.cluster.delete(widgets.path, labelSelector="half=0").ok()
    assert widgets.names() == ["x1", "x3"]


def _owner(found: dict[str, object], **more: object) -> dict[str, object]:
    metadata = found["metadata"]
    assert isinstance(metadata, dict)
    return {
        "apiVersion": "conformance.kumulus.dev/v1",
        "kind": "Widget",
        "name": metadata["name"],
        "uid": metadata["uid"],
        **more,
    }


@page(pages.COLLECTION, "background-deletion")
def test_dependents_go_after_their_owner(widgets: Widgets) -> None:
    owner = widgets.create("owner")
    widgets.create("child", ownerReferences=[_owner(owner)])
    widgets.cluster.delete(widgets.at("owner")).ok()
    eventually(lambda: widgets.names() == [])


@page(pages.COLLECTION, "foreground-deletion")
def test_foreground_deletion_waits_for_dependents(widgets: Widgets) -> None:
    owner = widgets.create("owner")
    reference = _owner(owner, blockOwnerDeletion=True)
    widgets.create("child", ownerReferences=[reference], finalizers=["example.com/hold"])
    reply = widgets.cluster.delete(widgets.at("owner"), {"propagationPolicy": "Foreground"}).ok()
    assert reply["metadata"]["finalizers"] == ["foregroundDeletion"]
    child = widgets.at("child")
    eventually(lambda: "deletionTimestamp" in widgets.cluster.get(child).ok()["metadata"])
    assert widgets.cluster.get(widgets.at("owner")).code == 200
    widgets.cluster.merge(child, {"metadata": {"finalizers": None}}).ok()
    eventually(lambda: widgets.names() == [])


@page(pages.COLLECTION, "orphaned-dependents")
def test_orphans_lose_their_owner_and_stay(widgets: Widgets) -> None:
    owner = widgets.create("owner")
    widgets.create("child", ownerReferences=[_owner(owner)])
    widgets.cluster.delete(widgets.at("owner"), {"propagationPolicy": "Orphan"}).ok()
    eventually(lambda: widgets.names() == ["child"])
    assert "ownerReferences" not in widgets.cluster.get(widgets.at("child")).ok()["metadata"]


@page(pages.NAMESPACES)
def test_a_namespace_is_emptied_and_goes(cluster: Cluster) -> None:
    cluster.post("/api/v1/namespaces", {"metadata": {"name": "short-lived"}}).ok()
    widgets = Widgets(cluster, "short-lived")
    widgets.create("x", finalizers=["example.com/hold"])
    reply = cluster.delete("/api/v1/namespaces/short-lived").ok()
    assert reply["status"]["phase"] == "Terminating"
    refused = cluster.post(widgets.path, widgets.make("y"))
    assert refused.code == 403 or cluster.get("/api/v1/namespaces/short-lived").code == 404
    eventually(lambda: "deletionTimestamp" in cluster.get(widgets.at("x")).text)
    cluster.merge(widgets.at("x"), {"metadata": {"finalizers": None}}).ok()
    eventually(lambda: cluster.get("/api/v1/namespaces/short-lived").code == 404)
