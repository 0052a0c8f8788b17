"""Tags as a user meets them: given, refused, searched for, and doing what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support.cloud import REPO, Cloud, vm_manifest, wait_for

pytestmark = pytest.mark.slow


def kumulus(site: Cloud, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", *arguments],
        capture_output=True, text=True, timeout=120, check=False, cwd=REPO,
        env={**os.environ, "KUBECONFIG": str(site.layout.kubeconfig)},
    )  # fmt: skip


def test_tags_give_a_vm_its_address_and_its_firmware(site: Cloud) -> None:
    tags = ["staticIp::lan::10.77.0.99", "hostname::frontend", "bootMode::UEFI"]
    site.apply(vm_manifest("tagged", systemTags=tags, tags=[{"name": "important", "color": "red"}]))
    vm = site.wait_state("VirtualMachine", "tagged", "Running")
    assert vm["status"]["ip"] == "10.77.0.99"
    assert vm["status"]["bootMode"] == "UEFI"


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("bootMode::EFI", "mode must be one of UEFI, BIOS"),
        ("statikIp::lan::10.77.0.98", "did you mean staticIp::{l3Network}::{ip}?"),
        ("staticIp::lan::10.78.0.98", "is no host's address in 10.77.0.0/24"),
    ],
)
def test_a_wrong_tag_is_refused_with_the_fix(site: Cloud, tag: str, said: str) -> None:
    bad = vm_manifest("bad", systemTags=[tag])
    answer = site.kubectl("apply", "-f", "-", check=False, stdin=json.dumps(bad))
    assert said in answer and "spec.systemTags[0]" in answer
    assert site.get("VirtualMachine", "bad") is None


def test_tags_are_given_listed_and_searched_for(site: Cloud) -> None:
    assert kumulus(site, "tag", "vm/web-1", "two words", "--color", "blue").returncode == 0
    refused = kumulus(site, "tag", "vm/web-1", "bootMode::EFI")
    assert refused.returncode == 1 and "must be one of UEFI, BIOS" in refused.stderr
    listed = json.loads(kumulus(site, "tags", "--json").stdout)
    used: dict[str, Any] = {each["text"]: each for each in listed["inUse"]}
    assert used["two words"]["objects"] == ["VirtualMachine/web-1"]
    assert used["important"]["color"] == "red"

    def found(*arguments: str) -> set[str]:
        lines = kumulus(site, "status", *arguments).stdout.splitlines()[1:]
        return {line.split()[1] for line in lines if not line.startswith("Nothing")}

    assert found("--tag", "two*") == {"default/web-1"}
    assert found("--tag", "bootMode", "--tag", "important") == {"default/tagged"}
    site.kubectl("label", "host", "host-1", "rack=a")
    assert found("-l", "rack=a") == {"host-1"}
    assert found("-l", "rack=a", "--tag", "important") == set()


def test_a_host_is_selected_by_its_tags(site: Cloud) -> None:
    assert kumulus(site, "tag", "host/host-2", "gpu", "--color", "green").returncode == 0
    placement = {"hostSelector": {"matchTags": ["gpu"]}}
    site.apply(vm_manifest("chosen", placement=placement))
    vm = site.wait_state("VirtualMachine", "chosen", "Running")
    assert vm["status"]["hostRef"]["name"] == "host-2"


def test_an_ephemeral_vm_is_gone_once_it_stops(site: Cloud) -> None:
    site.apply(vm_manifest("brief", systemTags=["ephemeral"]))
    vm = site.wait_state("VirtualMachine", "brief", "Running")
    stop = '{"spec":{"powerState":"Stopped"}}'
    site.kubectl("patch", "vm", "brief", "--type=merge", "-p", stop)
    site.wait_gone("VirtualMachine", "brief")
    site.wait_gone("Volume", "brief-root")
    uid = vm["metadata"]["uid"]
    assert uid not in site.inventory()["vms"]
    assert not [row for row in site.ledger_rows() if uid in row[1]]
    events = json.loads(site.kubectl("get", "events", "-o", "json"))["items"]
    reasons = {e["reason"] for e in events if e["involvedObject"]["name"] == "brief"}
    assert "EphemeralStopped" in reasons


def test_an_ephemeral_vm_whose_controller_dies_at_the_end_is_gone_too(site: Cloud) -> None:
    site.apply(vm_manifest("briefer", systemTags=["ephemeral"]))
    site.wait_state("VirtualMachine", "briefer", "Running")
    site.stop("controller")
    site.start_controller(kill_at="vm-stop:remove-ephemeral:before")
    stop = '{"spec":{"powerState":"Stopped"}}'
    site.kubectl("patch", "vm", "briefer", "--type=merge", "-p", stop)
    site.wait_killed("controller")
    site.start_controller()
    site.wait_gone("VirtualMachine", "briefer")

    def clean() -> bool:
        return site.get("Volume", "briefer-root") is None

    wait_for("its disk to be gone", clean)
