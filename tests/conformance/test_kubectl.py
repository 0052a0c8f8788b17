"""The real kubectl, as users type it: https://kubernetes.io/docs/reference/kubectl/"""

from __future__ import annotations

import subprocess
import time

import pytest
import yaml

from tests.conformance import pages
from tests.conformance.conftest import Widgets, eventually
from tests.conformance.pages import page
from tests.support.kubectl import Kubectl


@pytest.fixture
def run(kubectl: Kubectl, widgets: Widgets) -> Kubectl:
    kubectl("config", "view")
    return kubectl


def _manifest(widgets: Widgets, size: int) -> str:
    return yaml.safe_dump(widgets.make("x", {"size": size}, namespace=widgets.namespace))


@page(pages.KUBECTL + "kubectl_apply/")
def test_apply_twice_then_a_change(run: Kubectl, widgets: Widgets) -> None:
    assert "created" in run("apply", "-f", "-", stdin=_manifest(widgets, 2))
    assert "unchanged" in run("apply", "-f", "-", stdin=_manifest(widgets, 2))
    assert "configured" in run("apply", "-f", "-", stdin=_manifest(widgets, 3))
    place = ("-n", widgets.namespace)
    assert run("get", "wdg", "x", *place, "-o", "jsonpath={.spec.size}") == "3"
    table = run("get", "widgets", *place).split()
    assert table[:5] == ["NAME", "SIZE", "AGE", "x", "3"]
    assert run("get", "wdg", *place, "-o", "name").strip() == ("widget.conformance.kumulus.dev/x")


@page(pages.KUBECTL + "kubectl_diff/")
def test_diff_shows_the_change_and_stores_nothing(run: Kubectl, widgets: Widgets) -> None:
    run("apply", "-f", "-", stdin=_manifest(widgets, 2))
    done = run.run("diff", "-f", "-", stdin=_manifest(widgets, 4))
    assert done.returncode == 1, done.stderr
    assert "-  size: 2" in done.stdout
    assert "+  size: 4" in done.stdout
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 2
    assert run.run("diff", "-f", "-", stdin=_manifest(widgets, 2)).returncode == 0


@page(pages.KUBECTL + "kubectl_edit/")
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


