"""Clusters with our CRDs: the upstream server, and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.apiserver import embedded_cluster
from tests.support.kubectl import Kubectl
from tests.support.reference import reference_cluster

ROOT = Path(__file__).resolve().parents[3]


def _embedded() -> AbstractContextManager[Path]:
    """Our own API server, with the admission of our kinds."""
    return embedded_cluster(judge=True)


CLUSTERS: dict[str, Callable[[], AbstractContextManager[Path]]] = {
    "reference": reference_cluster,
    "embedded": _embedded,
}


@pytest.fixture(scope="session", params=sorted(CLUSTERS))
def kubectl(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    """kubectl on a cluster that has our CRDs and nothing else."""
    with CLUSTERS[request.param]() as kubeconfig:
        found = Kubectl(kubeconfig, tmp_path_factory.mktemp("kubectl-cache"))
        manifests = str(ROOT / "crds" / "manifests")
        found("apply", "-f", manifests)
        found("wait", "--for=condition=Established", "--timeout=30s", "-f", manifests)
        yield found
