"""More of the real kubectl: https://kubernetes.io/docs/reference/kubectl/generated/"""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.conformance import pages
from tests.conformance.conftest import Widgets, eventually
from tests.conformance.pages import page
from tests.support.kubectl import Kubectl


@page(pages.KUBECTL + "kubectl_wait/")
def test_wait_for_a_condition(kubectl: Kubectl, widgets: Widgets) -> None:
    said = kubectl(
        "wait", "--for=condition=Established", "crd/widgets.conformance.kumulus.dev",
        "--timeout=10s",
    )  # fmt: skip
    assert "condition met" in said


@page(pages.KUBECTL + "kubectl_wait/")
def test_wait_for_something_to_be_made(kubectl: Kubectl, widgets: Widgets) -> None:
    widgets.create("x")
    assert "condition met" in kubectl(
        "wait", "--for=create", "wdg/x", "--timeout=10s", "-n", widgets.namespace
    )


@page(pages.KUBECTL + "kubectl_explain/")
@pytest.mark.parametrize("form", ["plaintext", "plaintext-openapiv2"])
@pytest.mark.parametrize(
    ("field", "text"),
    [("configmap", "data"), ("lease.spec", "holderIdentity"), ("widgets", "spec")],
)
def test_explain_of_every_kind_of_kind(
    kubectl: Kubectl, widgets: Widgets, field: str, text: str, form: str
) -> None:
    assert text in kubectl("explain", field, "--recursive", f"--output={form}")


@page(pages.KUBECTL + "kubectl_edit/")
def test_edit_with_the_users_editor(kubectl: Kubectl, widgets: Widgets) -> None:
    """An edit that the server refuses is handed back, with the reason; nothing is stored."""
    widgets.create("x", {"size": 2})

    def edit(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", f"--kubeconfig={kubectl.kubeconfig}", f"--cache-dir={kubectl.cache}",
             "edit", "wdg", "x", "-n", widgets.namespace],
            env={"EDITOR": script, "PATH": "/usr/bin:/bin", "TMPDIR": str(kubectl.cache)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    refused = edit("sed -i s/size:.2/size:\\ 99/")
    assert refused.returncode != 0
    assert '"x" is invalid' in refused.stderr
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 2
    assert "edited" in edit("sed -i s/size:.2/size:\\ 3/").stdout
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 3
    assert "no changes made" in edit("true").stderr + edit("true").stdout


@page(pages.KUBECTL + "kubectl_replace/")
def test_replace_by_force_makes_it_anew(kubectl: Kubectl, widgets: Widgets) -> None:
    before = widgets.create("x", {"size": 2})["metadata"]["uid"]
    manifest = yaml.safe_dump(widgets.make("x", {"size": 1}, namespace=widgets.namespace))
    assert "replaced" in kubectl("replace", "--force", "-f", "-", stdin=manifest)
    found = widgets.cluster.get(widgets.at("x")).ok()
    assert found["metadata"]["uid"] != before
    assert found["spec"]["size"] == 1


@page(pages.KUBECTL + "kubectl_delete/")
def test_delete_by_label_and_all(kubectl: Kubectl, widgets: Widgets) -> None:
    for name in "abc":
        widgets.create(name, labels={"name": name})
    place = ("-n", widgets.namespace)
    kubectl("delete", "wdg", "-l", "name in (a,b)", *place)
    assert widgets.names() == ["c"]
    kubectl("delete", "wdg", "--all", *place)
    assert widgets.names() == []
    assert "not found" in kubectl.run("delete", "wdg", "c", *place).stderr
    assert kubectl.run("delete", "wdg", "c", "--ignore-not-found", *place).returncode == 0


@page(pages.KUBECTL + "kubectl_delete/")
def test_delete_as_a_dry_run(kubectl: Kubectl, widgets: Widgets) -> None:
    widgets.create("x")
    said = kubectl("delete", "wdg", "x", "--dry-run=server", "-n", widgets.namespace)
    assert "server dry run" in said
    assert widgets.names() == ["x"]


@page(pages.KUBECTL + "kubectl_patch/")
def test_a_strategic_patch_of_a_built_in_kind(kubectl: Kubectl, widgets: Widgets) -> None:
    place = ("-n", widgets.namespace)
    kubectl("create", "configmap", "c", "--from-literal=a=1", "--from-literal=b=2", *place)
    kubectl("patch", "cm", "c", "-p", '{"data":{"a":null,"c":"3"}}', *place)
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data}", *place) == '{"b":"2","c":"3"}'
    widgets.create("x")
    refused = kubectl.run("patch", "wdg", "x", "-p", "{}", *place)
    assert "application/strategic-merge-patch+json is not supported by" in refused.stderr


