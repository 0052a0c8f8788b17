"""Replicas that come, go, die and are stopped, while virtual machines come and go.

What the agents' log says is the proof that nothing was done twice, and by nobody whose turn it was
not: each operation ran once; what was done to one object was asked for under ring generations that
never went back; a machine was never on two hosts. KUMULUS_TEST_DISTURBANCES and KUMULUS_TEST_VMS
make it larger (200 and 1000 are the figures to reach).
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.cloud import SUBNET
from controller.up import plan
from tests.support.cloud import Cloud, Object, is_ready, quickstart, vm_manifest, wait_for

pytestmark = pytest.mark.slow

DISTURBANCES = int(os.environ.get("KUMULUS_TEST_DISTURBANCES", "12"))
VMS = int(os.environ.get("KUMULUS_TEST_VMS", "20"))
HOSTS = max(3, VMS // 25)
REPLICAS, MOST = 5, 7
SEED = int(os.environ.get("KUMULUS_TEST_SEED", "1"))
SETTLE = 120 + VMS
PAUSES = (1.0, 3.0, 12.0, 30.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Cloud]:
    """The quickstart without its VM, with room for many, and five replicas."""
    env = {"KUMULUS_PING_INTERVAL": "2", "KUMULUS_PING_TIMEOUT": "2"}
    with Cloud(tmp_path, env=env) as cloud:
        cloud.start_api()
        cloud.grant()
        cloud.apply_definitions()
        cloud.start_agents()
        for number in range(REPLICAS):
            cloud.start_replica(number)
        manifests = plan.with_hosts(quickstart(), HOSTS)
        cloud.apply(*(_with_room(each) for each in manifests if each["kind"] != "VirtualMachine"))
        wait_for("the site", lambda: _all_ready(cloud, "PrimaryStorage", "L3Network", "Image"), 90)
        yield cloud


def test_nothing_is_done_twice_and_nothing_is_lost(site: Cloud) -> None:
    free = sorted(site.ledger_rows())
    storm = Storm(site, random.Random(SEED))
    with ThreadPoolExecutor(1) as pool:
        churn = Churn(site, random.Random(SEED + 1))
        churning = pool.submit(churn.run)
        try:
            storm.run()
        finally:
            churn.stop = True
            churning.result(timeout=120)
    storm.calm()
    print(f"{storm.done}; {churn.made} machines made, {churn.deleted} deleted")

    wait_for("every machine Running", lambda: _all_ready(site, "VirtualMachine"), SETTLE)
    machines = {each["metadata"]["uid"] for each in site.list("VirtualMachine")}
    assert machines
    there = site.inventory([f"host-{number}" for number in range(1, HOSTS + 1)])
    assert Counter(there["vms"]) == Counter(machines), "each once, and no other"
    volumes = {each["metadata"]["uid"]: each["metadata"]["name"] for each in site.list("Volume")}
    assert Counter(there["volumes"]) == Counter(volumes.keys())
    claims = Counter(site.ledger_rows()) - Counter(free)
    assert {_claimant(owner) for _, owner in claims} == machines | set(volumes.values())
    addresses = [owner for scope, owner in claims if scope.startswith("ip/")]
    assert len(addresses) == len(machines), "one each"
    check(site.log("agents"))

    churn.clear()
    kinds = ("VirtualMachine", "Volume")
    wait_for("no machine", lambda: not any(site.list(kind) for kind in kinds), SETTLE)
    assert sorted(site.ledger_rows()) == free
    check(site.log("agents"))


def check(log: str) -> None:
    """What the agents did, in the order in which they were asked."""
    done = sorted(
        (entry for entry in map(json.loads, filter(_is_json, log.splitlines())) if "seq" in entry),
        key=lambda entry: entry["seq"],
    )
    assert done, "the log says nothing"
    succeeded = [entry for entry in done if entry["message"].endswith(" done")]
    ran = Counter((entry["agent"], entry["operation"]) for entry in succeeded)
    twice = {key: count for key, count in ran.items() if count > 1}
    assert not twice, f"executed more than once: {twice}"
    generations: dict[str, int] = defaultdict(int)
    hosts: dict[str, set[str]] = defaultdict(set)
    for entry in done:
        resource = entry["resource"]
        if not entry["action"].startswith(("vm.", "volume.")):
            continue  # of a network or a storage, which the owners of many machines ask for
        assert entry["generation"] >= generations[resource], f"went back: {entry}"
        generations[resource] = entry["generation"]
        if entry["message"] == "vm.start done":
            hosts[resource].add(entry["agent"])
            assert len(hosts[resource]) == 1, f"on two hosts: {entry}"
        elif entry["message"] in ("vm.stop done", "vm.destroy done"):
            hosts[resource].discard(entry["agent"])


@dataclass
class Storm:
    """Joins, leaves, kills and pauses of replicas."""

    cloud: Cloud
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)
    paused: dict[str, float] = field(default_factory=dict)
    next: int = REPLICAS

    def run(self) -> None:
        for _ in range(DISTURBANCES):
            self._disturb()
            end = time.monotonic() + self.rng.choice((0.2, 1.0, 4.0))
            while time.monotonic() < end:
                self._resume()
                time.sleep(0.1)

    def calm(self) -> None:
        """Wait until the ring has just those members that run, each with what it is to have."""
        wait_for("the last pause", lambda: self._resume() or not self.paused, max(PAUSES) + 5)
        wait_for("a quiet ring", self._quiet, 60)

    def _quiet(self) -> bool:
        ring = self.cloud.ring()
        return (
            ring is not None
            and len(ring.members) == len(self._replicas())
            and ring.holders == ring.wanted
        )

    def _disturb(self) -> None:
        able = [name for name in self._replicas() if name not in self.paused]
        choices = ["join"] * (len(able) < MOST) + ["leave", "kill", "pause"] * (len(able) > 2)
        what = self.rng.choice(choices)
        self.done[what] += 1
        if what == "join":
            self.cloud.start_replica(self.next)
            self.next += 1
            return
        victim = self.rng.choice(able)
        if what == "leave":
            self.cloud.stop(victim)
        elif what == "kill":
            self.cloud.kill(victim)
        else:
            self.cloud.processes[victim].send_signal(signal.SIGSTOP)
            self.paused[victim] = time.monotonic() + self.rng.choice(PAUSES)

    def _resume(self) -> None:
        for name in [name for name, end in self.paused.items() if end <= time.monotonic()]:
            self.cloud.processes[name].send_signal(signal.SIGCONT)
            del self.paused[name]

    def _replicas(self) -> list[str]:
        return [name for name in self.cloud.processes if name.startswith("replica-")]


@dataclass
class Churn:
    """Keeps about VMS machines there, always others."""

    cloud: Cloud
    rng: random.Random
    stop: bool = False
    made: int = 0
    deleted: int = 0
    alive: list[str] = field(default_factory=list)

    def run(self) -> None:
        while not self.stop:
            self._make()
            full = len(self.alive) > VMS
            if full or self.rng.random() < 0.25:
                self._delete(self.rng.randrange(len(self.alive)))
            time.sleep(0.2 if full else 0)

    def clear(self) -> None:
        while self.alive:
            self._delete(0)

    def _make(self) -> None:
        name = f"vm-{self.made}"
        self.cloud.send("POST", "VirtualMachine", "", vm_manifest(name))
        self.alive.append(name)
        self.made += 1

    def _delete(self, index: int) -> None:
        self.cloud.send("DELETE", "VirtualMachine", self.alive.pop(index), {})
        self.deleted += 1


def _with_room(manifest: Object) -> Object:
    if manifest["kind"] != "L3Network":
        return manifest
    return {**manifest, "spec": {"l2NetworkRef": manifest["spec"]["l2NetworkRef"], **SUBNET}}


def _all_ready(cloud: Cloud, *kinds: str) -> bool:
    return all((found := cloud.list(kind)) and all(map(is_ready, found)) for kind in kinds)


def _claimant(owner: str) -> str:
    """The uid of the machine, or the name of the volume: ``<uid>/eth0``, ``volume/<ns>/<name>``."""
    parts = owner.split("/")
    return parts[-1] if parts[0] == "volume" else parts[0]


def _is_json(line: str) -> Any:
    return line.startswith("{")
