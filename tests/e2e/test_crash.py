"""kill -9 of the controller at every step of creating and deleting changes nothing in the end.

The controller kills itself where KUMULUS_KILL_AT says, and is started again. Then there is one
domain, one of each disk, one address, and after the delete nothing at all: neither on the hosts
nor in the ledger.
"""

from __future__ import annotations

from itertools import zip_longest

import pytest

from controller.plugins.catalog import Catalog
from controller.registry import fitted
from tests.support.cloud import Cloud, vm_manifest

pytestmark = pytest.mark.slow


def _points(*flows: str) -> list[str]:
    known = fitted(Catalog())[1]
    return [
        f"{flow}:{step.name}:{when}"
        for flow in flows
        for step in known[flow].steps
        for when in ("before", "after")
    ]


CASES = list(
    zip_longest(_points("vm-create", "volume-create"), _points("vm-destroy", "volume-delete"))
)


@pytest.fixture(scope="module")
def crashing(site: Cloud) -> Cloud:
    """The site without VMs and without a controller."""
    site.kubectl("delete", "vm", "--all", "--timeout=60s")
    site.stop("controller")
    return site


@pytest.mark.parametrize(("create", "delete"), CASES)
def test_killed_at(crashing: Cloud, create: str | None, delete: str | None) -> None:
    cloud = crashing
    before = sorted(cloud.ledger_rows())
    manifest = vm_manifest(
        "crash",
        dataDisks=[{"name": "data", "diskOfferingRef": {"name": "disk-10g"}, "deleteWithVm": True}],
        userData="#cloud-config\n",
    )
    cloud.apply(manifest)
    _die_at(cloud, create)
    # The one that goes on with the creation is the one that dies while it deletes.
    cloud.start_controller(wait=False, kill_at=delete or "")
    vm = cloud.wait_state("VirtualMachine", "crash", "Running")
    there = cloud.inventory()
    volumes = {each["metadata"]["uid"] for each in cloud.list("Volume")}
    assert there["vms"] == [vm["metadata"]["uid"]]
    assert len(volumes) == 2
    assert sorted(there["volumes"]) == sorted(volumes)
    assert len(there["dhcp"]) == 1
    addresses = [row for row in cloud.ledger_rows() if row not in before and "ip/" in row[0]]
    assert len(addresses) == 1

    cloud.kubectl("delete", "vm", "crash", "--wait=false")
    if delete is not None:
        cloud.wait_killed("controller")
        cloud.start_controller(wait=False)
    cloud.wait_gone("VirtualMachine", "crash")
    left = cloud.inventory()
    assert {area: left[area] for area in ("vms", "volumes", "taps", "dhcp")} == {
        "vms": [], "volumes": [], "taps": [], "dhcp": [],
    }  # fmt: skip
    assert sorted(cloud.ledger_rows()) == before
    cloud.stop("controller")


def _die_at(cloud: Cloud, point: str | None) -> None:
    """Run a controller until it kills itself at ``point``."""
    if point is not None:
        cloud.start_controller(wait=False, kill_at=point)
        cloud.wait_killed("controller")
