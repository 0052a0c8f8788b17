"""The embedded and the upstream API server, each with the toy kinds on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from controller.client import Api
from tests.integration.toys import toy_api
from tests.support.apiserver import embedded_cluster
from tests.support.reference import reference_cluster


@pytest.fixture(scope="module", params=["embedded", "reference"])
def server(request: pytest.FixtureRequest) -> Iterator[Path]:
    cluster = embedded_cluster() if request.param == "embedded" else reference_cluster()
    with cluster as kubeconfig:
        yield kubeconfig


@pytest.fixture
async def api(server: Path) -> AsyncIterator[Api]:
    async with toy_api(server) as found:
        yield found
