"""Servers in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.client import Cluster
from tests.conformance.conftest import DEFINITIONS, Widgets, definition
from tests.support.apiserver import ApiServerProcess
from tests.support.apiserver import api_server as running


@pytest.fixture
def api_server() -> Iterator[ApiServerProcess]:
    with running() as server:
        yield server


@pytest.fixture
def widgets(api_server: ApiServerProcess) -> Widgets:
    """A server with one custom kind, in the namespace default."""
    cluster = Cluster(api_server.kubeconfig)
    cluster.post(DEFINITIONS, definition("widgets", "conformance.kumulus.dev")).ok()
    return Widgets(cluster, "default")
