"""Deletion, on the embedded server and on a user's own cluster that asks the controller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud import REPO, Cloud, wait_for
from tests.support.reference import reference_cluster

pytestmark = pytest.mark.slow
ENV = {"KUMULUS_PING_INTERVAL": "1", "KUMULUS_PING_TIMEOUT": "1"}
KINDS = (
    "Zone", "Cluster", "Host", "PrimaryStorage", "BackupStorage", "Image", "InstanceOffering",
    "DiskOffering", "L2Network", "L3Network", "VirtualMachine", "Volume", "TrashItem",
)  # fmt: skip


@pytest.fixture(scope="module", params=["embedded", "upstream"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Cloud]:
    """The quickstart, running. On upstream's server with the webhook."""
    root: Path = tmp_path_factory.mktemp("cascade")
    with ExitStack() as stack:
        if request.param == "embedded":
            running = stack.enter_context(Cloud(root, env=ENV))
        else:
            config = stack.enter_context(reference_cluster())
            env = {**ENV, "KUMULUS_ADMISSION": "on"}
            running = stack.enter_context(Cloud(root, env=env, kubeconfig=config))
            running.kubectl("create", "namespace", "default", check=False)
        running.up()
        running.apply_quickstart()
        running.wait_state("VirtualMachine", "web-1", "Running")
        if request.param == "upstream":
            asked = "validatingwebhookconfigurations"
            wait_for("the webhook", lambda: "kumulus" in running.kubectl("get", asked), 60)
        yield running


def kumulus(cloud: Cloud, *arguments: str) -> str:
    """Standard output of the command; AssertionError if it fails."""
    config = cloud.kubeconfig or cloud.layout.kubeconfig
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli", *arguments, "--kubeconfig", str(config)],
        capture_output=True, text=True, timeout=60, check=False, cwd=REPO, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def patch(cloud: Cloud, kind: str, name: str, **spec: Any) -> None:
    cloud.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps({"spec": spec}))


def names(cloud: Cloud) -> set[tuple[str, str]]:
    return {(kind, obj["metadata"]["name"]) for kind in KINDS for obj in cloud.list(kind)}


def effects(node: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    yield node["kind"], node["name"], node["effect"]
    for child in node["children"]:
        yield from effects(child)


def test_what_is_protected_is_refused_at_the_door_and_named(cloud: Cloud) -> None:
    patch(cloud, "vm", "web-1", deletionPolicy="Protect")
    before = names(cloud)

    def refused() -> str:
        answer = cloud.kubectl("delete", "zone", "zone-1", "--dry-run=server", check=False)
        return answer if "which goes with Zone zone-1, is protected" in answer else ""

    answer = wait_for("the refusal", refused)
    assert "VirtualMachine default/web-1" in answer and "deletionPolicy" in answer
    answer = cloud.kubectl("delete", "zone", "zone-1", check=False)
    assert "VirtualMachine default/web-1, which goes with Zone zone-1, is protected" in answer
    assert "Refused because of VirtualMachine/default/web-1" in kumulus(
        cloud, "cascade", "preview", "zone/zone-1"
    )
    assert names(cloud) == before
    assert "deletionTimestamp" not in (cloud.get("Zone", "zone-1") or {})["metadata"]


def test_a_vm_is_deleted_and_brought_back(cloud: Cloud) -> None:
    patch(cloud, "vm", "web-1", deletionPolicy="Delay", deletionRetention="1h")
    old, root = cloud.get("VirtualMachine", "web-1"), cloud.get("Volume", "web-1-root")
    assert old is not None and root is not None
    shown = json.loads(kumulus(cloud, "cascade", "preview", "vm/web-1", "-o", "json"))
    assert set(effects(shown)) == {
        ("VirtualMachine", "web-1", "trash"), ("Volume", "web-1-root", "trash"),
    }  # fmt: skip
    cloud.kubectl("delete", "vm", "web-1", "--timeout=60s")
    assert cloud.get("Volume", "web-1-root") is None
    assert cloud.inventory()["volumes"] == [root["metadata"]["uid"]]
    assert cloud.inventory()["vms"] == []
    assert "VirtualMachine/default/web-1" in kumulus(cloud, "recover")
    assert "is being recovered" in kumulus(cloud, "recover", "vm/web-1")
    new = cloud.wait_state("VirtualMachine", "web-1", "Running")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["status"]["ip"] == old["status"]["ip"]
    volume = cloud.get("Volume", "web-1-root")
    assert volume is not None and cloud.inventory()["volumes"] == [volume["metadata"]["uid"]]
    wait_for("the item to go", lambda: not cloud.list("TrashItem"))
    assert "The trash is empty" in kumulus(cloud, "recover")


def test_the_zone_takes_just_what_its_preview_says(cloud: Cloud) -> None:
    patch(cloud, "vm", "web-1", deletionPolicy="Direct")
    shown = json.loads(kumulus(cloud, "cascade", "preview", "zone/zone-1", "-o", "json"))
    assert not shown["refused"]
    before = names(cloud)
    gone = {(kind, name) for kind, name, effect in effects(shown) if effect == "delete"}
    cloud.kubectl("delete", "zone", "zone-1", "--timeout=90s")
    assert before - names(cloud) == gone and names(cloud) <= before
    assert ("Image", "debian-13") not in gone
    left = cloud.inventory()
    assert left["vms"] == left["volumes"] == []
