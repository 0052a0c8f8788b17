"""A controller with the chart's rights, and no others, does its whole work; and it uses them all.

The API server's audit log is the witness: a request that was forbidden is a right that somebody
forgot to declare beside the code; a right that nobody used is one too many.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cloud import Cloud, quickstart, vm_manifest
from tests.support.helm import FULLNAME, NAMESPACE, find, render

pytestmark = pytest.mark.slow
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{FULLNAME}"
SELDOM = {
    ("get", "kumulus.dev"): "a single object is read when the watch has lost it, or when a write "
    "finds another version or none: races that cannot be ordered",
}
"""(verb, group) → why the scenario need not use it."""
ROLES = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


@dataclass
class Deployed:
    """A cloud whose controller is the chart's service account."""

    cloud: Cloud
    manifests: list[dict[str, Any]]
    audit: Path = field(init=False)

    def __post_init__(self) -> None:
        self.audit = self.cloud.root / "audit.log"

    def start(self) -> None:
        site = self.cloud
        site.start_api("--audit-log", self.audit)
        site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        site.apply(*(each for each in self.manifests if each["kind"] in ROLES))
        site.apply(*(e for e in self.manifests if e["kind"] == "CustomResourceDefinition"))
        site.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        site.start_agents()
        site.start_controller(
            kubeconfig=self.kubeconfig(), admission="serve", namespace=NAMESPACE,
        )  # fmt: skip
        site.apply(self.webhook())

    def kubeconfig(self) -> Path:
        """With a token of the service account, as a pod has it."""
        token = self.cloud.kubectl("create", "token", FULLNAME, "-n", NAMESPACE).strip()
        config = yaml.safe_load(self.cloud.layout.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        path = self.cloud.root / "account.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def webhook(self) -> dict[str, Any]:
        """The chart's, by an address: the embedded server has no services."""
        found = find(self.manifests, "ValidatingWebhookConfiguration")
        port = self.cloud.controller_port
        found["webhooks"][0]["clientConfig"] = {
            "url": f"https://127.0.0.1:{port}/admission",
            "caBundle": self.cloud.kubectl(
                "config", "view", "--raw", "-o",
                "jsonpath={.clusters[0].cluster.certificate-authority-data}",
            ),
        }  # fmt: skip
        return found

    def requests(self) -> list[dict[str, Any]]:
        """The controller's, from the audit log."""
        events = (json.loads(line) for line in self.audit.read_text().splitlines())
        return [event for event in events if event["user"].get("username") == ACCOUNT]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    root = tmp_path_factory.mktemp("rights")
    manifests = render(root)
    with Cloud(root, env={"KUMULUS_PING_INTERVAL": "1", "KUMULUS_PING_TIMEOUT": "1"}) as cloud:
        found = Deployed(cloud, manifests)
        found.start()
        _live(cloud)
        # A watch is logged when it ends; the server has written all when it has ended.
        cloud.stop("controller")
        cloud.stop("apiserver")
        yield found


def _live(site: Cloud) -> None:
    """Objects of all kinds come, change and go."""
    site.apply_quickstart()
    site.wait_state("VirtualMachine", "web-1", "Running")
    volume = {
        "apiVersion": "kumulus.dev/v1alpha1", "kind": "Volume",
        "metadata": {"name": "data", "namespace": "default"}, "spec": {"size": "1Gi"},
    }  # fmt: skip
    disks = [
        {"name": "wal", "diskOfferingRef": {"name": "disk-10g"}, "deleteWithVm": True},
        {"name": "old", "volumeRef": {"name": "data"}},
    ]
    site.apply(volume, vm_manifest("db", dataDisks=disks))
    site.wait_state("VirtualMachine", "db", "Running")
    for state in ("Stopped", "Running", "Stopped", "Running"):
        patch = json.dumps({"spec": {"powerState": state}})
        site.kubectl("patch", "vm", "web-1", "--type=merge", "-p", patch)
        site.wait_state("VirtualMachine", "web-1", state)
    site.kubectl("delete", "vm", "db", "--timeout=60s")
    _leave_and_return(site)
    site.kubectl("delete", "volume", "data", "--timeout=60s")
    site.kubectl("delete", "zone", "zone-1", "--timeout=90s")
    kinds = {doc["kind"] for doc in quickstart()} - {"Zone"}
    for kind in ("BackupStorage", *sorted(kinds - {"BackupStorage"})):
        site.kubectl("delete", kind.lower(), "--all", "--timeout=60s")
    for kind in kinds:
        assert site.list(kind) == [], kind


def _leave_and_return(site: Cloud) -> None:
    """One VM goes into the trash and comes back, another ends itself."""
    kept = vm_manifest("kept", deletionPolicy="Delay")
    site.apply(kept, vm_manifest("brief", systemTags=["ephemeral"]))
    for name in ("kept", "brief"):
        site.wait_state("VirtualMachine", name, "Running")
    site.kubectl("delete", "vm", "kept", "--timeout=60s")
    (item,) = site.list("TrashItem")
    kept["metadata"]["annotations"] = {"kumulus.dev/recover-from": item["metadata"]["name"]}
    site.apply(kept | {"spec": {**kept["spec"], "deletionPolicy": "Direct"}})
    site.wait_state("VirtualMachine", "kept", "Running")
    site.wait_gone("TrashItem", item["metadata"]["name"])
    patch = json.dumps({"spec": {"powerState": "Stopped"}})
    site.kubectl("patch", "vm", "brief", "--type=merge", "-p", patch)
    site.wait_gone("VirtualMachine", "brief")
    site.kubectl("delete", "vm", "kept", "--timeout=60s")


def test_nothing_that_it_needs_is_missing(deployed: Deployed) -> None:
    requests = deployed.requests()
    assert len(requests) > 100
    refused = [
        f"{event['verb']} {event['requestURI']}"
        for event in requests
        if event["responseStatus"]["code"] in (401, 403)
    ]
    assert refused == [], "declare these rights (RIGHTS) beside the code that uses them"


def test_nothing_that_it_may_is_unused(deployed: Deployed) -> None:
    used = {_use(event["verb"], event["objectRef"]) for event in deployed.requests()
            if "objectRef" in event}  # fmt: skip
    unused = [
        right
        for kind, home in (("ClusterRole", ""), ("Role", NAMESPACE))
        for right in _rights(find(deployed.manifests, kind)["rules"], home)
        if right[:2] not in SELDOM and not any(_covers(right, use) for use in used)
    ]
    assert unused == [], "take these out of the RIGHTS that declare them"


def test_the_exceptions_are_rights(deployed: Deployed) -> None:
    rules = find(deployed.manifests, "ClusterRole")["rules"]
    assert set(SELDOM) <= {right[:2] for right in _rights(rules, "")}


def test_webhooks_were_answered(deployed: Deployed) -> None:
    """The API server logs nothing of them; the judge would have logged its failures."""
    log = deployed.cloud.log("controller")
    assert "not judged" not in log
    assert "Traceback" not in log


def _use(verb: str, ref: dict[str, str]) -> tuple[str, str, str, str, str]:
    """(verb, group, resource, namespace, name)."""
    resource = "/".join(filter(None, (ref["resource"], ref.get("subresource", ""))))
    return verb, ref.get("apiGroup", ""), resource, ref.get("namespace", ""), ref.get("name", "")


def _rights(rules: list[dict[str, Any]], home: str) -> Iterator[tuple[str, str, str, str, str]]:
    """The same of each right, "" for any namespace or name."""
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames", [""]):
                        yield verb, group, resource, home, name


def _covers(right: tuple[str, ...], use: tuple[str, ...]) -> bool:
    return right[:3] == use[:3] and all(
        wanted in ("", given) for wanted, given in zip(right[3:], use[3:], strict=True)
    )
