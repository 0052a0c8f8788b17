"""A cloud for each module: real processes, a real kubectl."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cloud import Cloud


@pytest.fixture(scope="module", autouse=True)
def _kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH; `make test` fetches one")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Empty: definitions applied, controller and simulated agents running."""
    root: Path = tmp_path_factory.mktemp("cloud")
    with Cloud(root, env={"KUMULUS_PING_INTERVAL": "1", "KUMULUS_PING_TIMEOUT": "1"}) as running:
        running.up()
        yield running


@pytest.fixture(scope="module")
def site(cloud: Cloud) -> Cloud:
    """The cloud with the quickstart's zone, hosts, storage, networks and VM, all Ready."""
    cloud.apply_quickstart()
    cloud.wait_state("VirtualMachine", "web-1", "Running")
    return cloud
