"""The judge behind the embedded server's door, as kubectl sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.crds.test_manifests import L3, NIC, VM, changed, obj
from tests.support.apiserver import embedded_cluster
from tests.support.kubectl import Kubectl
from tests.support.reference import ROOT


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with embedded_cluster(judge=True) as kubeconfig:
        found = Kubectl(kubeconfig, tmp_path_factory.mktemp("kubectl-cache"))
        manifests = str(ROOT / "crds" / "manifests")
        found("apply", "-f", manifests)
        found("wait", "--for=condition=Established", "--timeout=30s", "-f", manifests)
        yield found


def named(wire: dict[str, Any], name: str, **spec: Any) -> dict[str, Any]:
    found = changed(wire, **spec)
    found["metadata"]["name"] = name
    return found


def test_an_address_outside_its_network_is_a_422_that_names_the_nic(judged: Kubectl) -> None:
    judged.apply(named(L3, "lan"))
    nic = NIC | {"l3NetworkRef": {"name": "lan"}, "ip": "10.8.0.5"}
    said = judged.refused("create", named(VM, "outside", nics=[nic]))
    assert 'The VirtualMachine "outside" is invalid: spec.nics[0].ip: Invalid value' in said
    assert "10.8.0.5 is no host's address in 10.9.0.0/24 of L3 network lan" in said
    judged.apply(named(VM, "inside", nics=[nic | {"ip": "10.9.0.5"}]))


def test_every_problem_of_a_model_is_told(judged: Kubectl) -> None:
    said = judged.refused(
        "create",
        named(L3, "bad", cidr="10.7.0.1/24", gateway="10.8.0.1",
              ranges=[{"start": "10.7.0.9", "end": "10.7.0.5"}]),
    )  # fmt: skip
    assert "spec.cidr: Invalid value" in said
    assert "10.7.0.1/24 is an address, not a subnet; write 10.7.0.0/24" in said
    assert "spec.ranges[0].end: Invalid value" in said
    assert "spec.gateway: Invalid value" in said


def test_one_zone_is_the_default(judged: Kubectl) -> None:
    judged.apply(obj("Zone", "first", {"default": True}))
    said = judged.refused("create", obj("Zone", "second", {"default": True}))
    assert "spec.default" in said
    assert "zone first is the default already" in said


def test_a_root_disk_in_use_is_not_deleted(judged: Kubectl) -> None:
    root = obj("Volume", "vm-9-root", {"type": "Root", "size": "1Gi"})
    judged.apply(root, named(VM, "vm-9"))
    disk = {"name": "root", "volumeRef": {"name": "vm-9-root"}, "root": True}
    status = {"state": "Running", "disks": [disk]}
    judged("patch", "vm", "vm-9", "--subresource=status", "--type=merge",
           "-p", json.dumps({"status": status}))  # fmt: skip
    done = judged.run("delete", "volume", "vm-9-root", "--wait=false")
    assert done.returncode
    assert "Forbidden" in done.stderr
    assert "the root disk of VirtualMachine default/vm-9" in done.stderr
    judged("delete", "vm", "vm-9")
    judged("delete", "volume", "vm-9-root")
