"""``kumulus audit`` on a whole cloud: it names what is planted, and changes nothing."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.support.cloud import HOSTS, Cloud, vm_manifest, wait_for

pytestmark = pytest.mark.slow
STRAY = "00000000-dead-4000-8000-000000000000"


def _everything(cloud: Cloud) -> tuple[Any, ...]:
    versions = [
        (kind, each["metadata"]["name"], each["metadata"]["resourceVersion"])
        for kind in ("VirtualMachine", "Volume", "Image", "L3Network")
        for each in cloud.list(kind)
    ]
    return sorted(cloud.ledger_rows()), cloud.inventory(), versions


def _used(cloud: Cloud) -> int:
    found: int = (cloud.get("L3Network", "lan") or {})["status"]["usedIps"]
    return found


def _claim(cloud: Cloud, *rows: tuple[str, str, str], undo: bool = False) -> None:
    """Values in the ledger that nobody owns."""
    with sqlite3.connect(cloud.layout.root / "ledger.sqlite", timeout=10) as ledger:
        for scope, value, owner in rows:
            ledger.execute(
                "delete from ledger_values where owner = ?" if undo else
                "insert into ledger_values (scope, value, owner) values (?, ?, ?)",
                (owner,) if undo else (scope, value, owner),
            )  # fmt: skip
    ledger.close()


def _operate(cloud: Cloud, host: str, action: str, resource: str, args: Any) -> None:
    operation = {"id": f"planted.{action}.{resource[:13]}", "action": action, "resource": resource}
    ring = cloud.ring()
    assert ring is not None
    # Of a later generation the agents would obey nobody of this one.
    body = {"ringGeneration": ring.generation, "operations": [{**operation, "args": args}]}
    cloud.agent(host, "operations", body=body, verb="POST")


def _found(report: Any, what: str) -> set[tuple[str, str, str]]:
    return {(each["place"], each["area"], each["item"]) for each in report[what]}


def test_a_cloud_at_rest_is_clean(site: Cloud) -> None:
    # A network counts its addresses a little later.
    wait_for("the count of addresses", lambda: _used(site) == 1)
    before = _everything(site)
    code, report = site.audit()
    assert (code, report["clean"]) == (0, True), report
    assert _everything(site) == before
    table = site.kumulus("audit", "--data-dir", site.layout.root, "--agent-port", site.agent_port)
    assert (table.returncode, table.stdout.strip()) == (0, "Nothing is orphaned.")


def test_every_plant_is_named_in_table_and_json(site: Cloud) -> None:
    site.stop("controller")
    vm = site.get("VirtualMachine", "web-1")
    assert vm is not None
    uid, host = vm["metadata"]["uid"], vm["status"]["hostRef"]["name"]
    other = next(name for name in HOSTS if name != host)
    path = site.list("PrimaryStorage")[0]["spec"]["path"]
    _claim(site, ("mac", "fa:ff:ff:ff:ff:ff", f"{STRAY}/eth0"))
    _operate(site, other, "volume.create", STRAY, {"path": path, "size": 2**20})
    _operate(site, host, "vm.destroy", uid, {})
    wait_for("the plants", lambda: STRAY in site.inventory([other])["volumes"])
    wait_for("the guest's end", lambda: uid not in site.inventory([host])["vms"])
    before = _everything(site)
    code, report = site.audit()
    assert code == 1
    assert _found(report, "orphans") >= {
        ("ledger", "mac", f"{STRAY}/eth0"), (f"host/{other}", "volumes", STRAY),
    }  # fmt: skip
    assert _found(report, "missing") == {(f"host/{host}", "vms", uid)}
    table = site.kumulus("audit", "--data-dir", site.layout.root, "--agent-port", site.agent_port)
    assert table.returncode == 1
    for text in (f"{STRAY}/eth0", f"host/{other}", "does not exist any more", "counts on it"):
        assert text in " ".join(table.stdout.split())
    assert _everything(site) == before
    _claim(site, ("mac", "", f"{STRAY}/eth0"), undo=True)
    _operate(site, other, "volume.delete", STRAY, {"path": path})


def test_agents_that_do_not_answer_are_named_and_not_taken_for_empty(site: Cloud) -> None:
    if "controller" not in site.processes:
        site.start_controller()
    site.wait_state("VirtualMachine", "web-1", "Running")
    wait_for("a clean cloud", lambda: site.audit()[0] == 0)
    site.stop("controller")
    site.kill("agents")
    code, report = site.audit()
    assert (code, report["clean"], report["orphans"], report["missing"]) == (2, False, [], [])
    assert set(report["unasked"]) == {*(f"host/{host}" for host in HOSTS), "store/images"}
    site.start_agents()
    site.start_controller()


SELECTED = [
    ("vm-create", "allocate-host", "after"),
    ("vm-create", "create-volumes", "after"),
    ("vm-create", "start", "rollback"),
    ("vm-stop", "stop", "after"),
    ("vm-start", "start", "before"),
    ("vm-attach-nics", "attach-nics", "after"),
    ("vm-detach-nics", "detach-nics", "after"),
    ("vm-destroy", "destroy", "after"),
]


@pytest.mark.parametrize("point", SELECTED, ids="/".join)
def test_killed_in_a_life_of_all_flows_nothing_leaks(site: Cloud, point: Any) -> None:
    """The controller is killed once, wherever the life passes the point, and started again."""
    if "controller" in site.processes:
        site.stop("controller")
    flow, step, when = point
    if when == "rollback":
        for host in HOSTS:
            fault = {"actions": ["vm.start"], "effect": "error", "times": 1}
            site.agent(host, "chaos", body={"faults": [fault]})
    site.start_controller(kill_at=f"{flow}:{step}:{when}")
    killed = False

    def wait(state: str, also: Any = lambda vm: True) -> None:
        nonlocal killed
        if not killed and _dies(site, state, also):
            killed = True
            site.wait_killed("controller")
            for host in HOSTS:  # else no host is left, and the next try is a minute away
                site.agent(host, "chaos", body={"faults": []})
            site.start_controller()
        wait_for(state, lambda: also(site.wait_state("VirtualMachine", "tour", state)), 60)

    nics = vm_manifest("tour")["spec"]["nics"]
    more = [*nics, {**nics[0], "name": "eth9"}]
    site.apply(vm_manifest("tour"))
    wait("Running")
    site.apply(vm_manifest("tour", nics=more))
    wait("Running", lambda vm: len(vm["status"]["nics"]) == len(more))
    site.apply(vm_manifest("tour"))
    wait("Running", lambda vm: len(vm["status"]["nics"]) == len(nics))
    for power in ("Stopped", "Running"):
        site.apply(vm_manifest("tour", powerState=power))
        wait(power)
    site.kubectl("delete", "vm", "tour", "--wait=false")
    if not killed:
        site.wait_killed("controller")
        site.start_controller()
    site.wait_gone("VirtualMachine", "tour")
    code, report = site.audit()
    assert code == 0, report


def _dies(site: Cloud, state: str, also: Any) -> bool:
    """Does the controller die before the VM is as it is to be?"""

    def ended() -> str | None:
        if site.processes["controller"].poll() is not None:
            return "died"
        found = site.get("VirtualMachine", "tour") or {}
        status, generation = found.get("status", {}), found["metadata"]["generation"]
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" and c["observedGeneration"] == generation
            for c in status.get("conditions", [])
        )
        return "lives" if ready and status.get("state") == state and also(found) else None

    return wait_for(f"{state} or the controller's death", ended, 60) == "died"
