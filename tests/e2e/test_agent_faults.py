"""An agent that is slow, fails, hangs, dies, loses callbacks or repeats them: same end state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cloud import HOSTS, Cloud, vm_manifest, wait_for

pytestmark = pytest.mark.slow
ACTIONS = ["volume.create", "network.ensure", "vm.start", "vm.destroy", "volume.delete"]


@pytest.fixture(scope="module")
def empty(site: Cloud) -> Cloud:
    """The site without VMs."""
    site.kubectl("delete", "vm", "--all", "--timeout=60s")
    return site


@pytest.fixture
def chaotic(empty: Cloud) -> Any:
    """A function that makes each host misbehave; undone afterwards."""

    def chaos(**fault: Any) -> None:
        for host in HOSTS:
            empty.agent(host, "chaos", body={"faults": [fault]})

    yield chaos
    if empty.processes["agents"].poll() is not None:  # a test failed with its agents dead
        del empty.processes["agents"]
        empty.start_agents()
    for host in HOSTS:
        empty.agent(host, "chaos", body={"faults": []})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "fault",
    [
        {"effect": "slow", "seconds": 1.0},
        {"effect": "lose-callback"},
        {"effect": "duplicate-callback"},
        {"effect": "error", "times": 1, "code": "unreachable"},
    ],
    ids=lambda fault: fault["effect"],
)
def test_it_ends_the_same(empty: Cloud, chaotic: Any, action: str, fault: dict[str, Any]) -> None:
    before = sorted(empty.ledger_rows())
    chaotic(actions=[action], **fault)
    _live_and_die(empty)
    assert sorted(empty.ledger_rows()) == before


@pytest.mark.parametrize("effect", ["die", "die-after"])
@pytest.mark.parametrize("action", ["vm.start", "volume.create", "vm.destroy"])
def test_the_agent_dies_in_the_middle(empty: Cloud, chaotic: Any, action: str, effect: str) -> None:
    """It comes back and the VM ends where it was to be: a restart is no reason to move."""
    before = sorted(empty.ledger_rows())
    fault = {"actions": [action], "effect": effect, "nth": 1}
    empty.agent("host-1", "chaos", body={"faults": [fault]})
    empty.apply(vm_manifest("victim", placement={"hostRef": {"name": "host-1"}}))
    if action == "vm.destroy":
        empty.wait_state("VirtualMachine", "victim", "Running")
        empty.kubectl("delete", "vm", "victim", "--wait=false")
    _restart_dead_agents(empty)
    if action != "vm.destroy":
        vm = empty.wait_state("VirtualMachine", "victim", "Running")
        assert vm["status"]["hostRef"]["name"] == "host-1"
        empty.kubectl("delete", "vm", "victim", "--wait=false")
    empty.wait_gone("VirtualMachine", "victim")
    _nothing_left(empty)
    assert sorted(empty.ledger_rows()) == before


def test_a_start_that_fails_is_undone_and_tried_elsewhere(empty: Cloud, chaotic: Any) -> None:
    """One host fails every start: the VM comes up on another, and the first keeps nothing."""
    before = sorted(empty.ledger_rows())
    empty.agent("host-1", "chaos", body={"faults": [
        {"actions": ["vm.start"], "effect": "error", "message": "no such CPU"}]})  # fmt: skip
    empty.apply(vm_manifest("picky"))
    vm = empty.wait_state("VirtualMachine", "picky", "Running")
    assert vm["status"]["hostRef"]["name"] != "host-1"
    assert empty.inventory(["host-1"])["volumes"] == []
    assert "no such CPU" in empty.kubectl("describe", "vm", "picky")
    empty.kubectl("delete", "vm", "picky", "--timeout=60s")
    assert sorted(empty.ledger_rows()) == before


def test_a_start_that_hangs_is_given_up_and_tried_elsewhere(empty: Cloud, chaotic: Any) -> None:
    before = sorted(empty.ledger_rows())
    empty.stop("agents")
    empty.start_agents("--timeout", "vm.start=2")
    empty.agent("host-1", "chaos", body={"faults": [{"actions": ["vm.start"], "effect": "hang"}]})
    empty.apply(vm_manifest("patient"))
    vm = empty.wait_state("VirtualMachine", "patient", "Running")
    assert vm["status"]["hostRef"]["name"] != "host-1"
    left = empty.inventory(["host-1"])
    assert left["vms"] == left["volumes"] == left["dhcp"] == []
    empty.kubectl("delete", "vm", "patient", "--timeout=60s")
    assert sorted(empty.ledger_rows()) == before


def test_when_no_host_can_start_it_the_vm_says_why(empty: Cloud, chaotic: Any) -> None:
    before = sorted(empty.ledger_rows())
    chaotic(actions=["vm.start"], effect="error", message="no such CPU")
    empty.apply(vm_manifest("doomed"))

    def stalled() -> bool:
        found = empty.get("VirtualMachine", "doomed") or {}
        conditions = {c["type"]: c for c in found["status"]["conditions"]}
        return conditions["Stalled"]["status"] == "True" and all(
            f"{host}" in conditions["Ready"]["message"] for host in HOSTS
        )

    wait_for("the VM to be Stalled naming each host", stalled, seconds=60)
    left = empty.inventory()
    assert left["vms"] == left["volumes"] == left["dhcp"] == []
    empty.kubectl("delete", "vm", "doomed", "--timeout=60s")
    assert sorted(empty.ledger_rows()) == before


def _live_and_die(cloud: Cloud) -> None:
    cloud.apply(vm_manifest("subject"))
    vm = cloud.wait_state("VirtualMachine", "subject", "Running")
    there = cloud.inventory()
    assert there["vms"] == [vm["metadata"]["uid"]]
    assert len(there["volumes"]) == len(there["dhcp"]) == 1
    cloud.kubectl("delete", "vm", "subject", "--timeout=60s")
    _nothing_left(cloud)


def _nothing_left(cloud: Cloud) -> None:
    left = cloud.inventory()
    assert left["vms"] == left["volumes"] == left["taps"] == left["dhcp"] == []


def _restart_dead_agents(cloud: Cloud) -> None:
    process = cloud.processes["agents"]
    wait_for("the agents to die", lambda: process.poll() is not None)
    del cloud.processes["agents"]
    cloud.start_agents()