@page(pages.KUBECTL + "kubectl_wait/")
def test_wait_for_a_condition_and_for_the_end(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("x")
    place = ("-n", widgets.namespace)
    widgets.cluster.merge(widgets.at("x") + "/status", {"status": {"ready": True}}).ok()
    assert "condition met" in run(
        "wait", "--for=jsonpath={.status.ready}=true", "wdg/x", "--timeout=10s", *place
    )
    assert "deleted" in run("delete", "wdg", "x", *place)
    run("wait", "--for=delete", "wdg/x", "--timeout=10s", *place)


@page(pages.KUBECTL + "kubectl_describe/")
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


@page(pages.KUBECTL + "kubectl_explain/")
def test_explain(run: Kubectl, widgets: Widgets) -> None:
    text = run("explain", "widgets.spec", "--recursive")
    assert "KIND:       Widget" in text
    assert "size\t<integer> -required-" in text


@page(pages.KUBECTL + "kubectl_api-resources/")
def test_api_resources_and_versions(run: Kubectl, widgets: Widgets) -> None:
    resources = run("api-resources", "--api-group=conformance.kumulus.dev")
    assert "wdg" in resources
    assert "conformance.kumulus.dev/v1" in run("api-versions").split()


@page(pages.KUBECTL + "kubectl_create/")
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


@page(pages.KUBECTL + "kubectl_apply/")
def test_refusals_name_the_field(run: Kubectl, widgets: Widgets) -> None:
    wire = widgets.make("x", {"size": 99}, namespace=widgets.namespace)
    assert "spec.size: Invalid value: 99" in run.refused("apply", wire)
    wire["spec"] = {"size": 1, "colour": "red"}
    assert 'unknown field "spec.colour"' in run.refused("apply", wire)


@page(pages.KUBECTL + "kubectl_get/")
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


# Server-side apply: https://kubernetes.io/docs/reference/using-api/server-side-apply/


@page(pages.APPLY, "conflicts")
def test_server_side_apply_conflicts_and_force(run: Kubectl, widgets: Widgets) -> None:
    ssa = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in run(*ssa, "--field-manager=one", stdin=_manifest(widgets, 2))
    refused = run.run(*ssa, "--field-manager=two", stdin=_manifest(widgets, 3))
    assert refused.returncode != 0
    assert 'conflict with "one": .spec.size' in refused.stderr
    forced = (*ssa, "--field-manager=two", "--force-conflicts")
    assert "serverside-applied" in run(*forced, stdin=_manifest(widgets, 3))
    shown = run(
        "get", "wdg", "x", "-n", widgets.namespace, "--show-managed-fields",
        "-o", "jsonpath={.metadata.managedFields[*].manager}",
    )  # fmt: skip
    assert "two" in shown.split()
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 3


@page(pages.APPLY, "upgrading-from-client-side-apply-to-server-side-apply")
def test_server_side_apply_goes_on_from_client_side_apply(run: Kubectl, widgets: Widgets) -> None:
    run("apply", "-f", "-", stdin=_manifest(widgets, 2))
    assert "serverside-applied" in run("apply", "--server-side", "-f", "-",
                                       stdin=_manifest(widgets, 3))  # fmt: skip
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 3


@page(pages.KUBECTL + "kubectl_diff/")
def test_server_side_diff(run: Kubectl, widgets: Widgets) -> None:
    run("apply", "--server-side", "-f", "-", stdin=_manifest(widgets, 2))
    done = run.run("diff", "--server-side", "-f", "-", stdin=_manifest(widgets, 4))
    assert done.returncode == 1, done.stderr
    assert "+  size: 4" in done.stdout


# https://kubernetes.io/docs/reference/kubectl/generated/


@page(pages.KUBECTL + "kubectl_replace/")
def test_replace_and_dry_run(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("x", {"size": 2, "name": "old"})
    assert "server dry run" in run(
        "replace", "--dry-run=server", "-f", "-", stdin=_manifest(widgets, 3)
    )
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 2
    assert "replaced" in run("replace", "-f", "-", stdin=_manifest(widgets, 3))
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"] == {"size": 3, "mode": "A"}


@page(pages.PATCHES)
@pytest.mark.parametrize("kind", ["json", "merge"])
def test_patch_types(run: Kubectl, widgets: Widgets, kind: str) -> None:
    widgets.create("x", {"size": 2})
    patch = {
        "json": '[{"op":"replace","path":"/spec/size","value":4}]', "merge": '{"spec":{"size":4}}',
    }[kind]  # fmt: skip
    place = ("-n", widgets.namespace)
    assert "patched" in run("patch", "wdg", "x", f"--type={kind}", "-p", patch, *place)
    assert "no change" in run("patch", "wdg", "x", f"--type={kind}", "-p", patch, *place)
    strategic = run.run("patch", "wdg", "x", "--type=strategic", "-p", "{}", *place)
    assert strategic.returncode != 0


@page(pages.PATCHES, "update-an-object-s-replica-count-using-kubectl-patch-with-subresource")
def test_the_status_alone_is_patched(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("x")
    done = run(
        "patch", "wdg", "x", "--subresource=status", "--type=merge",
        "-p", '{"status":{"ready":true},"spec":{"size":9}}', "-n", widgets.namespace,
    )  # fmt: skip
    assert "patched" in done
    found = widgets.cluster.get(widgets.at("x")).ok()
    assert (found["spec"]["size"], found["status"]) == (1, {"ready": True})


@page(pages.KUBECTL + "kubectl_label/")
def test_labels_are_changed_and_removed(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("x", labels={"a": "1"})
    place = ("-n", widgets.namespace)
    assert run.run("label", "wdg", "x", "a=2", *place).returncode != 0
    assert "labeled" in run("label", "--overwrite", "wdg", "x", "a=2", *place)
    assert "x" in run("get", "wdg", "-l", "a in (2)", "--show-labels", *place)
    assert "unlabeled" in run("label", "wdg", "x", "a-", *place)
    assert "labels" not in widgets.cluster.get(widgets.at("x")).ok()["metadata"]


@page(pages.CASCADE)
@pytest.mark.parametrize(
    ("cascade", "left"), [("background", []), ("foreground", []), ("orphan", ["child"])]
)
def test_delete_cascade(run: Kubectl, widgets: Widgets, cascade: str, left: list[str]) -> None:
    """kubernetes.io/docs: Use Cascading Deletion in a Cluster."""
    owner = widgets.create("owner")
    reference = {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": "owner",
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True,
    }  # fmt: skip
    widgets.create("child", ownerReferences=[reference])
    run("delete", "wdg", "owner", f"--cascade={cascade}", "--timeout=30s", "-n", widgets.namespace)
    eventually(lambda: widgets.names() == left)
    if left:
        child = widgets.cluster.get(widgets.at("child")).ok()
        assert "ownerReferences" not in child["metadata"]


@page(pages.KUBECTL + "kubectl_get/")
def test_get_watches(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("a", {"size": 4})
    process = subprocess.Popen(
        ["kubectl", f"--kubeconfig={run.kubeconfig}", f"--cache-dir={run.cache}", "get", "wdg",
         "-n", widgets.namespace, "-w", "--output-watch-events"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["EVENT", "NAME", "SIZE", "AGE"]
        assert process.stdout.readline().split()[:3] == ["ADDED", "a", "4"]
        widgets.cluster.merge(widgets.at("a"), {"spec": {"size": 5}}).ok()
        assert process.stdout.readline().split()[:3] == ["MODIFIED", "a", "5"]
        widgets.cluster.delete(widgets.at("a")).ok()
        assert process.stdout.readline().split()[:3] == ["DELETED", "a", "5"]
    finally:
        process.kill()
        process.communicate()


@page(pages.KUBECTL + "kubectl_get/")
def test_get_in_chunks_and_wide(run: Kubectl, widgets: Widgets) -> None:
    for number in range(5):
        widgets.create(f"w{number}")
    names = run("get", "wdg", "-n", widgets.namespace, "--chunk-size=2", "-o", "name").split()
    assert [name.rpartition("/")[2] for name in names] == [f"w{n}" for n in range(5)]
    wide = run("get", "wdg", "-n", widgets.namespace, "-o", "wide").splitlines()
    assert len(wide) == 6
    everywhere = run("get", "wdg", "-A", "--no-headers")
    assert widgets.namespace in everywhere
    one = run("get", "wdg", "-n", widgets.namespace, "--field-selector=metadata.name=w3")
    assert [line.split()[0] for line in one.splitlines()] == ["NAME", "w3"]


@page(pages.KUBECTL + "kubectl_explain/")
def test_explain_goes_down_to_a_field(run: Kubectl, widgets: Widgets) -> None:
    text = run("explain", "widgets.spec.list", "--recursive")
    assert "FIELD: list <[]Object>" in text
    assert "k\t<string> -required-" in text
    assert "enum" in run("explain", "widgets.spec.mode").lower()
    old = run("explain", "widgets.spec", "--output=plaintext-openapiv2")
    assert "size" in old


@page(pages.API, "field-validation")
def test_validation_is_asked_of_the_server(run: Kubectl, widgets: Widgets) -> None:
    wire = widgets.make("x", {"size": 1, "colour": "red"}, namespace=widgets.namespace)
    manifest = yaml.safe_dump(wire)
    done = run.run("create", "--validate=warn", "-f", "-", stdin=manifest)
    assert done.returncode == 0, done.stderr
    assert 'unknown field "spec.colour"' in done.stderr
    assert "created" in done.stdout


@page(pages.AUTHORIZATION, "checking-api-access")
def test_auth_can_i(run: Kubectl, widgets: Widgets) -> None:
    """kubernetes.io/docs: Authorization, checking API access."""
    place = ("-n", widgets.namespace)
    assert run("auth", "can-i", "create", "widgets", *place).strip() == "yes"


@page(pages.AUTHORIZATION, "checking-api-access")
def test_auth_can_i_list(run: Kubectl, widgets: Widgets) -> None:
    served = widgets.cluster.get("/apis/authorization.k8s.io/v1").json.get("resources", [])
    if "selfsubjectrulesreviews" not in {resource["name"] for resource in served}:
        pytest.skip("this cluster does not review rules")
    shown = run("auth", "can-i", "--list", "-n", widgets.namespace)
    assert shown.startswith("Resources")
    assert "*.*" in shown


@page(pages.KUBECTL + "kubectl_completion/")
def test_completion_finds_names_and_kinds(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("somewhat")
    names = run("__complete", "get", "wdg", "-n", widgets.namespace, "some")
    assert names.splitlines()[0].split("\t")[0] == "somewhat"
    kinds = run("__complete", "get", "widg")
    assert "widgets.conformance.kumulus.dev" in kinds


@page(pages.KUBECTL + "kubectl_wait/")
def test_a_wait_ends_in_time(run: Kubectl, widgets: Widgets) -> None:
    widgets.create("x")
    started = time.monotonic()
    done = run.run(
        "wait", "--for=jsonpath={.status.ready}=true", "wdg/x", "--timeout=1s",
        "-n", widgets.namespace,
    )  # fmt: skip
    assert done.returncode == 1
    assert "timed out" in done.stderr
    assert time.monotonic() - started >= 1
