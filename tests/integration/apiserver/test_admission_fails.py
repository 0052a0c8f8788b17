"""An admission that breaks refuses the write with a word, and leaves the reason in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from controller.apiserver.admission import Request, Violation
from controller.apiserver.app import ApiServerConfig, serve
from controller.client import Api, ApiUnavailable, Resource
from controller.objects import resource_of
from crds.schema import definition
from crds.v1alpha1.zone import Zone

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", False)


async def breaks(_: Request) -> Sequence[Violation]:
    raise RuntimeError("the reason")


async def test_a_judge_that_breaks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = await serve(ApiServerConfig(tmp_path, port=0, synchronous="OFF", admission=breaks))
    api = await Api.connect(tmp_path / "kubeconfig")
    try:
        await api.create(CRDS, "", definition(Zone))
        zones = resource_of(Zone)
        while zones.plural not in await api.served(zones.group, zones.version):
            await asyncio.sleep(0.05)
        body = {"apiVersion": "kumulus.dev/v1alpha1", "kind": "Zone", "metadata": {"name": "z"}}
        with pytest.raises(ApiUnavailable, match="admission failed; the server's log has the"):
            await api.create(zones, "", {**body, "spec": {}})
    finally:
        await api.close()
        await server.close()
    assert "admission failed" in caplog.messages
    assert "RuntimeError: the reason" in caplog.text
