"""The chart renders to what Kubernetes takes, for every way of deploying that it offers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from agents.wire import CONTROLLER, CONTROLLERS
from common.pki import Authority
from controller.admission.registration import webhooks
from controller.cli.pki import issue_controller
from controller.registry import discover
from controller.rights import declared, select
from controller.settings import Settings
from crds import kinds
from tests.conformance.client import Cluster
from tests.support.apiserver import api_server
from tests.support.helm import CHART, FULLNAME, NAMESPACE, HelmFailed, find, helm, render

pytestmark = pytest.mark.slow
PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
DATABASE = {"database": {"existingSecret": "ledger"}}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "replicas": {"replicas": 3, **DATABASE},
    "cert-manager": {
        "replicas": 2, **DATABASE,
        "certificates": {"mode": "certManager", "certManager": {"issuerRef": {"name": "ca"}}},
    },
    "existing": {
        "certificates": {"mode": "existing", "existingSecret": "mine", "caBundle": PEM},
        "persistence": {"existingClaim": "disk"},
    },
    "own authority": {"certificates": {"caSecret": "authority", "caBundle": PEM}},
    "monitored": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "bare": {
        "admission": {"enabled": False}, "crds": {"install": False}, "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "somebody"},
    },
    "all options": {
        "replicas": 2, **DATABASE, "advertiseAddress": "203.0.113.7", "hostNetwork": True,
        "settings": {"ping_interval": 5, "log_style": "text"}, "priorityClassName": "high",
        "env": [{"name": "TZ", "value": "UTC"}], "imagePullSecrets": [{"name": "pull"}],
        "nodeSelector": {"disk": "ssd"}, "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}}, "fullnameOverride": "boss",
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "serviceAccount": {"annotations": {"role": "x"}}, "crds": {"keep": False},
        "rbac": {"extraRules": [{"apiGroups": ["x.y"], "resources": ["z"], "verbs": ["get"]}]},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
        "persistence": {"storageClassName": "fast"},
    },
}  # fmt: skip
for way in WAYS.values():
    way.setdefault("crds", {"install": way == {}})  # they are long, and everywhere the same
FOREIGN = {"Certificate", "ServiceMonitor"}
"""Their schemas come with cert-manager and the Prometheus operator, in no Python package."""
OLDEST, NEWEST = "1.30", "1.37"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with api_server() as server:
        found = Cluster(server.kubeconfig)
        found.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}).ok()
        yield found


def test_helm_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    for name, values in WAYS.items():
        file = tmp_path / "values.json"
        file.write_text(json.dumps(values))
        said = helm("lint", "--strict", CHART, "--values", file, home=tmp_path)
        assert "0 chart(s) failed" in said and "[WARNING]" not in said, name


@pytest.mark.parametrize(
    ("way", "version"), [("all options", OLDEST), *((way, NEWEST) for way in WAYS)]
)
def test_manifests_fit_kubernetes_schemas(way: str, version: str, tmp_path: Path) -> None:
    manifests = render(tmp_path, WAYS[way])
    for each in manifests:
        if each["kind"] not in {"CustomResourceDefinition", *FOREIGN}:
            kubernetes_validate.validate(each, version, strict=True)
    foreign = {each["kind"] for each in manifests} & FOREIGN
    assert foreign == {"cert-manager": {"Certificate"}, "monitored": {"ServiceMonitor"}}.get(
        way, set()
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_embedded_server_takes_what_it_serves(
    way: str, cluster: Cluster, tmp_path: Path
) -> None:
    """The others are pods' and storage's: Deployment, Service, PersistentVolumeClaim, budget."""
    taken = set()
    for each in render(tmp_path, WAYS[way]):
        path = _collection(cluster, each)
        if path is not None:
            query = {"dryRun": "All", "fieldValidation": "Strict"}
            cluster("POST", path, by_url(each), query=query).ok()
            taken.add(each["kind"])
    expected = set() if way == "bare" else set(RIGHTS)
    if WAYS[way].get("certificates") is None:
        expected.add("Secret")
    if WAYS[way]["crds"].get("install", True):
        expected.add("CustomResourceDefinition")
    assert taken == expected


RIGHTS = {
    "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
    "ValidatingWebhookConfiguration",
}  # fmt: skip


def by_url(manifest: dict[str, Any]) -> dict[str, Any]:
    """The embedded server cannot reach a webhook by its service, which another test looks at."""
    for webhook in manifest.get("webhooks", ()):
        del webhook["clientConfig"]["service"]
        webhook["clientConfig"] |= {"url": "https://127.0.0.1/admission"}
    return manifest


def _collection(cluster: Cluster, manifest: dict[str, Any]) -> str | None:
    """Where to create it; None: the server does not serve the kind."""
    version, kind = manifest["apiVersion"], manifest["kind"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    reply = cluster.get(root)
    listed = reply.json["resources"] if reply.code == 200 else []
    found = [r for r in listed if r["kind"] == kind and "/" not in r["name"]]
    if not found:
        return None
    scope = f"/namespaces/{NAMESPACE}" if found[0]["namespaced"] else ""
    return f"{root}{scope}/{found[0]['name']}"


def test_one_controller_has_a_disk_and_several_a_budget(tmp_path: Path) -> None:
    one, several = (render(tmp_path, WAYS[way]) for way in ("plain", "replicas"))
    deployment = find(one, "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    claim = find(one, "PersistentVolumeClaim")["metadata"]["name"]
    volumes = {each["name"]: each for each in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim
    assert not [each for each in one if each["kind"] == "PodDisruptionBudget"]

    deployment = find(several, "Deployment")
    assert deployment["spec"]["replicas"] == 3
    budget = find(several, "PodDisruptionBudget")["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert find(several, "Service")["spec"]["selector"].items() <= labels.items()
    assert not [each for each in several if each["kind"] == "PersistentVolumeClaim"]
    assert _environment(several)["KUMULUS_DATABASE_URL"] == {
        "secretKeyRef": {"name": "ledger", "key": "url"}
    }


@pytest.mark.parametrize("way", WAYS)
def test_pods_are_restricted_and_configured_with_settings_that_exist(
    way: str, tmp_path: Path
) -> None:
    manifests = render(tmp_path, WAYS[way])
    pod = find(manifests, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in pod["volumes"]}
    set_to = {
        name.removeprefix("KUMULUS_").lower(): value
        for name, value in _environment(manifests).items()
        if name.startswith("KUMULUS_")
    }
    assert set(set_to) <= set(Settings.model_fields)
    plain = {name: value for name, value in set_to.items() if isinstance(value, str)}
    Settings.from_env({f"KUMULUS_{name.upper()}": value for name, value in plain.items()})
    (controller,) = pod["containers"]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert controller[probe]["httpGet"]["scheme"] == "HTTPS"
    # The authority's key: in the init container alone.
    assert "ca" not in {mount["name"] for mount in controller["volumeMounts"]}


def _environment(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (container,) = find(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_every_setting_can_be_set(tmp_path: Path) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    listed = set(schema["properties"]["settings"]["propertyNames"]["enum"])
    own = {name.removeprefix("KUMULUS_").lower() for name in _environment(render(tmp_path))}
    elsewhere = {"database_url", "kubeconfig", "context", "kill_at"}
    assert listed | own | elsewhere == set(Settings.model_fields)
    assert not listed & own
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 2}, "database.existingSecret"),
        ({"replicas": 0}, "replicas"),
        ({"settings": {"pingInterval": 5}}, "ping_interval"),
        ({"certificates": {"mode": "certManager"}}, "issuerRef.name"),
        ({"certificates": {"mode": "existing"}}, "certificates.existingSecret"),
        ({"certificates": {"mode": "existing", "existingSecret": "x"}}, "certificates.caBundle"),
        ({"certificates": {"caSecret": "authority"}}, "certificates.caBundle"),
        ({"certificates": {"caBundle": "no PEM"}}, "caBundle"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
        ({"replcas": 1}, "replcas"),
    ],
)
def test_what_cannot_work_is_refused_with_the_option(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(HelmFailed) as caught:
        render(tmp_path, values)
    assert said in str(caught.value)


def test_roles_are_what_the_code_declares(tmp_path: Path) -> None:
    rights = declared(discover(plugins=[]))
    manifests = render(tmp_path)
    assert find(manifests, "Role")["rules"] == select(rights, home=True)
    wanted = select(rights, home=False) + select(rights, home=False, features=("admission",))
    assert find(manifests, "ClusterRole")["rules"] == wanted
    account = {"kind": "ServiceAccount", "name": FULLNAME, "namespace": NAMESPACE}
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        assert find(manifests, kind)["subjects"] == [account]
    without = find(render(tmp_path, {"admission": {"enabled": False}}), "ClusterRole")["rules"]
    assert without == select(rights, home=False)


def test_definitions_and_the_webhook_are_those_of_the_code(tmp_path: Path) -> None:
    manifests = render(tmp_path)
    definitions = [each for each in manifests if each["kind"] == "CustomResourceDefinition"]
    assert {each["spec"]["names"]["kind"] for each in definitions} == set(kinds())
    for each in definitions:
        assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (webhook,) = find(manifests, "ValidatingWebhookConfiguration")["webhooks"]
    config = webhook.pop("clientConfig")
    (wanted,) = webhooks("https://x", b"", kinds().values())
    del wanted["clientConfig"]
    assert webhook == wanted
    assert config["service"] == {
        "name": FULLNAME, "namespace": NAMESPACE, "path": "/admission", "port": 443,
    }  # fmt: skip


def test_controllers_certificates_come_from_the_generated_authority(tmp_path: Path) -> None:
    """What Helm generates is what the init container can use."""
    manifests = render(tmp_path)
    data = find(manifests, "Secret")["data"]
    ca = tmp_path / "ca"
    ca.mkdir()
    for name, value in data.items():
        (ca / name).write_bytes(base64.b64decode(value))
    (webhook,) = find(manifests, "ValidatingWebhookConfiguration")["webhooks"]
    assert webhook["clientConfig"]["caBundle"] == data["ca.crt"]
    (init,) = find(manifests, "Deployment")["spec"]["template"]["spec"]["initContainers"]
    command, names = init["args"][:2], [a for a in init["args"][2:] if not a.startswith("--")]
    assert command == ["pki", "controller"]
    issue_controller(names, tmp_path / "pki", ca)
    service = find(manifests, "Service")["metadata"]
    assert f"{service['name']}.{service['namespace']}.svc" in names
    again = Authority.load(ca).issue(
        tmp_path / "pki", "controller", common_name="kumulus-controller",
        organizations=(CONTROLLERS,), dns=(CONTROLLER, *sorted(names)), server=True, client=True,
    )  # fmt: skip
    # It was kept: so it is from this authority, and says all that.
    assert "controller.crt" in {path.name for path in (tmp_path / "pki").iterdir()}
    assert again.cert.stat().st_mtime_ns == (tmp_path / "pki/controller.crt").stat().st_mtime_ns


def test_an_upgrade_keeps_the_authority(cluster: Cluster, tmp_path: Path) -> None:
    first = find(render(tmp_path), "Secret")
    assert find(render(tmp_path), "Secret")["data"] != first["data"], "each is another"
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    cluster.post(path, first).ok()
    try:
        server = ("--dry-run=server", "--kubeconfig", cluster.kubeconfig)
        second = render(tmp_path, {}, *server)
        assert find(second, "Secret")["data"] == first["data"]
        (webhook,) = find(second, "ValidatingWebhookConfiguration")["webhooks"]
        assert webhook["clientConfig"]["caBundle"] == first["data"]["ca.crt"]
        # Somebody's own authority is read from the cluster, too.
        own = {"certificates": {"caSecret": first["metadata"]["name"]}}
        (webhook,) = find(render(tmp_path, own, *server), "ValidatingWebhookConfiguration")[
            "webhooks"
        ]
        assert webhook["clientConfig"]["caBundle"] == first["data"]["ca.crt"]
    finally:
        cluster("DELETE", f"{path}/{first['metadata']['name']}").ok()


def test_the_generated_files_are_looked_at(tmp_path: Path) -> None:
    from controller.chart import DEFINITIONS, outputs
    from crds.generate import stale, write

    files = outputs()
    write(tmp_path, files, DEFINITIONS)
    assert stale(tmp_path, files, DEFINITIONS) == []
    template = next(path for path in files if path.name == "_generated.tpl")
    (tmp_path / template).write_text("")
    left = tmp_path / DEFINITIONS / "ghosts.yaml"
    left.write_text("")
    assert stale(tmp_path, files, DEFINITIONS) == [left.relative_to(tmp_path), template]
