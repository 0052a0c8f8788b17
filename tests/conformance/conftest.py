"""Clusters under test.

``KUMULUS_CONFORMANCE_KUBECONFIG`` names one; without it the embedded server is started, and the
upstream reference server beside it where it is to be found.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.client import Cluster
from tests.support.apiserver import embedded_cluster
from tests.support.kubectl import Kubectl
from tests.support.reference import reference_cluster

HERE = Path(__file__).parent
GIVEN = os.environ.get("KUMULUS_CONFORMANCE_KUBECONFIG", "")
CLUSTERS: dict[str, Callable[[], AbstractContextManager[Path]]] = (
    {"given": lambda: nullcontext(Path(GIVEN))}
    if GIVEN
    else {"embedded": embedded_cluster, "reference": reference_cluster}
)
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_numbers = itertools.count(1)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 10},
                "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
                "port": {"x-kubernetes-int-or-string": True},
                "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "list": {
                    "type": "array",
                    "maxItems": 3,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {
                        "type": "object",
                        "required": ["k"],
                        "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                    },
                },
            },
            "x-kubernetes-validations": [
                {"rule": "!has(self.name) || self.name != 'bad'", "message": "bad name"},
                {
                    "rule": "self.size >= oldSelf.size",
                    "message": "no shrink",
                    "fieldPath": ".size",
                    "reason": "FieldValueForbidden",
                },
            ],
        },
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    },
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each test names what it checks: Kubernetes' word, not ours."""
    if HERE in item.path.parents and not pages.of(item):
        pytest.fail(
            f"{item.name} names no page: give it @page(…) or @kep(…) of tests/conformance/pages.py",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows its page."""
    report = yield
    if report.failed and (found := pages.of(item)):
        report.sections.append(("the page that it checks", found))
    return report


def definition(plural: str, group: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """A CustomResourceDefinition, namespaced, with one version."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {"openAPIV3Schema": schema or SCHEMA},
    }
    kind = plural[:-1].title()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": ["wdg"]},
            "versions": [version],
        },
    }


def eventually(check: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until ``check`` holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


@pytest.fixture(scope="session", params=sorted(CLUSTERS))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with CLUSTERS[request.param]() as kubeconfig:
        found = Cluster(kubeconfig)
        created = found.post(DEFINITIONS, definition("widgets", "conformance.kumulus.dev"))
        assert created.code in (201, 409), created.text
        path = "/apis/conformance.kumulus.dev/v1/widgets"
        eventually(lambda: found.get(path).code == 200)
        yield found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"conformance-{next(_numbers)}"
    cluster.post("/api/v1/namespaces", {"metadata": {"name": name}}).ok()
    yield name
    cluster.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def widgets(cluster: Cluster, namespace: str) -> Widgets:
    return Widgets(cluster, namespace)


@pytest.fixture
def kubectl(cluster: Cluster, tmp_path: Path) -> Kubectl:
    return Kubectl(cluster.kubeconfig, tmp_path)


class Widgets:
    """Custom resources of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.path = f"/apis/conformance.kumulus.dev/v1/namespaces/{namespace}/widgets"

    def make(self, name: str, spec: Any = None, **metadata: Any) -> dict[str, Any]:
        return {
            "apiVersion": "conformance.kumulus.dev/v1",
            "kind": "Widget",
            "metadata": {"name": name, **metadata},
            "spec": {"size": 1} if spec is None else spec,
        }

    def create(self, name: str, spec: Any = None, **metadata: Any) -> dict[str, Any]:
        return self.cluster.post(self.path, self.make(name, spec, **metadata)).ok()

    def at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def names(self, **query: Any) -> list[str]:
        items = self.cluster.get(self.path, **query).ok()["items"]
        return [item["metadata"]["name"] for item in items]
