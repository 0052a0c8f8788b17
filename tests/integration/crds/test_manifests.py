"""The generated CRDs and the examples on real API servers: what they take, refuse and show."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from crds import kinds
from tests.support.kubectl import Kubectl

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted(
    path for path in (ROOT / "examples").rglob("*.yaml") if "plugin-energy" not in path.parts
)
"""Those of kinds of our own; tests/e2e/test_plugins.py applies the plugin's."""
Wire = dict[str, Any]


def obj(kind: str, name: str, spec: Wire) -> Wire:
    namespace = {"namespace": "default"} if kinds()[kind].INFO.namespaced else {}
    metadata = {"name": name, **namespace}
    return {
        "apiVersion": "kumulus.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def changed(wire: Wire, **spec: Any) -> Wire:
    """A copy with other fields in its spec; None takes a field away."""
    found = copy.deepcopy(wire)
    found["spec"].update(spec)
    found["spec"] = {key: value for key, value in found["spec"].items() if value is not None}
    return found


VM = obj("VirtualMachine", "vm-1", {"imageRef": {"name": "i"}, "cpu": 1, "memory": "1Gi"})
CLUSTER = obj("Cluster", "c-1", {"zoneRef": {"name": "zone-a"}})
VOLUME = obj("Volume", "v-1", {"size": "8Gi"})
L2 = obj("L2Network", "l2-1", {"zoneRef": {"name": "zone-a"}})
L3 = obj("L3Network", "l3-1", {"l2NetworkRef": {"name": "net"}, "cidr": "10.9.0.0/24"})
OFFERING = obj("InstanceOffering", "o-1", {"cpu": 1, "memory": 1073741824})
DISK = {"name": "d", "size": 1}
NIC = {"name": "eth0", "l3NetworkRef": {"name": "net"}}


def test_every_crd_is_established(kubectl: Kubectl) -> None:
    found = kubectl.json("get", "crd")["items"]
    ours = {crd["spec"]["names"]["kind"]: crd for crd in found}
    assert kinds().keys() <= ours.keys()
    for kind in kinds():
        conditions = {c["type"]: c for c in ours[kind]["status"]["conditions"]}
        assert conditions["Established"]["status"] == "True"
        assert "NonStructuralSchema" not in conditions


def test_discovery_knows_short_names_scope_and_category(kubectl: Kubectl) -> None:
    listed = kubectl("api-resources", "--api-group=kumulus.dev", "-o", "wide", "--no-headers")
    lines = {line.split()[0]: line.split() for line in listed.splitlines()}
    for kind, model in kinds().items():
        words = lines[model.INFO.plural]
        assert kind in words
        assert "kumulus" in words[-1]
        assert str(model.INFO.namespaced).lower() in words
        if model.INFO.short_names:
            assert ",".join(model.INFO.short_names) in words


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_taken_and_comes_back(kubectl: Kubectl, path: Path) -> None:
    kubectl("create", "-f", str(path), "--dry-run=server", "--validate=strict")
    for written in yaml.safe_load_all(path.read_text()):
        answer = kubectl.run(
            "create", "-f", "-", "--dry-run=server", "-o", "json", stdin=json.dumps(written)
        )
        taken = json.loads(answer.stdout)
        kept = {key: taken["spec"][key] for key in written["spec"]}
        assert _without_defaults(kept, written["spec"]) == written["spec"]


def _without_defaults(taken: Any, written: Any) -> Any:
    """``taken`` without the fields that the schema added."""
    if isinstance(taken, dict) and isinstance(written, dict):
        return {
            key: _without_defaults(value, written[key])
            for key, value in taken.items()
            if key in written
        }
    if isinstance(taken, list) and isinstance(written, list):
        return [_without_defaults(*pair) for pair in zip(taken, written, strict=True)]
    return taken


def test_the_quick_start_shows_in_kubectl_get(kubectl: Kubectl) -> None:
    folder = str(ROOT / "examples" / "quickstart")
    kubectl("apply", "-f", folder)
    try:
        everything = kubectl("get", "kumulus", "-A")
        for name in ("zone.kumulus.dev/zone-1", "virtualmachine.kumulus.dev/web-1"):
            assert name in everything
        assert {row[0] for row in kubectl.table("hosts")[1:]} == {"host-1", "host-2", "host-3"}
        kubectl("apply", "-f", folder)
    finally:
        kubectl("delete", "-f", folder, "--wait=false")


@pytest.mark.parametrize(
    ("kind", "columns", "wide"),
    [
        ("host", ["STATE", "STATUS", "CLUSTER", "CPU", "MEMORY", "AGE"],
         ["STATE", "STATUS", "CLUSTER", "CPU", "MEMORY", "VMS", "ADDRESS", "HYPERVISOR",
          "VERSION", "AGE"]),
        ("vm", ["STATE", "HOST", "IP", "AGE"],
         ["STATE", "HOST", "IP", "CPU", "MEMORY", "IMAGE", "STEP", "REASON", "AGE"]),
    ],
)  # fmt: skip
def test_columns(kubectl: Kubectl, kind: str, columns: list[str], wide: list[str]) -> None:
    host = obj("Host", "h-1", {"clusterRef": {"name": "c"}, "managementIp": "192.0.2.1"})
    kubectl.apply(host, VM)
    assert kubectl.table(kind)[0] == ["NAME", *columns]
    assert kubectl.table(kind, "-o", "wide")[0] == ["NAME", *wide]


def test_cells_come_from_the_status(kubectl: Kubectl) -> None:
    kubectl.apply(VM)
    ready = {"type": "Ready", "status": "False", "reason": "Starting", "message": "step 3 of 9",
             "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    status = {
        "state": "Starting", "hostRef": {"name": "h-1"}, "ip": "10.9.0.9", "conditions": [ready],
        "workflow": {"name": "vm-create", "runId": "r", "progress": "step 3 of 9"},
    }  # fmt: skip
    kubectl("patch", "vm", "vm-1", "--subresource=status", "--type=merge",
            "-p", json.dumps({"status": status}))  # fmt: skip
    header, row = kubectl.table("vm", "vm-1", "-o", "wide")
    shown = dict(zip(header, row, strict=True))
    assert shown["STATE"] == "Starting"
    assert shown["HOST"] == "h-1"
    assert shown["IP"] == "10.9.0.9"
    assert shown["STEP"] == "step 3 of 9"
    assert shown["REASON"] == "Starting"
    kubectl("wait", "--for=jsonpath={.status.state}=Starting", "vm/vm-1", "--timeout=10s")
    assert kubectl.json("get", "vm", "vm-1")["status"] == status, "no defaults, nothing pruned"


def test_a_quantity_shows_as_it_was_written(kubectl: Kubectl) -> None:
    kubectl.apply(OFFERING)
    header, row = kubectl.table("flavor", "o-1")
    assert dict(zip(header, row, strict=True))["MEMORY"] == "1073741824"


def test_defaults_are_filled_in_and_only_where_they_say_something(kubectl: Kubectl) -> None:
    kubectl.apply(changed(L3, l2NetworkRef={"name": "other"}), obj("Zone", "z-1", {}), VM)
    l3 = kubectl.json("get", "l3", "l3-1")["spec"]
    assert l3["dhcp"] == {"enabled": True, "leaseSeconds": 86400}
    assert l3["mtu"] == 1500
    assert l3["category"] == "Private"
    assert "ranges" not in l3
    zone = kubectl.json("get", "zone", "z-1")["spec"]
    assert zone == {"default": False, "deletionPolicy": "Direct", "state": "Enabled"}
    vm = kubectl.json("get", "vm", "vm-1")["spec"]
    assert vm == VM["spec"] | {"deletionPolicy": "Direct", "powerState": "Running"}


def test_a_zone_needs_no_spec(kubectl: Kubectl) -> None:
    bare = obj("Zone", "z-bare", {})
    del bare["spec"]
    kubectl.apply(bare)
    assert kubectl.json("get", "zone", "z-bare")["spec"]["state"] == "Enabled"


BAD: list[tuple[Wire, str]] = [
    (changed(VM, imageRef=None), "spec.imageRef: Required value"),
    (changed(VM, powerState="On"), 'spec.powerState: Unsupported value: "On"'),
    (changed(VM, cpu=0), "spec.cpu: Invalid value"),
    (changed(VM, cpu="many"), "spec.cpu"),
    (changed(VM, memory="1 GB"), "spec.memory"),
    (changed(VM, memory=-1), "spec.memory"),
    (changed(VM, memory=None), "give an instanceOfferingRef, or both cpu and memory"),
    (changed(VM, instanceOfferingRef={"name": "o"}),
     "cpu and memory come from the instanceOfferingRef; give one or the other"),
    (changed(VM, dataDisks=[DISK, DISK]), "spec.dataDisks[1]: Duplicate value"),
    (changed(VM, dataDisks=[{"name": "d"}]),
     "spec.dataDisks: Invalid value"),
    (changed(VM, dataDisks=[DISK | {"volumeRef": {"name": "v"}}]),
     "each data disk takes one of volumeRef, diskOfferingRef and size"),
    (changed(VM, nics=[NIC | {"ip": "10.0.0.256"}]), "spec.nics[0].ip"),
    (changed(VM, nics=[NIC | {"mac": "01:00:00:00:00:00"}]), "spec.nics[0].mac"),
    (changed(VM, nics=[NIC | {"name": "Eth 0"}]), "spec.nics[0].name"),
    (changed(VM, hostname="x" * 64), "spec.hostname: Too long"),
    (changed(VM, restartedAt="yesterday"), "spec.restartedAt"),
    (changed(VM, imageRef={"name": "An Image"}), "spec.imageRef.name"),
    (changed(L3, cidr="10.9.0.0"), "spec.cidr"),
    (changed(L3, mtu=100), "spec.mtu"),
    (changed(L3, dhcp={"leaseSeconds": 1}), "spec.dhcp.leaseSeconds"),
    (obj("PrimaryStorage", "p", {"zoneRef": {"name": "zone-a"}, "path": "relative"}), "spec.path"),
    (obj("Image", "i", {"backupStorageRef": {"name": "b"}, "url": "ftp://x"}), "spec.url"),
    (obj("Volume", "v", {}), "give a size, a diskOfferingRef or an imageRef"),
    (obj("Zone", "z" * 64, {}), "metadata.name"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "said"), BAD, ids=[said[:50] for _, said in BAD])
def test_a_bad_manifest_is_refused_and_the_field_is_named(
    kubectl: Kubectl, bad: Wire, said: str
) -> None:
    wire = copy.deepcopy(bad)
    wire["metadata"]["name"] = f"bad-{wire['metadata']['name']}"
    answer = kubectl.refused("create", wire)
    assert said in answer
    assert f'"{wire["metadata"]["name"]}" is invalid' in answer, "422 Invalid, not a 500"


FIXED: list[tuple[Wire, Wire, str]] = [
    (CLUSTER, {"zoneRef": {"name": "zone-b"}},
     "spec.zoneRef: Invalid value: {}cannot change: a cluster stays in its zone"),
    (CLUSTER, {"hypervisorType": "Simulator"},
     "spec.hypervisorType: Invalid value: {}cannot change: hosts were added for this"),
    (VM, {"imageRef": {"name": "j"}},
     "spec.imageRef: Invalid value: {}cannot change: the root disk was made from it"),
    (VM, {"rootDisk": {"size": "9Gi"}},
     "spec.rootDisk: Invalid value: {}cannot change: the root disk exists"),
    (L2, {"physicalInterface": "eno1"},
     "spec.physicalInterface: Invalid value: {}cannot change: running VMs use it"),
    (changed(VOLUME, hostRef={"name": "h"}), {"hostRef": None},
     "spec.hostRef: Invalid value: {}cannot change: a local volume cannot move"),
    (changed(VOLUME, hostRef={"name": "h"}), {"hostRef": {"name": "g"}},
     "spec.hostRef: Invalid value: {}cannot change: a local volume cannot move"),
    (VOLUME, {"size": "9Gi"},
     "spec.size: Invalid value: {}cannot change: a volume cannot be resized yet"),
    (VOLUME, {"size": 9000}, "spec.size: Invalid value: {}cannot change: a volume"),
    (OFFERING, {"memory": "2Gi"}, "spec.memory: Invalid value: {}cannot change: VMs were sold"),
    (L3, {"cidr": "10.9.1.0/24"}, "spec.cidr: Invalid value: {}cannot change: VMs have"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "change", "said"), FIXED, ids=[case[2][:40] for case in FIXED])
def test_what_is_fixed_does_not_change(
    kubectl: Kubectl, before: Wire, change: Wire, said: str
) -> None:
    wire = copy.deepcopy(before)
    wire["metadata"]["name"] = "fixed"
    kubectl("delete", wire["kind"], "fixed", "--ignore-not-found")
    kubectl("create", "-f", "-", stdin=json.dumps(wire))
    answer = kubectl.refused("replace", changed(wire, **change))
    field, why = said.split("{}")
    assert field in answer
    assert why in answer
    kubectl("delete", wire["kind"], "fixed")


ALLOWED: list[tuple[Wire, Wire]] = [
    (VOLUME, {"size": "8192Mi"}),
    (VOLUME, {"size": 8589934592}),
    (VOLUME, {"hostRef": {"name": "h"}, "primaryStorageRef": {"name": "p"}}),
    (OFFERING, {"memory": "1Gi", "state": "Disabled"}),
    (CLUSTER, {"state": "Disabled", "description": "in repair"}),
    (VM, {"powerState": "Stopped", "cpu": 2, "memory": "2Gi", "nics": [NIC]}),
    (changed(VM, rootDisk={"size": "8Gi"}), {"rootDisk": {"size": 8589934592}}),
    (L3, {"dns": ["10.9.0.1"], "gateway": "10.9.0.1", "dhcp": {"enabled": False}}),
]


@pytest.mark.parametrize(("before", "change"), ALLOWED)
def test_what_may_change_changes(kubectl: Kubectl, before: Wire, change: Wire) -> None:
    wire = copy.deepcopy(before)
    wire["metadata"]["name"] = "free"
    kubectl("delete", wire["kind"], "free", "--ignore-not-found")
    kubectl("create", "-f", "-", stdin=json.dumps(wire))
    kubectl("replace", "-f", "-", stdin=json.dumps(changed(wire, **change)))
    after = kubectl.json("get", wire["kind"], "free")
    assert after["metadata"]["generation"] == 2
    kubectl("delete", wire["kind"], "free")


def test_explain_says_what_fields_mean(kubectl: Kubectl) -> None:
    said = kubectl("explain", "vm.spec.placement.hostRef")
    assert "Host by name." in said
    assert "Set it to now to reboot a running VM once." in kubectl("explain", "vm.spec")
