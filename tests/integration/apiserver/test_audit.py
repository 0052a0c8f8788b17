"""The audit log, and static tokens."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from controller.apiserver.access.audit import Level
from controller.apiserver.app import ApiServerConfig, serve
from tests.conformance.client import Cluster


async def _with_server(directory: Path, level: Level, talk: Any) -> list[dict[str, Any]]:
    """The audit log of what ``talk`` says to a server."""
    tokens = directory / "tokens.csv"
    tokens.write_text('# who\nsesame,ali,7,"readers,forty"\n')
    config = ApiServerConfig(
        directory, port=0, synchronous="OFF", token_file=tokens,
        audit_log=directory / "audit.log", audit_level=level,
    )  # fmt: skip
    server = await serve(config)
    try:
        await asyncio.to_thread(talk, Cluster(server.kubeconfig))
    finally:
        await server.close()
    lines = (directory / "audit.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _talk(cluster: Cluster) -> None:
    base = "/api/v1/namespaces/default"
    cluster.post(f"{base}/configmaps", {"metadata": {"name": "c"}, "data": {"a": "visible"}}).ok()
    secret = {"metadata": {"name": "s"}, "stringData": {"a": "hidden-value"}}
    cluster.post(f"{base}/secrets", secret).ok()
    made = cluster.post(f"{base}/serviceaccounts/default/token", {"spec": {}}).ok()
    review = {"spec": {"token": made["status"]["token"]}}
    cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", review).ok()
    assert cluster.get(f"{base}/configmaps", _as="bob").code == 403
    assert cluster.bearer("hidden-value", "GET", base).code == 401
    assert cluster.bearer("sesame", "GET", "/api").code == 200


@pytest.mark.parametrize("level", ["Metadata", "Request"])
async def test_the_audit_log(tmp_path: Path, level: Level) -> None:
    events = await _with_server(tmp_path, level, _talk)
    assert [e["responseStatus"]["code"] for e in events] == [201, 201, 201, 201, 403, 401, 200]
    made, secret, _, _, refused, unknown, static = events
    assert made["verb"] == "create"
    assert made["objectRef"]["resource"] == "configmaps"
    assert made["user"]["username"] == "admin"
    assert ("requestObject" in made) == (level == "Request")
    assert "requestObject" not in secret
    assert refused["impersonatedUser"]["username"] == "bob"
    assert unknown["user"] == {}
    assert static["user"] == {"username": "ali", "uid": "7",
                              "groups": ["forty", "readers", "system:authenticated"]}  # fmt: skip
    text = (tmp_path / "audit.log").read_text()
    assert not any(secret in text for secret in ("hidden-value", "sesame", "eyJ", "aGlkZGVu"))
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "pki" / "service-accounts.key").stat().st_mode) == 0o600


async def test_a_watch_that_its_client_ends_is_logged(tmp_path: Path) -> None:
    def look(cluster: Cluster) -> None:
        connection = cluster.connection()
        connection.request("GET", "/api/v1/namespaces?watch=true")
        assert connection.getresponse().readline()
        connection.close()

    (seen,) = await _with_server(tmp_path, "Metadata", look)
    assert (seen["verb"], seen["responseStatus"]["code"]) == ("watch", 200)
    assert seen["objectRef"]["resource"] == "namespaces"
