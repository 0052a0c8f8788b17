"""The upstream API server with the toy kinds on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from controller.client import Api
from tests.integration.toys import toy_api
from tests.support.reference import reference_cluster


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    with reference_cluster() as path:
        yield path


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[Api]:
    async with toy_api(kubeconfig) as found:
        yield found
