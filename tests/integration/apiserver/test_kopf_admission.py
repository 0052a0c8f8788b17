"""kopf's own admission server as the webhook: an operator validates and mutates."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.pki import Authority
from tests.conformance.client import Cluster
from tests.conformance.conftest import Widgets
from tests.support.apiserver import ApiServerProcess

OPERATOR = """
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1", host="127.0.0.1",
        certfile={cert!r}, pkeyfile={key!r}, cafile={ca!r},
    )
    settings.admission.managed = "kopf.conformance.kumulus.dev"

@kopf.on.mutate("conformance.kumulus.dev", "v1", "widgets", operation="CREATE")
def label(patch, **_):
    patch.metadata.labels["mutated"] = "yes"

@kopf.on.validate("conformance.kumulus.dev", "v1", "widgets")
def small(spec, warnings, operation, **_):
    warnings.append("watched by kopf")
    if operation != "DELETE" and spec["size"] > 5:
        raise kopf.AdmissionError("no more than five", code=422)
"""
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@pytest.fixture
def operator(api_server: ApiServerProcess, widgets: Widgets, tmp_path: Path) -> Iterator[None]:
    authority = Authority.create(tmp_path / "pki")
    pair = authority.issue(
        tmp_path / "pki", "hook", common_name="hook", ips=("127.0.0.1",), server=True
    )
    module = tmp_path / "operator.py"
    module.write_text(OPERATOR.format(cert=str(pair.cert), key=str(pair.key), ca=str(authority.ca)))
    log = (tmp_path / "operator.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "kopf", "run", "--standalone", "--all-namespaces", str(module)],
        env={**os.environ, "KUBECONFIG": str(api_server.kubeconfig)},
        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        _await_configuration(widgets.cluster, tmp_path / "operator.log")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _await_configuration(cluster: Cluster, log: Path) -> None:
    deadline = time.monotonic() + 30
    while not any(item.get("webhooks") for item in cluster.get(CONFIGURATIONS).ok()["items"]):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_kopf_mutates_and_validates(operator: None, widgets: Widgets) -> None:
    reply = widgets.cluster.post(widgets.path, widgets.make("x", {"size": 5}))
    assert reply.ok()["metadata"]["labels"] == {"mutated": "yes"}
    assert any("watched by kopf" in warning for warning in reply.warnings)
    refused = widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 6}})
    assert refused.code == 422
    assert "denied the request: no more than five" in refused.message
    widgets.cluster.delete(widgets.at("x")).ok()