@page(pages.KUBECTL + "kubectl_apply/")
def test_apply_prunes_what_is_no_longer_there(kubectl: Kubectl, widgets: Widgets) -> None:
    def manifests(*names: str) -> str:
        return yaml.safe_dump_all(
            widgets.make(name, namespace=widgets.namespace, labels={"app": "demo"})
            for name in names
        )

    flags = (
        "apply", "-l", "app=demo", "--prune",
        "--prune-allowlist=conformance.kumulus.dev/v1/Widget", "-n", widgets.namespace, "-f", "-",
    )  # fmt: skip
    kubectl(*flags, stdin=manifests("a", "b"))
    assert "b pruned" in kubectl(*flags, stdin=manifests("a"))
    assert widgets.names() == ["a"]


@page(pages.KUBECTL + "kubectl_events/")
def test_events_of_an_object(kubectl: Kubectl, widgets: Widgets) -> None:
    uid = widgets.create("x")["metadata"]["uid"]
    event = {
        "metadata": {"name": "x.1"}, "reason": "Grown", "message": "it has grown",
        "involvedObject": {
            "apiVersion": "conformance.kumulus.dev/v1", "kind": "Widget", "name": "x",
            "namespace": widgets.namespace, "uid": uid,
        },
        "type": "Normal", "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    widgets.cluster.post(f"/api/v1/namespaces/{widgets.namespace}/events", event).ok()
    shown = kubectl("get", "events", "-n", widgets.namespace, "-o", "jsonpath={.items[*].message}")
    assert shown == "it has grown"


@page(pages.KUBECTL + "kubectl_get/")
def test_get_raw_and_by_file(kubectl: Kubectl, widgets: Widgets) -> None:
    widgets.create("x", {"size": 4})
    assert '"size":4' in kubectl("get", "--raw", widgets.at("x"))
    manifest = yaml.safe_dump(widgets.make("x", namespace=widgets.namespace))
    assert kubectl("get", "-f", "-", "--no-headers", stdin=manifest).split()[:2] == ["x", "4"]


@page(pages.KUBECTL + "kubectl_version/")
def test_the_versions_fit(kubectl: Kubectl, widgets: Widgets) -> None:
    assert "Server Version: v" in kubectl.run("version").stdout


@page(pages.KUBECTL + "kubectl_api-resources/")
def test_api_resources_by_verb_and_scope(kubectl: Kubectl, widgets: Widgets) -> None:
    listed = kubectl("api-resources", "--namespaced=true", "--verbs=list,watch", "-o", "name")
    assert "widgets.conformance.kumulus.dev" in listed.split()
    assert "namespaces" not in listed.split()
    wide = kubectl("api-resources", "--api-group=conformance.kumulus.dev", "-o", "wide")
    assert "deletecollection" in wide


@page(pages.KUBECTL + "kubectl_delete/")
def test_a_namespace_is_deleted_and_waited_for(kubectl: Kubectl, widgets: Widgets) -> None:
    widgets.create("x")
    kubectl("delete", "namespace", widgets.namespace, "--timeout=30s")
    eventually(lambda: widgets.cluster.get(widgets.path).ok()["items"] == [])
