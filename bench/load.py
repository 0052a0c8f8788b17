"""Creates virtual machines, many at a time, and waits by one watch until they run or are gone."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench.cloud import Cloud
from controller.up.kube import collection
from crds import kinds

CONNECTIONS = 32
WAIT_SECONDS = 300.0
WRITES = {"CREATE", "UPDATE", "PATCH", "DELETE"}
MACHINES = collection(kinds()["VirtualMachine"], "default")


class Load:
    """Requests of a measurement, over connections of their own."""

    def __init__(self, cloud: Cloud, session: aiohttp.ClientSession) -> None:
        self.cloud, self.session = cloud, session

    async def start(self, names: list[str]) -> float:
        """Create the machines; seconds from the first request until the last one runs."""
        version = await self._version()
        began = time.perf_counter()
        running = asyncio.create_task(self._seen(set(names), version, _is_running))
        await self._each(names, self._create)
        await asyncio.wait_for(running, WAIT_SECONDS)
        return time.perf_counter() - began

    async def delete(self, names: list[str]) -> float:
        """Delete the machines; seconds until the last one is gone."""
        version = await self._version()
        began = time.perf_counter()
        gone = asyncio.create_task(self._seen(set(names), version, _is_gone))
        await self._each(names, self._delete)
        await asyncio.wait_for(gone, WAIT_SECONDS)
        return time.perf_counter() - began

    async def writes(self) -> float:
        """Write requests that the API server has answered so far."""
        async with self.session.get(f"{self.cloud.server}/metrics") as response:
            text = await response.text()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.endswith("requests_total")
            and sample.labels.get("method", sample.labels.get("verb", "")).upper() in WRITES
        )

    async def _create(self, name: str) -> None:
        manifest = copy.deepcopy(self.cloud.machine)
        manifest["metadata"] = {"name": name, "namespace": "default"}
        url = f"{self.cloud.server}{MACHINES}"
        async with self.session.post(url, json=manifest) as response:
            assert response.status == 201, await response.text()

    async def _delete(self, name: str) -> None:
        async with self.session.delete(f"{self.cloud.server}{MACHINES}/{name}") as response:
            assert response.status in (200, 202), await response.text()

    async def _each(self, names: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
        queue = list(reversed(list(names)))

        async def worker() -> None:
            while queue:
                await work(queue.pop())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(worker())

    async def _version(self) -> str:
        url = f"{self.cloud.server}{MACHINES}?limit=1"
        async with self.session.get(url) as response:
            return str((await response.json())["metadata"]["resourceVersion"])

    async def _seen(
        self, names: set[str], version: str, wanted: Callable[[dict[str, Any]], bool]
    ) -> None:
        async for event in self._watch(version):
            if wanted(event):
                names.discard(event["object"]["metadata"]["name"])
                if not names:
                    return

    async def _watch(self, version: str) -> AsyncIterator[dict[str, Any]]:
        url = f"{self.cloud.server}{MACHINES}?watch=true&resourceVersion={version}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with self.session.get(url, timeout=timeout) as response:
            async for line in response.content:
                yield json.loads(line)


def _is_running(event: dict[str, Any]) -> bool:
    return bool((event["object"].get("status") or {}).get("state") == "Running")


def _is_gone(event: dict[str, Any]) -> bool:
    return bool(event["type"] == "DELETED")


def session(cloud: Cloud) -> aiohttp.ClientSession:
    """Connections to the API server; for use as a context manager."""
    connector = aiohttp.TCPConnector(ssl=cloud.tls, limit=CONNECTIONS + 1)
    return aiohttp.ClientSession(connector=connector, read_bufsize=2**20)
