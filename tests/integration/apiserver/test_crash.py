"""kill -9 under concurrent writers: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conformance.client import Cluster
from tests.conformance.conftest import DEFINITIONS, Widgets, definition
from tests.support.apiserver import ApiServerProcess

ROUNDS = 12
WRITERS = 8


class Acknowledged:
    """What the server said it has: a name's last acknowledged size, or None when deleted.

    ``unsure`` are names whose last request got no answer: either outcome is right for them.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int | None] = {}
        self.unsure: set[str] = set()
        self.version = 0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def _write(
    session: aiohttp.ClientSession, url: str, writer: int, dice: random.Random, seen: Acknowledged
) -> None:
    number = max(
        (int(n.split("-")[2]) for n in seen.sizes if n.startswith(f"w-{writer}-")), default=0
    )
    while True:
        mine = [n for n, s in seen.sizes.items() if n.startswith(f"w-{writer}-") and s and s < 9]
        mine = [n for n in mine if n not in seen.unsure]
        choice = dice.random()
        if choice < 0.5 or not mine:
            number += 1
            await _create(session, url, f"w-{writer}-{number}", seen)
        elif choice < 0.8:
            await _grow(session, url, dice.choice(mine), seen)
        else:
            await _delete(session, url, dice.choice(mine), seen)


async def _create(session: aiohttp.ClientSession, url: str, name: str, seen: Acknowledged) -> None:
    body = {
        "apiVersion": "conformance.kumulus.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 1},
    }
    seen.unsure.add(name)
    async with session.post(url, json=body) as reply:
        found = await reply.json()
        assert reply.status == 201, found
    _acknowledge(seen, name, 1, found)


async def _grow(session: aiohttp.ClientSession, url: str, name: str, seen: Acknowledged) -> None:
    size = (seen.sizes[name] or 0) + 1
    seen.unsure.add(name)
    headers = {"Content-Type": "application/merge-patch+json"}
    async with session.patch(f"{url}/{name}", json={"spec": {"size": size}}, headers=headers) as r:
        found = await r.json()
        assert r.status == 200, found
    _acknowledge(seen, name, size, found)


async def _delete(session: aiohttp.ClientSession, url: str, name: str, seen: Acknowledged) -> None:
    seen.unsure.add(name)
    async with session.delete(f"{url}/{name}") as reply:
        assert reply.status == 200, await reply.text()
    _acknowledge(seen, name, None, None)


def _acknowledge(
    seen: Acknowledged, name: str, size: int | None, found: dict[str, Any] | None
) -> None:
    seen.sizes[name] = size
    seen.unsure.discard(name)
    if found is not None:
        seen.version = max(seen.version, int(found["metadata"]["resourceVersion"]))


async def _storm(
    server: ApiServerProcess, url: str, dice: random.Random, seen: Acknowledged
) -> None:
    """Write from all sides, then kill the server in the middle of it."""
    context = ssl.create_default_context(cafile=str(server.pki / "ca.crt"))
    context.load_cert_chain(server.pki / "admin.crt", server.pki / "admin.key")
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        writers = [
            asyncio.create_task(_write(session, url, n, random.Random(dice.random()), seen))
            for n in range(WRITERS)
        ]
        await asyncio.sleep(dice.uniform(0.15, 0.4))
        await asyncio.to_thread(server.kill)
        for writer in writers:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
                async with asyncio.timeout(10):
                    await writer
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)


# A connection that breaks while aiohttp is still sending the request is left to the collector.
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_nothing_acknowledged_is_lost(directory: Path) -> None:
    dice = random.Random(7)
    server = ApiServerProcess(directory, "FULL").start()
    seen = Acknowledged()
    try:
        Cluster(server.kubeconfig).post(
            DEFINITIONS, definition("widgets", "conformance.kumulus.dev")
        ).ok()
        for _ in range(ROUNDS):
            widgets = Widgets(Cluster(server.kubeconfig), "default")
            before = seen.version
            asyncio.run(_storm(server, server.url + widgets.path, dice, seen))
            server.start()
            _check(Widgets(Cluster(server.kubeconfig), "default"), seen, before)
    finally:
        server.stop()
    assert len(seen.sizes) > ROUNDS * 5


def _check(widgets: Widgets, seen: Acknowledged, before: int) -> None:
    found = widgets.cluster.get(widgets.path).ok()
    there = {i["metadata"]["name"]: i["spec"]["size"] for i in found["items"]}
    for name, size in seen.sizes.items():
        if name not in seen.unsure:
            assert there.get(name) == size, name
    assert set(there) <= set(seen.sizes) | seen.unsure
    assert int(found["metadata"]["resourceVersion"]) >= seen.version
    _check_resume(widgets, there, before)
    # From here on the outcome of what was unsure is known.
    for name in seen.unsure:
        seen.sizes[name] = there.get(name)
    seen.unsure.clear()


def _check_resume(widgets: Widgets, there: dict[str, int], before: int) -> None:
    """A watch goes on across the crash and ends with the same objects."""
    if not before:
        return
    events = widgets.cluster.watch(widgets.path, resourceVersion=str(before))
    assert all(event["type"] != "ERROR" for event in events)
    last = {e["object"]["metadata"]["name"]: e for e in events}
    for name, event in last.items():
        if event["type"] == "DELETED":
            assert name not in there
        else:
            assert there[name] == event["object"]["spec"]["size"]
