"""kubernetes.io/docs: extend the API with CustomResourceDefinitions, scale subresource."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.client import JSON_PATCH, STRATEGIC, TABLE, Cluster
from tests.conformance.conftest import DEFINITIONS, definition, eventually
from tests.conformance.pages import page
from tests.support.kubectl import Kubectl

GROUP = "scale.kumulus.dev"
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer", "minimum": 0, "maximum": 20},
                "color": {"type": "string"},
            },
        },
        "status": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
        },
    },
}
SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def fleets() -> dict[str, Any]:
    wire = definition("fleets", GROUP, SCHEMA)
    wire["spec"]["names"]["shortNames"] = []
    wire["spec"]["versions"][0]["subresources"]["scale"] = SCALE
    return wire


@pytest.fixture
def path(cluster: Cluster, namespace: str) -> str:
    """A fleet of two that runs one."""
    cluster.post(DEFINITIONS, fleets())
    collection = f"/apis/{GROUP}/v1/namespaces/{namespace}/fleets"
    eventually(lambda: cluster.get(collection).code == 200)
    eventually(lambda: "/scale" in cluster.get(f"/apis/{GROUP}/v1").text)
    wire = {
        "apiVersion": f"{GROUP}/v1", "kind": "Fleet",
        "metadata": {"name": "f"}, "spec": {"replicas": 2, "color": "red"},
    }  # fmt: skip
    cluster.post(collection, wire).ok()
    status = {"status": {"replicas": 1, "selector": "app=f"}}
    cluster.merge(f"{collection}/f/status", status).ok()
    return f"{collection}/f"


@page(pages.DEFINITIONS, "scale-subresource")
def test_it_shows_the_fields_at_the_declared_paths(cluster: Cluster, path: str) -> None:
    whole = cluster.get(path).ok()["metadata"]
    found = cluster.get(f"{path}/scale").ok()
    assert (found["apiVersion"], found["kind"]) == ("autoscaling/v1", "Scale")
    for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp"):
        assert found["metadata"][key] == whole[key]
    assert found["spec"] == {"replicas": 2}
    assert found["status"] == {"replicas": 1, "selector": "app=f"}


@page(pages.DEFINITIONS, "scale-subresource")
def test_a_put_changes_the_replicas_alone(cluster: Cluster, path: str) -> None:
    found = cluster.get(f"{path}/scale").ok()
    found["spec"]["replicas"] = 5
    found["status"] = {"replicas": 9, "selector": "no=no"}
    found["metadata"]["labels"] = {"a": "b"}
    assert cluster.put(f"{path}/scale", found).ok()["spec"] == {"replicas": 5}
    whole = cluster.get(path).ok()
    assert whole["spec"] == {"replicas": 5, "color": "red"}
    assert whole["status"] == {"replicas": 1, "selector": "app=f"}
    assert "labels" not in whole["metadata"]
    assert whole["metadata"]["generation"] == 2


@page(pages.DEFINITIONS, "scale-subresource")
def test_a_stale_put_is_a_conflict(cluster: Cluster, path: str) -> None:
    found = cluster.get(f"{path}/scale").ok()
    cluster.merge(path, {"spec": {"color": "blue"}}).ok()
    reply = cluster.put(f"{path}/scale", found)
    assert (reply.code, reply.json["reason"]) == (409, "Conflict")
    del found["metadata"]["resourceVersion"]
    assert cluster.put(f"{path}/scale", found).code == 200


@page(pages.DEFINITIONS, "scale-subresource")
def test_patches(cluster: Cluster, path: str) -> None:
    scale = f"{path}/scale"
    assert cluster.merge(scale, {"spec": {"replicas": 7}}).ok()["spec"] == {"replicas": 7}
    patch = [{"op": "replace", "path": "/spec/replicas", "value": 4}]
    assert cluster("PATCH", scale, patch, content=JSON_PATCH).ok()["spec"] == {"replicas": 4}
    assert cluster("PATCH", scale, {}, content=STRATEGIC).code == 415
    assert cluster.merge(scale, {"spec": {"replicas": None}}).ok()["spec"] == {}
    assert cluster.get(path).ok()["spec"]["replicas"] == 0
    stale = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 1}}
    assert cluster.merge(scale, stale).code == 409


@page(pages.DEFINITIONS, "scale-subresource")
def test_a_dry_run_changes_nothing(cluster: Cluster, path: str) -> None:
    reply = cluster.merge(f"{path}/scale", {"spec": {"replicas": 9}}, dryRun="All")
    assert reply.ok()["spec"] == {"replicas": 9}
    assert cluster.get(path).ok()["spec"]["replicas"] == 2


@page(pages.DEFINITIONS, "scale-subresource")
@pytest.mark.parametrize(("replicas", "code"), [(-1, 422), (21, 422), ("x", 422), (1.5, 422)])
def test_what_is_not_valid_is_refused(
    cluster: Cluster, path: str, replicas: Any, code: int
) -> None:
    reply = cluster.merge(f"{path}/scale", {"spec": {"replicas": replicas}})
    assert (reply.code, reply.json["reason"]) == (code, "Invalid")
    assert cluster.get(path).ok()["spec"]["replicas"] == 2


@page(pages.DEFINITIONS, "scale-subresource")
def test_negative_replicas_are_named(cluster: Cluster, path: str) -> None:
    reply = cluster.merge(f"{path}/scale", {"spec": {"replicas": -1}})
    assert reply.fields == ["spec.replicas", ".spec.replicas"]
    assert "should be a non-negative integer" in reply.message


@page(pages.DEFINITIONS, "scale-subresource")
def test_what_is_not_there(cluster: Cluster, path: str) -> None:
    missing = path[:-1] + "other/scale"
    body = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "other"}}
    for reply in (cluster.get(missing), cluster.put(missing, body), cluster.merge(missing, {})):
        assert (reply.code, reply.json["reason"]) == (404, "NotFound")


@page(pages.DEFINITIONS, "scale-subresource")
def test_it_is_neither_made_nor_deleted(cluster: Cluster, path: str) -> None:
    assert cluster.post(f"{path}/scale", {}).code == 405
    assert cluster.delete(f"{path}/scale").code == 405


@page(pages.DEFINITIONS, "scale-subresource")
def test_a_table_of_it(cluster: Cluster, path: str) -> None:
    found = cluster("GET", f"{path}/scale", accept=TABLE).ok()
    names = [column["name"] for column in found["columnDefinitions"]]
    assert names == ["Name", "Desired", "Available", "Age"]
    assert found["rows"][0]["cells"][:3] == ["f", 2, 1]


@page(pages.KUBECTL + "kubectl_scale/")
def test_kubectl_scale(cluster: Cluster, kubectl: Kubectl, path: str) -> None:
    namespace = path.split("/")[5]
    out = kubectl("scale", "fleets/f", "--replicas=6", "-n", namespace)
    assert "scaled" in out
    assert cluster.get(path).ok()["spec"]["replicas"] == 6
    failed = kubectl.run(
        "scale", "fleets/f", "--replicas=1", "--current-replicas=2", "-n", namespace
    )
    assert failed.returncode != 0
    assert "Expected replicas to be 2, was 6" in failed.stderr


@page(pages.DEFINITIONS, "scale-subresource")
@pytest.mark.parametrize(
    ("declared", "field"),
    [
        ({}, "specReplicasPath"),
        ({**SCALE, "specReplicasPath": ".status.replicas"}, "specReplicasPath"),
        ({**SCALE, "specReplicasPath": "spec.replicas"}, "specReplicasPath"),
        ({**SCALE, "statusReplicasPath": ".spec.replicas"}, "statusReplicasPath"),
        ({**SCALE, "labelSelectorPath": ".metadata.name"}, "labelSelectorPath"),
    ],
)
def test_paths_that_cannot_be(cluster: Cluster, declared: Any, field: str) -> None:
    wire = fleets()
    wire["metadata"]["name"] = f"bads.{GROUP}"
    wire["spec"]["names"] = {"plural": "bads", "kind": "Bad"}
    wire["spec"]["versions"][0]["subresources"]["scale"] = declared
    reply = cluster.post(DEFINITIONS, wire)
    assert reply.code == 422
    assert f"spec.subresources.scale.{field}" in reply.fields
