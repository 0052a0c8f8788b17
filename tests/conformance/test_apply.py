"""kubernetes.io/docs: Server-Side Apply; KEP-555."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.conformance import pages
from tests.conformance.client import Reply
from tests.conformance.conftest import Widgets
from tests.conformance.pages import page
from tests.support.kubectl import Kubectl

APPLY = "application/apply-patch+yaml"
VERSION = "conformance.kumulus.dev/v1"


def apply(
    widgets: Widgets, spec: Any, manager: str = "one", at: str = "x", status: Any = None,
    **query: Any,
) -> Reply:  # fmt: skip
    wire = widgets.make("x", spec if spec is not None else {})
    if spec is None:
        del wire["spec"]
    if status is not None:
        wire["status"] = status
    query = {"fieldManager": manager, **query}
    return widgets.cluster("PATCH", widgets.at(at), wire, content=APPLY, query=query)


def entries(wire: dict[str, Any]) -> dict[str, Any]:
    """Owned fields by ``manager operation[ subresource]``."""
    found = {}
    for entry in wire["metadata"].get("managedFields", []):
        assert entry["fieldsType"] == "FieldsV1"
        name = f"{entry['manager']} {entry['operation']} {entry.get('subresource', '')}".strip()
        found[name] = entry["fieldsV1"]
    return found


@page(pages.APPLY, "field-management")
def test_apply_creates_and_owns_what_it_says(widgets: Widgets) -> None:
    reply = apply(widgets, {"size": 2, "list": [{"k": "a", "v": 1}], "free": {"q": {"r": [1]}}})
    assert reply.code == 201
    assert reply.json["spec"]["mode"] == "A"
    assert entries(reply.json) == {
        "one Apply": {
            "f:spec": {
                "f:size": {},
                "f:list": {'k:{"k":"a"}': {".": {}, "f:k": {}, "f:v": {}}},
                "f:free": {"f:q": {".": {}, "f:r": {}}},
            }
        }
    }


@page(pages.APPLY, "field-management")
def test_applying_again_writes_nothing(widgets: Widgets) -> None:
    first = apply(widgets, {"size": 2}).ok()
    assert apply(widgets, {"size": 2}).ok() == first


@page(pages.APPLY, "managers")
def test_a_manager_must_be_named(widgets: Widgets) -> None:
    reply = apply(widgets, {"size": 2}, "")
    assert (reply.code, reply.fields) == (422, ["fieldManager"])
    forced = widgets.cluster.merge(widgets.at("x"), {}, force="true")
    assert (forced.code, forced.fields) == (422, ["force"])
    odd = apply(widgets, {"size": 2}, "a\nb")
    assert "invalid character U+000A (at position 1)" in odd.message


@page(pages.APPLY, "conflicts")
def test_a_conflict_names_managers_and_fields(widgets: Widgets) -> None:
    apply(widgets, {"size": 2, "list": [{"k": "a", "v": 1}]}).ok()
    one = apply(widgets, {"size": 3}, "two")
    assert (one.code, one.json["reason"]) == (409, "Conflict")
    assert one.message == 'Apply failed with 1 conflict: conflict with "one": .spec.size'
    both = apply(widgets, {"size": 3, "list": [{"k": "a", "v": 2}]}, "two")
    assert both.json["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": field}
        for field in (".spec.size", '.spec.list[k="a"].v')
    ]
    assert both.message == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.size\n- .spec.list[k="a"].v'
    )


@page(pages.APPLY, "conflicts")
def test_force_takes_the_fields(widgets: Widgets) -> None:
    apply(widgets, {"size": 2, "name": "ab"}).ok()
    found = apply(widgets, {"size": 3}, "two", force="true").ok()
    assert found["spec"]["size"] == 3
    assert entries(found) == {
        "one Apply": {"f:spec": {"f:name": {}}},
        "two Apply": {"f:spec": {"f:size": {}}},
    }


@page(pages.APPLY, "conflicts")
def test_the_same_value_is_shared(widgets: Widgets) -> None:
    apply(widgets, {"size": 2}).ok()
    found = apply(widgets, {"size": 2}, "two").ok()
    assert set(entries(found)) == {"one Apply", "two Apply"}
    assert apply(widgets, {"size": 3}).code == 409


@page(pages.APPLY, "field-management")
def test_what_nobody_applies_any_more_is_removed(widgets: Widgets) -> None:
    items = [{"k": "a"}, {"k": "b"}]
    apply(widgets, {"size": 2, "name": "ab", "list": items}).ok()
    apply(widgets, {"size": 2, "list": [{"k": "b", "v": 1}]}, "two").ok()
    found = apply(widgets, {"size": 2}).ok()
    assert found["spec"] == {"size": 2, "mode": "A", "list": [{"k": "b", "v": 1}]}
    gone = apply(widgets, {"size": 2}, "two").ok()
    assert gone["spec"] == {"size": 2, "mode": "A"}


@page(pages.APPLY, "field-management")
def test_what_nobody_owns_stays(widgets: Widgets) -> None:
    widgets.create("x", {"size": 2}, finalizers=["a.b/c"])
    widgets.cluster.merge(widgets.at("x"), {"metadata": {"managedFields": [{}]}}).ok()
    apply(widgets, {"size": 2}, "ctl", at="x/status", status={"ready": True}).ok()
    labels = {"metadata": {"name": "x", "labels": {"a": "b"}}}
    for body in (labels, {"metadata": {"name": "x"}}):
        wire = {"apiVersion": VERSION, "kind": "Widget", **body}
        query = {"fieldManager": "one"}
        reply = widgets.cluster("PATCH", widgets.at("x"), wire, content=APPLY, query=query)
        found = reply.ok()["metadata"]
    assert "labels" not in found
    assert found["finalizers"] == ["a.b/c"]
    widgets.cluster.merge(widgets.at("x"), {"metadata": {"finalizers": None}}).ok()


@page(pages.APPLY, "operations-and-field-management")
def test_updates_own_what_they_change(widgets: Widgets) -> None:
    cluster = widgets.cluster
    cluster.post(widgets.path, widgets.make("x", {"size": 2}), fieldManager="maker").ok()
    cluster.merge(widgets.at("x"), {"spec": {"size": 3}}, fieldManager="patcher").ok()
    status = {"status": {"ready": True}, "metadata": {"labels": {"a": "b"}}}
    found = cluster.merge(widgets.at("x") + "/status", status, fieldManager="ctl").ok()
    assert entries(found) == {
        "maker Update": {"f:spec": {".": {}, "f:mode": {}}},
        "patcher Update": {"f:spec": {"f:size": {}}},
        "ctl Update status": {"f:status": {".": {}, "f:ready": {}}},
    }
    refused = apply(widgets, {"size": 4})
    assert f'conflict with "patcher" using {VERSION}: .spec.size' in refused.message


@page(pages.APPLY, "managers")
def test_the_default_manager_is_the_user_agent(widgets: Widgets) -> None:
    reply = widgets.cluster(
        "POST", widgets.path, widgets.make("x"), headers={"User-Agent": "tool/1.2 (linux)"}
    )
    assert list(entries(reply.ok())) == ["tool Update"]


@page(pages.APPLY, "field-management")
def test_the_status_is_applied_apart(widgets: Widgets) -> None:
    assert apply(widgets, None, at="x/status", status={"ready": True}).code == 404
    apply(widgets, {"size": 2}).ok()
    reply = apply(widgets, {"size": 9}, "ctl", at="x/status", status={"ready": True})
    assert reply.ok()["spec"]["size"] == 2
    assert reply.json["status"] == {"ready": True}
    assert entries(reply.json)["ctl Apply status"] == {"f:status": {"f:ready": {}}}
    main = apply(widgets, {"size": 2}, status={"ready": False}).ok()
    assert main["status"] == {"ready": True}
    other = apply(widgets, None, "two", at="x/status", status={"ready": False})
    assert 'conflict with "ctl" with subresource "status": .status.ready' in other.message


@page(pages.API, "dry-run")
def test_dry_run_stores_nothing(widgets: Widgets) -> None:
    assert apply(widgets, {"size": 2}, dryRun="All").code == 201
    assert widgets.cluster.get(widgets.at("x")).code == 404


@page(pages.APPLY, "merge-strategy")
@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        ({"zz": 1}, 500, ".spec.zz: field not declared in schema"),
        ({"size": "x"}, 500, ".spec.size: expected numeric (int or float), got string"),
        ({"list": {"a": 1}}, 500, ".spec.list: expected list, got &{map[a:1]}"),
        ({"list": [{"k": "a"}, {"k": "a"}]}, 500, 'duplicate entries for key [k="a"]'),
        ({"size": 11}, 422, "should be less than or equal to 10"),
        ({"size": None}, 422, "must be of type integer"),
    ],
)
def test_a_configuration_must_fit_the_schema(
    widgets: Widgets, spec: Any, code: int, text: str
) -> None:
    reply = apply(widgets, spec)
    assert reply.code == code
    assert text in reply.message


@page(pages.APPLY, "field-management")
def test_a_configuration_must_name_its_object(widgets: Widgets) -> None:
    def refused(change: dict[str, Any]) -> str:
        wire = {**widgets.make("x"), **change}
        query = {"fieldManager": "one"}
        reply = widgets.cluster("PATCH", widgets.at("x"), wire, content=APPLY, query=query)
        assert reply.code in (400, 409)
        return reply.message

    assert "invalid object type" in refused({"kind": "Other"})
    assert "invalid object type" in refused({"apiVersion": "conformance.kumulus.dev/v9"})
    assert "does not match the name on the URL" in refused({"metadata": {"name": "y"}})
    assert "name must be provided" in refused({"metadata": {}})
    assert "must be nil" in refused({"metadata": {"name": "x", "managedFields": []}})
    assert "uid mismatch" in refused({"metadata": {"name": "x", "uid": "u"}})


@page(pages.APPLY, "clearing-managedfields")
def test_managed_fields_are_reset_by_one_empty_entry(widgets: Widgets) -> None:
    apply(widgets, {"size": 2}).ok()
    kept = widgets.cluster.merge(widgets.at("x"), {"metadata": {"managedFields": []}}).ok()
    assert entries(kept)
    reset = widgets.cluster.merge(widgets.at("x"), {"metadata": {"managedFields": [{}]}}).ok()
    assert "managedFields" not in reset["metadata"]
    widgets.cluster.merge(widgets.at("x"), {"spec": {"name": "ab"}}).ok()
    found = apply(widgets, {"size": 3}, force="true").ok()
    assert set(entries(found)) == {"one Apply", "before-first-apply Update"}


@page(pages.APPLY, "field-management")
def test_a_manager_without_fields_is_dropped(widgets: Widgets) -> None:
    widgets.create("x", {"size": 2})
    apply(widgets, {"name": "ab"}).ok()
    found = apply(widgets, None).ok()
    assert "one Apply" not in entries(found)
    assert "name" not in found["spec"]


@page(pages.APPLY, "merge-strategy")
def test_built_in_kinds_are_applied_too(widgets: Widgets) -> None:
    path = f"/api/v1/namespaces/{widgets.namespace}/configmaps/x"
    wire = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    for data, manager in (({"a": "1"}, "one"), ({"b": "2"}, "two"), ({}, "one")):
        reply = widgets.cluster(
            "PATCH", path, {**wire, "data": data}, content=APPLY, query={"fieldManager": manager}
        )
        found = reply.ok()
    assert found["data"] == {"b": "2"}


@page(pages.APPLY, "conflicts")
def test_kubectl_applies_on_the_server(kubectl: Kubectl, widgets: Widgets) -> None:
    def run(size: int, *flags: str) -> str:
        wire = widgets.make("x", {"size": size}, namespace=widgets.namespace)
        done = kubectl.run("apply", *flags, "-f", "-", stdin=yaml.safe_dump(wire))
        return done.stdout + done.stderr

    assert "serverside-applied" in run(2, "--server-side")
    assert "serverside-applied" in run(3, "--server-side")
    assert 'conflict with "kubectl"' in run(4, "--server-side", "--field-manager=other")
    assert "serverside-applied" in run(
        4, "--server-side", "--field-manager=other", "--force-conflicts"
    )
    place = ("get", "wdg", "x", "-n", widgets.namespace, "-o", "yaml")
    assert "managedFields" not in kubectl(*place)
    assert "manager: other" in kubectl(*place, "--show-managed-fields")


@page(pages.APPLY, "upgrading-from-client-side-apply-to-server-side-apply")
def test_kubectl_moves_from_client_side_to_server_side(kubectl: Kubectl, widgets: Widgets) -> None:
    def manifest(**spec: Any) -> str:
        return yaml.safe_dump(widgets.make("x", spec, namespace=widgets.namespace))

    kubectl("apply", "-f", "-", stdin=manifest(size=2, name="ab"))
    kubectl("apply", "--server-side", "-f", "-", stdin=manifest(size=3))
    found = widgets.cluster.get(widgets.at("x")).ok()
    assert found["spec"] == {"size": 3, "mode": "A"}
    owners = entries(found)
    assert owners["kubectl Apply"]["f:spec"] == {"f:size": {}}
    assert "kubectl-client-side-apply Update" not in owners
    text = found["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert json.loads(text)["spec"] == {"size": 3}
