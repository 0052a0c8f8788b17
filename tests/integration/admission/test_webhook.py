"""A user's own cluster asks the controller: the upstream API server's real webhook calls, over TLS
and without a client certificate, as kubectl sees them."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.pki import client_context
from tests.integration.crds.test_manifests import L3, NIC, VM, changed, obj
from tests.support.cloud import CRDS, Cloud, condition, wait_for
from tests.support.reference import reference_cluster

pytestmark = pytest.mark.slow
BAD_RANGE = {"ranges": [{"start": "10.9.0.9", "end": "10.9.0.5"}]}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A controller that is asked, on the upstream API server. No agents: nothing becomes Ready."""
    root: Path = tmp_path_factory.mktemp("admission")
    with reference_cluster() as config, Cloud(root, kubeconfig=config) as running:
        running.kubectl("create", "namespace", "default", check=False)
        running.kubectl("apply", "-f", str(CRDS))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        running.start_controller(admission="on")
        wait_asked(running)
        running.apply(named(L3, "lan"), obj("Zone", "first", {"default": True}))
        yield running


def named(wire: dict[str, Any], name: str, **spec: Any) -> dict[str, Any]:
    found = changed(wire, **spec)
    found["metadata"]["name"] = name
    return found


def outside(name: str = "outside") -> dict[str, Any]:
    nic = NIC | {"l3NetworkRef": {"name": "lan"}, "ip": "10.8.0.5"}
    return named(VM, name, nics=[nic])


def said(cloud: Cloud, verb: str, manifest: dict[str, Any], *more: str) -> str:
    return cloud.kubectl(verb, *more, "-f", "-", stdin=yaml.safe_dump(manifest), check=False)


def wait_asked(cloud: Cloud) -> None:
    """Until the API server asks the controller, and it has all in its store."""

    def probe() -> bool:
        dry = said(cloud, "create", named(L3, "probe", **BAD_RANGE), "--dry-run=server")
        return "denied the request" in dry or "is invalid" in dry

    wait_for("the API server asks the controller", probe)


def reviews(cloud: Cloud) -> float:
    """How many reviews the controller has answered."""
    tls = client_context(cloud.layout.pki / "ca.crt", None)
    connection = HTTPSConnection("127.0.0.1", cloud.controller_port, timeout=10, context=tls)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    counts = [line for line in lines if line.startswith("kumulus_admission_reviews_total")]
    return sum(float(line.rpartition(" ")[2]) for line in counts)


def test_an_address_outside_its_network_is_refused_and_the_nic_named(cloud: Cloud) -> None:
    wait_for("the network in the store", lambda: "10.8.0.5" in said(cloud, "create", outside(),
                                                                   "--dry-run=server"))  # fmt: skip
    answer = said(cloud, "apply", outside())
    assert "spec.nics[0].ip: Invalid value" in answer
    assert "10.8.0.5 is no host's address in 10.9.0.0/24 of L3 network lan" in answer
    assert cloud.get("VirtualMachine", "outside") is None


def test_one_zone_is_the_default(cloud: Cloud) -> None:
    second = obj("Zone", "second", {"default": True})
    answer = said(cloud, "create", second)
    assert "spec.default" in answer
    assert "zone first is the default already; set its spec.default to false first" in answer
    # At once, whatever the watch has brought: a refusal is checked again.
    cloud.kubectl("patch", "zone", "first", "--type=merge", "-p", '{"spec":{"default":false}}')
    cloud.apply(second)
    cloud.kubectl("delete", "zone", "second")
    cloud.kubectl("patch", "zone", "first", "--type=merge", "-p", '{"spec":{"default":true}}')


def test_a_root_disk_in_use_is_not_deleted(cloud: Cloud) -> None:
    cloud.apply(
        obj("Volume", "user-root", {"type": "Root", "size": "1Gi"}),
        named(VM, "user", powerState="Stopped"),
    )
    disk = {"name": "root", "volumeRef": {"name": "user-root"}, "root": True}
    status = json.dumps({"status": {"state": "Stopped", "disks": [disk]}})
    cloud.kubectl("patch", "vm", "user", "--subresource=status", "--type=merge", "-p", status)
    refused = "the root disk of VirtualMachine default/user"
    delete = "delete", "volume", "user-root", "--wait=false"
    wait_for(
        "the VM's status in the store",
        lambda: refused in cloud.kubectl(*delete, "--dry-run=server", check=False),
    )
    answer = cloud.kubectl(*delete, check=False)
    assert "Forbidden" in answer and refused in answer
    found = cloud.get("Volume", "user-root")
    assert found is not None and "deletionTimestamp" not in found["metadata"]


def test_only_changes_of_the_spec_are_asked_about(cloud: Cloud) -> None:
    before = reviews(cloud)
    cloud.kubectl("label", "l3network", "lan", "colour=blue")
    assert reviews(cloud) == before
    cloud.kubectl(
        "patch", "l3network", "lan", "--type=merge", "-p", '{"spec":{"state":"Disabled"}}'
    )
    assert reviews(cloud) == before + 1


def test_without_the_controller_git_goes_on_and_the_object_says_what_is_wrong(
    cloud: Cloud,
) -> None:
    cloud.stop("controller")
    bad = named(
        L3, "wrong", cidr="10.20.0.0/24", ranges=[{"start": "10.20.0.9", "end": "10.20.0.5"}]
    )
    cloud.apply(bad, outside("unasked"))
    harmful = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]
    which = "validatingwebhookconfiguration", "kumulus"
    cloud.kubectl("patch", *which, "--type=json", "-p", json.dumps(harmful))
    cloud.start_controller(admission="on")
    stalled = wait_for(
        "InvalidSpec", lambda: condition(cloud.get("L3Network", "wrong", "") or {}, "Stalled")
    )
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    wait_for("the configuration is mended", lambda: policy(cloud) == "Ignore")


def policy(cloud: Cloud) -> str:
    path = "{.webhooks[0].failurePolicy}"
    return cloud.kubectl("get", "validatingwebhookconfiguration", "kumulus", "-o",
                         f"jsonpath={path}")  # fmt: skip


def test_anybody_may_ask_but_nothing_is_told_in_plain_text(cloud: Cloud) -> None:
    tls = ssl.create_default_context(cafile=str(cloud.layout.pki / "ca.crt"))
    connection = HTTPSConnection("127.0.0.1", cloud.controller_port, timeout=10, context=tls)
    try:
        connection.request("POST", "/admission", b"{}")
        assert connection.getresponse().status == 400
    finally:
        connection.close()


def test_off_leaves_the_configuration_and_remove_takes_it_away(cloud: Cloud) -> None:
    cloud.stop("controller")
    cloud.start_controller()
    wait_for("leading", lambda: "joined the ring" in cloud.log("controller"))
    assert policy(cloud) == "Ignore"
    cloud.apply(outside("unasked-too"))
    cloud.stop("controller")
    cloud.start_controller(admission="remove")
    gone = "get", "validatingwebhookconfiguration", "kumulus", "--ignore-not-found"
    wait_for("it is gone", lambda: cloud.kubectl(*gone) == "")
