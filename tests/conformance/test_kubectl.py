"""The real kubectl, as users type it."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.conformance.conftest import Widgets
from tests.support.kubectl import Kubectl


@pytest.fixture
def run(kubectl: Kubectl, widgets: Widgets) -> Kubectl:
    kubectl("config", "view")
    return kubectl


def _manifest(widgets: Widgets, size: int) -> str:
    return yaml.safe_dump(widgets.make("x", {"size": size}, namespace=widgets.namespace))


def test_apply_twice_then_a_change(run: Kubectl, widgets: Widgets) -> None:
    assert "created" in run("apply", "-f", "-", stdin=_manifest(widgets, 2))
    assert "unchanged" in run("apply", "-f", "-", stdin=_manifest(widgets, 2))
    assert "configured" in run("apply", "-f", "-", stdin=_manifest(widgets, 3))
    place = ("-n", widgets.namespace)
    assert run("get", "wdg", "x", *place, "-o", "jsonpath={.spec.size}") == "3"
    table = run("get", "widgets", *place).split()
    assert table[:5] == ["NAME", "SIZE", "AGE", "x", "3"]
    assert run("get", "wdg", *place, "-o", "name").strip() == ("widget.conformance.kumulus.dev/x")


def test_diff_shows_the_change_and_stores_nothing(run: Kubectl, widgets: Widgets) -> None:
    run("apply", "-f", "-", stdin=_manifest(widgets, 2))
    done = run.run("diff", "-f", "-", stdin=_manifest(widgets, 4))
    assert done.returncode == 1, done.stderr
    assert "-  size: 2" in done.stdout
    assert "+  size: 4" in done.stdout
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 2
    assert run.run("diff", "-f", "-", stdin=_manifest(widgets, 2)).returncode == 0


def test_label_annotate_patch_edit(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("x", {"size": 2})
    place = ("-n", widgets.namespace)
    assert "labeled" in run("label", "wdg", "x", "a=b", *place)
    assert "annotated" in run("annotate", "wdg", "x", "c=d", *place)
    assert "patched" in run(
        "patch", "wdg", "x", "--type=merge", "-p", '{"spec":{"size":3}}', *place
    )
    found = widgets.cluster.get(widgets.at("x")).ok()
    assert found["metadata"]["labels"] == {"a": "b"}
    assert found["metadata"]["annotations"] == {"c": "d"}
    assert found["spec"]["size"] == 3
    env_edit = subprocess.run(
        ["kubectl", f"--kubeconfig={run.kubeconfig}", f"--cache-dir={run.cache}", "edit", "wdg",
         "x", *place],
        env={"KUBE_EDITOR": "sed -i s/size:.3/size:\\ 5/", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "edited" in env_edit.stdout, env_edit.stderr
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 5


def test_wait_for_a_condition_and_for_the_end(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("x")
    place = ("-n", widgets.namespace)
    widgets.cluster.merge(widgets.at("x") + "/status", {"status": {"ready": True}}).ok()
    assert "condition met" in run(
        "wait", "--for=jsonpath={.status.ready}=true", "wdg/x", "--timeout=10s", *place
    )
    assert "deleted" in run("delete", "wdg", "x", *place)
    run("wait", "--for=delete", "wdg/x", "--timeout=10s", *place)


def test_describe_shows_events(run: Kubectl, widgets: Widgets) -> None:
    uid = widgets.create("x")["metadata"]["uid"]
    event = {
        "metadata": {"generateName": "x."},
        "involvedObject": {
            "apiVersion": "conformance.kumulus.dev/v1",
            "kind": "Widget",
            "name": "x",
            "namespace": widgets.namespace,
            "uid": uid,
        },
        "reason": "Grown",
        "message": "it has grown",
        "type": "Normal",
        "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    widgets.cluster.post(f"/api/v1/namespaces/{widgets.namespace}/events", event).ok()
    text = run("describe", "wdg", "x", "-n", widgets.namespace)
    assert "it has grown" in text
    assert "Size:" in text


def test_explain(run: Kubectl, widgets: Widgets) -> None:
    text = run("explain", "widgets.spec", "--recursive")
    assert "KIND:       Widget" in text
    assert "size\t<integer> -required-" in text


def test_api_resources_and_versions(run: Kubectl, widgets: Widgets) -> None:
    resources = run("api-resources", "--api-group=conformance.kumulus.dev")
    assert "wdg" in resources
    assert "conformance.kumulus.dev/v1" in run("api-versions").split()


def test_built_in_kinds_are_created_as_protobuf(run: Kubectl, widgets: Widgets) -> None:
    """kubectl sends these as protobuf."""
    place = ("-n", widgets.namespace)
    run("create", "configmap", "c", "--from-literal=a=1", *place)
    run("create", "secret", "generic", "s", "--from-literal=p=word", *place)
    run("create", "serviceaccount", "robot", *place)
    run("create", "namespace", f"{widgets.namespace}-more")
    assert run("get", "cm", "c", *place, "-o", "jsonpath={.data.a}") == "1"
    assert run("get", "secret", "s", *place, "-o", "jsonpath={.data.p}") == "d29yZA=="
    assert "robot" in run("get", "sa", *place)
    assert "deleted" in run("delete", "namespace", f"{widgets.namespace}-more")


def test_refusals_name_the_field(run: Kubectl, widgets: Widgets) -> None:
    wire = widgets.make("x", {"size": 99}, namespace=widgets.namespace)
    assert "spec.size: Invalid value: 99" in run.refused("apply", wire)
    wire["spec"] = {"size": 1, "colour": "red"}
    assert 'unknown field "spec.colour"' in run.refused("apply", wire)


def test_get_in_many_forms(run: Kubectl, widgets: Widgets) -> None:
    for name, size in (("a", 3), ("b", 1)):
        widgets.create(name, {"size": size})
    place = ("-n", widgets.namespace)
    columns = "custom-columns=N:.metadata.name,S:.spec.size"
    assert run("get", "wdg", *place, "-o", columns).split() == ["N", "S", "a", "3", "b", "1"]
    by_size = run("get", "wdg", *place, "--sort-by=.spec.size", "-o", "name").split()
    assert [name.rpartition("/")[2] for name in by_size] == ["b", "a"]
    assert "kind: List" in run("get", "wdg", *place, "-o", "yaml")
    assert run("get", "wdg", *place, "-l", "no=such").strip() == ""
