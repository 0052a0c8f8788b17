"""A cloud for a measurement: its own data directory and ports, gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.pki import client_context
from controller.up import apply, plan, state
from controller.up.kube import Kube, listing
from controller.up.layout import Layout
from controller.up.options import LOOPBACK, Options
from controller.up.process import Usage, usage
from controller.up.view import row
from crds import kinds
from tests.support.ports import free_ports

READY_SECONDS = 120.0
SUBNET = {"cidr": "10.64.0.0/16", "gateway": "10.64.0.1"}


@dataclass(frozen=True)
class Cloud:
    """A running cloud with infrastructure and no virtual machine."""

    layout: Layout
    kube: Kube
    server: str
    tls: ssl.SSLContext
    machine: apply.Manifest
    controller_metrics: str
    agents_metrics: str

    def usage(self) -> dict[str, Usage]:
        """What each process has used so far, by its name."""
        found = state.load(self.layout)
        assert found is not None
        return {name: usage(child.pid) for name, child in found.children.items() if child.pid}


@contextlib.contextmanager
def cloud(hosts: int) -> Iterator[Cloud]:
    """Start a cloud, make its infrastructure ready, and take it down in the end."""
    root = Path(tempfile.mkdtemp(prefix="kumulus-bench-"))
    api, agents, controller = free_ports(3)
    options = Options(root, api, agents, controller, hosts, log_level="warning")
    try:
        _kumulus("up", "--no-quickstart", *options.flags())
        kube = Kube(options.layout.kubeconfig)
        machine = _infrastructure(kube, hosts)
        yield Cloud(
            options.layout, kube, options.server,
            client_context(options.layout.pki / "ca.crt", plan.admin_pair(options.layout)),
            machine, f"https://{LOOPBACK}:{controller}/metrics",
            f"https://{LOOPBACK}:{agents}/metrics",
        )  # fmt: skip
    finally:
        _kumulus("down", "--data-dir", str(root))
        shutil.rmtree(root, ignore_errors=True)


def _infrastructure(kube: Kube, hosts: int) -> apply.Manifest:
    """Everything of the quickstart but its VM, with room for many; returns the VM's manifest."""
    manifests = plan.quickstart(hosts)
    for each in manifests:
        if each["kind"] == "L3Network":
            each["spec"] = {"l2NetworkRef": each["spec"]["l2NetworkRef"], **SUBNET}
    machines = [each for each in manifests if each["kind"] == "VirtualMachine"]
    apply.apply_all(kube, [each for each in manifests if each not in machines])
    end = time.monotonic() + READY_SECONDS
    while True:
        waiting = [each for each in map(row, listing(kube, kinds().values())) if not each.ready]
        if not waiting:
            return machines[0]
        if time.monotonic() > end:
            raise SystemExit(f"not ready: {[(each.title, each.note) for each in waiting]}")
        time.sleep(0.2)


def _kumulus(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "controller.cli", *arguments],
        stdout=subprocess.DEVNULL, check=True, timeout=READY_SECONDS,
    )  # fmt: skip
