"""Virtual machines as the API server keeps them once they run: made up, not started."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any
from uuid import UUID, uuid5

from controller.kinds.vm_model import VM_NAME, VM_UID
from crds.base import API_VERSION, FINALIZER

SPACE = UUID(int=4)
MADE = "2026-01-01T00:00:00Z"
FIRST = int(IPv4Address("10.64.0.16"))
HOSTS = 200


def uid_of(kind: str, number: int) -> str:
    return str(uuid5(SPACE, f"{kind}-{number}"))


def machine(number: int, version: int = 1) -> dict[str, Any]:
    """A VM that runs, with a root disk and a NIC, and what kubectl and the controller leave."""
    name, address = f"vm-{number}", str(IPv4Address(FIRST + number))
    network, host = {"name": "lan"}, {"name": f"host-{number % HOSTS}"}
    nic = {"name": "eth0", "l3NetworkRef": network}
    spec = {
        "powerState": "Running", "instanceOfferingRef": {"name": "small"}, "rootDisk": {},
        "imageRef": {"name": "debian-13"}, "nics": [nic], "placement": {},
    }  # fmt: skip
    status = {
        "state": "Running", "zoneRef": {"name": "zone-1"}, "clusterRef": {"name": "cluster-1"},
        "hostRef": host, "lastHost": host["name"], "primaryStorageRef": {"name": "local"},
        "ip": address, "cpu": 1, "memory": "1Gi", "observedGeneration": 1,
        "nics": [{**nic, "ip": address, "mac": "52:54:00:00:00:01", "device": f"kt{number:x}"}],
        "disks": [{"name": "root", "root": True, "owned": True, "device": "vda",
                   "volumeRef": {"name": f"{name}-root"}}],
        "conditions": conditions(), "lastOperationTime": MADE,
    }  # fmt: skip
    return {
        "apiVersion": API_VERSION, "kind": "VirtualMachine", "spec": spec, "status": status,
        "metadata": meta("VirtualMachine", name, number, version),
    }  # fmt: skip


def volume(number: int, version: int = 1) -> dict[str, Any]:
    """The root disk of a machine()."""
    name, host = f"vm-{number}", {"name": f"host-{number % HOSTS}"}
    owner = {
        "apiVersion": API_VERSION, "kind": "VirtualMachine", "name": name,
        "uid": uid_of("VirtualMachine", number), "controller": True,
    }  # fmt: skip
    made = {VM_NAME: name, VM_UID: owner["uid"]}
    return {
        "apiVersion": API_VERSION, "kind": "Volume",
        "metadata": {
            **meta("Volume", f"{name}-root", number, version),
            "ownerReferences": [owner], "annotations": made,
        },
        "spec": {
            "hostRef": host, "imageRef": {"name": "debian-13"}, "size": "10Gi",
            "primaryStorageRef": {"name": "local"},
        },
        "status": {
            "state": "Ready", "hostRef": host, "vmRef": {"name": name}, "observedGeneration": 1,
            "conditions": conditions(), "lastOperationTime": MADE,
        },
    }  # fmt: skip


def conditions() -> list[dict[str, Any]]:
    return [
        {"type": kind, "status": status, "reason": "Ready", "message": "",
         "observedGeneration": 1, "lastTransitionTime": MADE}
        for kind, status in (("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False"))
    ]  # fmt: skip


def meta(kind: str, name: str, number: int, version: int) -> dict[str, Any]:
    owned: dict[str, Any] = {
        "f:status": {"f:conditions": {}, "f:disks": {}, "f:hostRef": {}, "f:ip": {}, "f:nics": {}}
    }
    return {
        "name": name, "namespace": "default", "uid": uid_of(kind, number),
        "resourceVersion": str(version), "generation": 1, "creationTimestamp": MADE,
        "finalizers": [FINALIZER],
        "managedFields": [
            {"manager": manager, "operation": "Update", "apiVersion": API_VERSION, "time": MADE,
             "fieldsType": "FieldsV1", "fieldsV1": owned}
            for manager in ("kubectl-create", "kumulus")
        ],
    }  # fmt: skip
