"""kill -9 under concurrent writers: nothing that was acknowledged is lost.

``KUMULUS_CRASHES`` is how many rounds to play.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conformance.client import Cluster
from tests.conformance.conftest import DEFINITIONS, Widgets, definition
from tests.support.forked import ForkedApiServer, forked

ROUNDS = int(os.environ.get("KUMULUS_CRASHES", "100"))
WRITERS = 8


class Acknowledged:
    """What the server said it has: a name's last acknowledged size, or None when deleted.

    ``unsure`` are names whose last request got no answer: either outcome is right for them.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int | None] = {}
        self.unsure: set[str] = set()
        self.version = 0
        self.answers = 0


class Writer:
    """Creates, changes and deletes objects of its own, one request after the other."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, prefix: str, dice: random.Random,
        seen: Acknowledged,
    ) -> None:  # fmt: skip
        self._session = session
        self._url = url
        self._prefix = prefix
        self._dice = dice
        self._seen = seen
        self._mine = [n for n, size in seen.sizes.items() if n.startswith(f"{prefix}-") and size]

    async def write(self) -> None:
        number = 0
        while True:
            choice = self._dice.random()
            if choice < 0.45 or not self._mine:
                number += 1
                await self._create(f"{self._prefix}-{self._dice.getrandbits(60):x}-{number}")
            elif choice < 0.75:
                await self._grow(self._dice.choice(self._mine))
            else:
                await self._delete(self._mine.pop(self._dice.randrange(len(self._mine))))

    async def _create(self, name: str) -> None:
        body = {
            "apiVersion": "conformance.kumulus.dev/v1",
            "kind": "Widget",
            "metadata": {"name": name},
            "spec": {"size": 1},
        }
        self._seen.unsure.add(name)
        async with self._session.post(self._url, json=body) as reply:
            found = await reply.json()
            assert reply.status == 201, found
        self._mine.append(name)
        self._acknowledge(name, 1, found)

    async def _grow(self, name: str) -> None:
        size = min((self._seen.sizes[name] or 0) + 1, 10)
        self._seen.unsure.add(name)
        headers = {"Content-Type": "application/merge-patch+json"}
        patch = {"spec": {"size": size}}
        async with self._session.patch(f"{self._url}/{name}", json=patch, headers=headers) as reply:
            found = await reply.json()
            assert reply.status == 200, found
        self._acknowledge(name, size, found)

    async def _delete(self, name: str) -> None:
        self._seen.unsure.add(name)
        async with self._session.delete(f"{self._url}/{name}") as reply:
            assert reply.status == 200, await reply.text()
        self._acknowledge(name, None, None)

    def _acknowledge(self, name: str, size: int | None, found: dict[str, Any] | None) -> None:
        seen = self._seen
        seen.sizes[name] = size
        seen.unsure.discard(name)
        seen.answers += 1
        if found is not None:
            seen.version = max(seen.version, int(found["metadata"]["resourceVersion"]))


async def _storm(server: ForkedApiServer, url: str, dice: random.Random, seen: Acknowledged) -> int:
    """Write from all sides, then kill the server in the middle of it. How many were refused."""
    context = ssl.create_default_context(cafile=str(server.pki / "ca.crt"))
    context.load_cert_chain(server.pki / "admin.crt", server.pki / "admin.key")
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        writers = [
            asyncio.create_task(
                Writer(session, url, f"w{n}", random.Random(dice.random()), seen).write()
            )
            for n in range(WRITERS)
        ]
        await asyncio.sleep(dice.uniform(0.02, 0.25))
        await asyncio.to_thread(server.kill)
        for writer in writers:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
                async with asyncio.timeout(10):
                    await writer
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    return len(seen.unsure)


# A connection that breaks while aiohttp is still sending the request is left to the collector.
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    dice = random.Random(7)
    seen, broken = Acknowledged(), 0
    with forked(tmp_path / "data", "FULL") as server:
        server.start()
        Cluster(server.kubeconfig).post(
            DEFINITIONS, definition("widgets", "conformance.kumulus.dev")
        ).ok()
        for number in range(ROUNDS):
            widgets = Widgets(Cluster(server.kubeconfig), "default")
            before = seen.version
            broken += asyncio.run(_storm(server, server.url + widgets.path, dice, seen))
            server.start()
            _check(Widgets(Cluster(server.kubeconfig), "default"), seen, before, f"last-{number}")
    # The storms were storms, and were cut off in their middle.
    assert seen.answers > ROUNDS * 5
    assert broken > ROUNDS


def _check(widgets: Widgets, seen: Acknowledged, before: int, last: str) -> None:
    found = widgets.cluster.get(widgets.path).ok()
    there = {i["metadata"]["name"]: i["spec"]["size"] for i in found["items"]}
    for name, size in seen.sizes.items():
        if name not in seen.unsure:
            assert there.get(name) == size, name
    assert set(there) <= set(seen.sizes) | seen.unsure
    assert int(found["metadata"]["resourceVersion"]) >= seen.version
    made = widgets.create(last)
    assert int(made["metadata"]["resourceVersion"]) > seen.version
    _check_resume(widgets, there, before, last)
    # From here on the outcome of what was unsure is known.
    for name in seen.unsure:
        seen.sizes[name] = there.get(name)
    seen.unsure.clear()
    widgets.cluster.delete(widgets.at(last)).ok()


def _check_resume(widgets: Widgets, there: dict[str, int], before: int, last: str) -> None:
    """A watch goes on across the crash and ends with the same objects."""
    if not before:
        return
    states: dict[str, int | None] = {}
    version = before
    for event in _events(widgets, before, last):
        assert event["type"] != "ERROR", event
        metadata = event["object"]["metadata"]
        assert int(metadata["resourceVersion"]) > version
        version = int(metadata["resourceVersion"])
        gone = event["type"] == "DELETED"
        states[metadata["name"]] = None if gone else event["object"]["spec"]["size"]
    for name, size in states.items():
        if not name.startswith("last-"):
            assert there.get(name) == size


def _events(widgets: Widgets, since: int, last: str) -> list[Any]:
    """Events since a version, up to the creation of ``last``."""
    connection = widgets.cluster.connection()
    try:
        connection.request("GET", f"{widgets.path}?watch=1&resourceVersion={since}")
        answer, found = connection.getresponse(), []
        while line := answer.readline():
            found.append(json.loads(line))
            if found[-1]["object"].get("metadata", {}).get("name") == last:
                return found
        raise AssertionError("the watch ended early")
    finally:
        connection.close()
