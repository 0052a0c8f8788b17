"""The toy kinds (``tests.unit.core.fakes``) on a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from controller.client import Api, Resource
from controller.objects import resource_of
from crds.schema import definition
from tests.unit.core.fakes import MODELS

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", False)


@asynccontextmanager
async def toy_api(kubeconfig: Path) -> AsyncIterator[Api]:
    """A client; the toy kinds are served, and empty again afterwards."""
    api = await Api.connect(kubeconfig)
    try:
        await _define(api)
        yield api
        await _empty(api)
    finally:
        await api.close()


async def _define(api: Api) -> None:
    group, version = resource_of(MODELS[0]).group, resource_of(MODELS[0]).version
    wanted = {model.INFO.plural for model in MODELS}
    missing = wanted - await api.served(group, version)
    for model in MODELS:
        if model.INFO.plural in missing:
            await api.create(CRDS, "", definition(model))
    while not wanted <= await api.served(group, version):
        await asyncio.sleep(0.05)


async def _empty(api: Api) -> None:
    for model in MODELS:
        resource = resource_of(model)
        async for page in api.pages(resource):
            for item in page["items"]:
                meta = item["metadata"]
                place = (meta.get("namespace") or "", meta["name"])
                await api.patch(resource, *place, {"metadata": {"finalizers": None}})
                await api.delete(resource, *place, meta["uid"])
