"""An out-of-tree package brings a kind, a tag, a step, an allocator and an observer to a cloud."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.pki import client_context
from tests.support.cloud import vm_manifest
from tests.support.embedded import Cloud, cloud, kubectl, tail, until
from tests.support.plugins import EXAMPLE, install

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """``kumulus up`` where the example is installed, and beside it a plugin that is broken."""
    if kubectl() is None:
        pytest.skip("kubectl is not on the PATH; `make test` fetches one")
    root = tmp_path_factory.mktemp("plugins")
    where = install(root / "site", root)
    _break(root / "site", "kumulus-broken")
    with cloud(root / "data", PYTHONPATH=str(where), KUMULUS_PING_INTERVAL="1") as running:
        done = running.up("--hosts", "2")
        assert done.returncode == 0, done.stdout + done.stderr + tail(running.layout, "controller")
        yield running


def _break(site: Path, name: str) -> None:
    """A distribution whose actuator cannot be imported."""
    folder = site / f"{name.replace('-', '_')}-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (folder / "entry_points.txt").write_text(
        "[kumulus.interface]\n1.0 = x\n\n[kumulus.kinds]\nx = no_such_module\n"
    )


def apply(site: Cloud, *objects: dict[str, Any]) -> None:
    path = site.root / "object.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    done = site.kubectl("apply", "-f", str(path))
    assert done.returncode == 0, done.stderr


def raw(site: Cloud, *what: str) -> dict[str, Any]:
    done = site.kubectl("get", *what, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def reason(obj: dict[str, Any]) -> str:
    conditions = obj.get("status", {}).get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")


def metrics(site: Cloud) -> str:
    port = site.ports["--controller-port"]
    tls = client_context(site.layout.pki / "ca.crt", None)
    with urllib.request.urlopen(
        f"https://127.0.0.1:{port}/metrics", context=tls, timeout=10
    ) as got:
        return str(got.read().decode())


def test_plugins_are_listed_with_what_is_wrong(site: Cloud) -> None:
    done = site.run("plugins", "--json")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert found["kumulus-energy"]["state"] == "Loaded"
    assert found["kumulus-energy"]["version"] == "1.2.0"
    assert found["kumulus-broken"]["state"] == "Broken"
    assert "no_such_module" in found["kumulus-broken"]["message"]
    assert "EnergyBudget" in site.run("plugins").stdout


def test_the_broken_one_is_left_out_and_everything_else_works(site: Cloud) -> None:
    assert "no_such_module" in site.layout.log("controller").read_text()
    assert 'kumulus_plugin_healthy{plugin="kumulus-broken"} 0.0' in metrics(site)
    assert raw(site, "vm", "web-1")["status"]["state"] == "Running"


def test_the_kind_is_served_and_worked_on(site: Cloud) -> None:
    done = site.kubectl("apply", "-f", str(EXAMPLE / "example.yaml"))
    assert done.returncode == 0, done.stderr
    until(lambda: raw(site, "energybudget", "green")["status"]["watts"] == 10, what="the sum")
    assert "EnergyBudget" in site.run("status", "--data-dir", str(site.root)).stdout
    assert "green" in site.run("tree", "--data-dir", str(site.root)).stdout
    bad = site.kubectl("patch", "eb", "green", "--type=merge", "-p", '{"spec":{"watts":-1}}')
    assert bad.returncode != 0 and "spec.watts" in bad.stderr


def test_its_step_holds_a_vm_and_its_allocator_and_observer_work(site: Cloud) -> None:
    offering = {"instanceOfferingRef": {"name": "packed"}}
    apply(site, *(vm_manifest(f"packed-{i}", **offering) for i in range(2)))
    for i in range(2):
        until(
            lambda i=i: raw(site, "vm", f"packed-{i}")["status"]["state"] == "Running",
            what=f"packed-{i} to run",
            seconds=60,
        )
    hosts = {raw(site, "vm", f"packed-{i}")["status"]["hostRef"]["name"] for i in range(2)}
    hosts.add(raw(site, "vm", "web-1")["status"]["hostRef"]["name"])
    assert len(hosts) == 1, "LeastVmPreferred would have spread them"

    site.kubectl("patch", "eb", "green", "--type=merge", "-p", '{"spec":{"watts":30}}')
    apply(site, vm_manifest("patient", systemTags=["energyClass::flexible"], **offering))
    until(lambda: reason(raw(site, "vm", "patient")) == "WaitingForPower", what="it to wait")
    assert raw(site, "vm", "patient")["status"]["workflow"]["step"] == "await-power"
    apply(site, vm_manifest("urgent", systemTags=["energyClass::critical"], **offering))
    until(
        lambda: raw(site, "vm", "urgent")["status"].get("state") == "Running",
        what="the urgent one to run", seconds=60,
    )  # fmt: skip
    site.kubectl("patch", "eb", "green", "--type=merge", "-p", '{"spec":{"watts":400}}')
    until(
        lambda: raw(site, "vm", "patient")["status"].get("state") == "Running",
        what="the patient one to run", seconds=60,
    )  # fmt: skip
    found = re.search(r'kumulus_energy_changes_total\{to="Running"\} (\d+)', metrics(site))
    assert found and int(found[1]) >= 4


def test_its_tag_is_checked_at_the_door(site: Cloud) -> None:
    path = site.root / "bad.json"
    path.write_text(json.dumps(vm_manifest("bad", systemTags=["energyClass::lazy"])))
    done = site.kubectl("apply", "-f", str(path))
    assert done.returncode != 0
    assert "class must be one of flexible, critical" in done.stderr


def test_deleting_the_zone_takes_the_plugins_objects_along(site: Cloud) -> None:
    done = site.kubectl("delete", "zone", "zone-1", "--timeout=120s", seconds=130)
    assert done.returncode == 0, done.stderr
    assert raw(site, "energybudget")["items"] == []
