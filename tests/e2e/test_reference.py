"""The same controllers and examples on a user's own cluster: the upstream Kubernetes libraries,
and MariaDB as the ledger's database where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import mariadb
from tests.support.cloud import Cloud
from tests.support.reference import reference_cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    root: Path = tmp_path_factory.mktemp("reference")
    with ExitStack() as stack:
        config = stack.enter_context(reference_cluster())
        env = {}
        if mariadb.missing() is None:
            database = stack.enter_context(mariadb.mariadb())
            env["KUMULUS_DATABASE_URL"] = database.database("ledger")
        running = stack.enter_context(Cloud(root, env=env, kubeconfig=config))
        running.kubectl("create", "namespace", "default", check=False)
        running.up()
        yield running


def test_the_quickstart_runs_there_too(cloud: Cloud) -> None:
    cloud.apply_quickstart()
    vm = cloud.wait_state("VirtualMachine", "web-1", "Running")
    host = vm["status"]["hostRef"]["name"]
    assert cloud.agent(host, "ping")["vms"] == {vm["metadata"]["uid"]: "Running"}
    cloud.kubectl("patch", "vm", "web-1", "--type=merge", "-p", '{"spec":{"powerState":"Stopped"}}')
    cloud.wait_state("VirtualMachine", "web-1", "Stopped")


def test_the_zone_goes_with_everything(cloud: Cloud) -> None:
    cloud.kubectl("delete", "zone", "zone-1", "--timeout=90s")
    for kind in ("Cluster", "Host", "VirtualMachine", "Volume", "L3Network"):
        assert cloud.list(kind) == [], kind
    assert cloud.inventory()["vms"] == []
