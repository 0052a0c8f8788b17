"""A manifest becomes a running VM, and everything that a user does with it afterwards."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from tests.support.cloud import Cloud, condition, quickstart, vm_manifest, wait_for

pytestmark = pytest.mark.slow


def test_the_quickstart_becomes_ready(site: Cloud) -> None:
    vm = site.get("VirtualMachine", "web-1")
    assert vm is not None
    host, address = vm["status"]["hostRef"]["name"], vm["status"]["ip"]
    assert site.agent(host, "ping")["vms"] == {vm["metadata"]["uid"]: "Running"}
    assert re.fullmatch(r"10\.77\.0\.\d+", address)
    for doc in quickstart():
        site.kubectl("wait", "--for=condition=Ready", "--timeout=30s",
                     f"{doc['kind']}.kumulus.dev/{doc['metadata']['name']}")  # fmt: skip


def test_kubectl_shows_what_a_person_wants_to_know(site: Cloud) -> None:
    header, *rows = site.kubectl("get", "host").splitlines()
    assert header.split() == ["NAME", "STATE", "STATUS", "CLUSTER", "CPU", "MEMORY", "AGE"]
    assert rows[0].split()[:4] == ["host-1", "Enabled", "Connected", "cluster-1"]
    header, row = site.kubectl("get", "vm").splitlines()
    assert header.split() == ["NAME", "STATE", "HOST", "IP", "AGE"]
    assert row.split()[:2] == ["web-1", "Running"]
    assert "zone.kumulus.dev/zone-1" in site.kubectl("get", "kumulus", "-o", "name")
    described = site.kubectl("describe", "vm", "web-1")
    assert "Scheduled" in described
    assert "Started" in described


def test_a_bad_manifest_is_refused_at_the_door(site: Cloud) -> None:
    bad = vm_manifest("bad", powerState="Flying")
    answer = site.kubectl("apply", "-f", "-", check=False, stdin=json.dumps(bad))
    assert "spec.powerState" in answer
    assert "Running" in answer
    assert site.get("VirtualMachine", "bad") is None
    assert '"bad"' not in site.log("controller")


def test_what_cannot_change_is_refused_with_the_reason(site: Cloud) -> None:
    change = '{"spec":{"hypervisorType":"KVM"}}'
    answer = site.kubectl(
        "patch", "cluster", "cluster-1", "--type=merge", "-p", change, check=False
    )
    assert "create another cluster" in answer


def test_a_vm_waits_for_its_image_and_goes_on_at_once(site: Cloud) -> None:
    site.apply(vm_manifest("early", imageRef={"name": "later"}))

    def waiting() -> bool:
        found = site.get("VirtualMachine", "early")
        assert found is not None
        ready = condition(found, "Ready")
        return ready["reason"] == "WaitingForDependency" and "later" in ready["message"]

    wait_for("the VM to say what it waits for", waiting)
    image = next(doc for doc in quickstart() if doc["kind"] == "Image")
    site.apply({**image, "metadata": {"name": "later"}})
    site.wait_state("Image", "later", "Ready")

    def started() -> bool:
        return site.state("VirtualMachine", "early") not in ("", "Created")

    # It is woken: everything is looked at anew only every ten minutes.
    wait_for("the VM to go on", started)
    site.wait_state("VirtualMachine", "early", "Running")
    site.kubectl("delete", "vm", "early", "--timeout=30s")
    site.kubectl("delete", "image", "later", "--timeout=30s")


def test_power(site: Cloud) -> None:
    def patch(body: str) -> None:
        site.kubectl("patch", "vm", "web-1", "--type=merge", "-p", body)

    vm = site.wait_state("VirtualMachine", "web-1", "Running")
    uid, host, address = vm["metadata"]["uid"], vm["status"]["hostRef"]["name"], vm["status"]["ip"]
    patch('{"spec":{"powerState":"Paused"}}')
    site.wait_state("VirtualMachine", "web-1", "Paused")
    assert site.agent(host, "ping")["vms"][uid] == "Paused"
    patch('{"spec":{"powerState":"Running"}}')
    site.wait_state("VirtualMachine", "web-1", "Running")
    patch('{"spec":{"powerState":"Stopped"}}')
    stopped = site.wait_state("VirtualMachine", "web-1", "Stopped")
    assert "hostRef" not in stopped["status"]
    assert uid not in site.agent(host, "ping")["vms"]
    patch('{"spec":{"powerState":"Running"}}')
    started = site.wait_state("VirtualMachine", "web-1", "Running")
    assert started["status"]["ip"] == address
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    patch(f'{{"spec":{{"restartedAt":"{now}"}}}}')

    def rebooted() -> bool:
        found = site.get("VirtualMachine", "web-1") or {}
        return found["status"].get("restartedAt") == now

    wait_for("the reboot", rebooted)
    site.wait_state("VirtualMachine", "web-1", "Running")
    assert "Rebooted" in site.kubectl("describe", "vm", "web-1")


def test_disks_nics_and_static_addresses(site: Cloud) -> None:
    site.apply(
        {
            "apiVersion": "kumulus.dev/v1alpha1",
            "kind": "Volume",
            "metadata": {"name": "shared-data", "namespace": "default"},
            "spec": {"size": "1Gi"},
        },
        vm_manifest(
            "db",
            dataDisks=[
                {"name": "wal", "diskOfferingRef": {"name": "disk-10g"}, "deleteWithVm": True},
                {"name": "old", "volumeRef": {"name": "shared-data"}},
            ],
            nics=[
                {"name": "eth0", "l3NetworkRef": {"name": "lan"}, "ip": "10.77.0.200"},
                {"name": "eth1", "l3NetworkRef": {"name": "lan"}},
            ],
            userData="#cloud-config\nhostname: db\n",
        ),
    )
    vm = site.wait_state("VirtualMachine", "db", "Running")
    assert vm["status"]["ip"] == "10.77.0.200"
    assert len({nic["ip"] for nic in vm["status"]["nics"]}) == 2
    assert [disk["device"] for disk in vm["status"]["disks"]] == ["vda", "vdb", "vdc"]
    site.wait_state("Volume", "shared-data", "Ready")

    taken = vm_manifest("thief", nics=[
        {"name": "eth0", "l3NetworkRef": {"name": "lan"}, "ip": "10.77.0.200"}])  # fmt: skip
    site.apply(taken)

    def refused() -> bool:
        found = site.get("VirtualMachine", "thief") or {}
        ready = condition(found, "Ready")
        return ready["status"] == "False" and "10.77.0.200" in ready["message"]

    wait_for("the taken address to be refused", refused)
    site.kubectl("delete", "vm", "thief", "--timeout=30s")

    one_disk = '"dataDisks":[{"name":"old","volumeRef":{"name":"shared-data"}}]'
    one_nic = '"nics":[{"name":"eth0","l3NetworkRef":{"name":"lan"},"ip":"10.77.0.200"}]'
    less = f'{{"spec":{{{one_disk},{one_nic}}}}}'
    site.kubectl("patch", "vm", "db", "--type=merge", "-p", less)

    def changed() -> bool:
        found = site.get("VirtualMachine", "db") or {}
        status = found["status"]
        return len(status["nics"]) == 1 and len(status["disks"]) == 2

    wait_for("the disk and the NIC to be unplugged", changed)
    site.wait_state("VirtualMachine", "db", "Running")

    site.kubectl("delete", "vm", "db", "--timeout=30s")
    assert site.state("Volume", "db-root") == "gone"
    site.wait_state("Volume", "shared-data", "Ready")
    site.kubectl("delete", "volume", "shared-data", "--timeout=30s")


def test_a_lost_host_makes_its_vms_unknown_until_it_returns(site: Cloud) -> None:
    site.wait_state("VirtualMachine", "web-1", "Running")
    site.kill("agents")
    for host in ("host-1", "host-2", "host-3"):
        wait_for(
            f"{host} to be missed",
            lambda host=host: site.get("Host", host)["status"]["status"] == "Disconnected",
            seconds=40,
        )
    wait_for("the VM to be Unknown", lambda: site.state("VirtualMachine", "web-1") == "Unknown")
    site.start_agents()
    site.wait_state("Host", "host-1", "Enabled")
    site.wait_state("VirtualMachine", "web-1", "Running")


def test_a_deleted_hosts_vms_stop(site: Cloud) -> None:
    vm = site.wait_state("VirtualMachine", "web-1", "Running")
    host = vm["status"]["hostRef"]["name"]
    site.kubectl("delete", "host", host, "--timeout=60s")
    wait_for("the VM to stop", lambda: site.state("VirtualMachine", "web-1") == "Stopped")
    assert site.inventory([host])["vms"] == []
    site.apply_quickstart()
    site.wait_state("Host", host, "Enabled")
    site.wait_state("VirtualMachine", "web-1", "Running")


def test_deleting_the_zone_takes_everything_under_it(site: Cloud) -> None:
    site.wait_state("VirtualMachine", "web-1", "Running")
    site.kubectl("delete", "zone", "zone-1", "--timeout=90s")
    for kind in ("Cluster", "Host", "PrimaryStorage", "L2Network", "L3Network", "VirtualMachine",
                 "Volume"):  # fmt: skip
        assert site.list(kind) == [], kind
    left = site.inventory()
    assert {area: found for area, found in left.items() if found and area != "images"} == {}
    assert site.ledger_rows() == []
    assert site.list("Image"), "images outlive zones"
