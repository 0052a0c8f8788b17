"""From a web server to a store to a host: real processes, mutual TLS all the way."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.drivers.base import DriverError
from agents.ops.download import DownloadLimits
from agents.ops.fetch import fetch_image
from agents.wire import ImageSource, Operation, Role
from common.pki import Authority, client_context
from tests.integration.agents.process import AgentProcess, agent_process
from tests.integration.agents.web import bad_server, files_in, qcow2, sha256
from tests.support.agents import AgentClient, agent_pair

CONTENT = qcow2(2**30, b"\5" * 2_000_000)
QUICK = DownloadLimits(pause=0.01, stall=2)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca")


@pytest.fixture
async def store(tmp_path: Path, authority: Authority) -> AsyncIterator[AgentProcess]:
    agent_pair(authority, "bs-1", "store")
    arguments = [
        "run",
        "--role",
        "store",
        "--name",
        "bs-1",
        "--listen",
        "127.0.0.1",
        "--pki-dir",
        str(authority.directory),
        "--data-dir",
        str(tmp_path / "data"),
    ]
    async with agent_process(tmp_path, authority, *arguments) as running:
        yield running


@pytest.fixture
def host(authority: Authority) -> ssl.SSLContext:
    return tls_of(authority, "host-1", "host")


def tls_of(authority: Authority, name: str, role: Role) -> ssl.SSLContext:
    return client_context(authority.ca, agent_pair(authority, name, role))


def image_add(url: str, directory: Path, id: str = "add", checksum: str | None = None) -> Operation:
    args = {"path": str(directory), "url": url, "checksum": checksum}
    return Operation(id=id, action="image.add", resource="img", args=args)


async def keep(store: AgentProcess, directory: Path) -> ImageSource:
    """Put CONTENT on the store."""
    ensure = Operation(
        id="ensure", action="store.ensure", resource="bs", args={"path": str(directory)}
    )
    assert (await store.client.send("bs-1", ensure, role="store"))[0] == 202
    await store.ended("bs-1", "ensure", "store")
    async with bad_server(CONTENT) as server:
        wanted = image_add(server.url, directory, checksum=sha256(CONTENT))
        assert (await store.client.send("bs-1", wanted, role="store"))[0] == 202
        done = await store.ended("bs-1", "add", "store")
    assert done["state"] == "Succeeded", done
    return ImageSource(uid="img", store="bs-1", address="127.0.0.1", port=store.port,
                       file=done["result"]["file"], format="qcow2",
                       checksum=done["result"]["checksum"], virtual_size=2**30)  # fmt: skip


async def test_a_host_fetches_what_the_store_keeps(
    store: AgentProcess, host: ssl.SSLContext, tmp_path: Path
) -> None:
    source = await keep(store, tmp_path / "images")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / ".img.qcow2.tmp").write_bytes(b"left by a killed process" * 1000)
    await fetch_image(source, cache / "img.qcow2", host)
    assert (cache / "img.qcow2").read_bytes() == CONTENT
    assert files_in(cache) == ["img.qcow2"]
    _, inventory = await store.client.ask("GET", "bs-1", "inventory", role="store")
    assert inventory["images"] == ["img"]
    _, facts = await store.client.ask("GET", "bs-1", "facts", role="store")
    assert facts["memory"] > 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"checksum": sha256(b"other")}, "checksum"),
        ({"file": "other.qcow2"}, "not-found"),
        ({"file": "..qcow2"}, "not-found"),
        ({"port": 1}, "unreachable"),
        ({"store": "bs-2"}, "unreachable"),  # whoever listens there is not bs-2
    ],
)
async def test_or_leaves_nothing_behind(
    store: AgentProcess,
    host: ssl.SSLContext,
    tmp_path: Path,
    change: dict[str, object],
    code: str,
) -> None:
    source = (await keep(store, tmp_path / "images")).model_copy(update=change)
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(DriverError) as error:
        await fetch_image(source, cache / "img.qcow2", host, limits=QUICK)
    assert error.value.code == code, error.value.message
    assert files_in(cache) == []


async def test_only_hosts_and_controllers_read_images(
    store: AgentProcess, authority: Authority, host: ssl.SSLContext, tmp_path: Path
) -> None:
    await keep(store, tmp_path / "images")
    path = "images/img.qcow2"
    assert await store.client.ask("GET", "bs-1", path, role="store") == (200, CONTENT)
    readers = {
        200: host,
        403: tls_of(authority, "bs-2", "store"),
        401: client_context(authority.ca, None),
    }
    for status, tls in readers.items():
        client = AgentClient(store.port, tls)
        assert (await client.ask("GET", "bs-1", path, role="store"))[0] == status
    hosts = AgentClient(store.port, host)
    for private in ("ping", "facts", "inventory"):
        assert (await hosts.ask("GET", "bs-1", private, role="store"))[0] == 403


async def test_ranges(store: AgentProcess, tmp_path: Path) -> None:
    await keep(store, tmp_path / "images")
    status, part = await store.client.ask(
        "GET", "bs-1", "images/img.qcow2", role="store", headers={"Range": "bytes=100-199"}
    )
    assert (status, part) == (206, CONTENT[100:200])


async def test_nothing_else_can_be_read(
    store: AgentProcess, authority: Authority, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    await keep(store, images)
    (images / "link.qcow2").symlink_to(authority.directory / "ca.key")
    for path in ("../ca/ca.key", "%2e%2e%2fca%2fca.key", "..%2Fca%2Fca.key", "link.qcow2",
                 ".img.json", "img.qcow2%00", "%2Fetc%2Fpasswd"):  # fmt: skip
        status, _ = await store.client.ask("GET", "bs-1", f"images/{path}", role="store")
        assert status in (400, 404), path


async def test_killed_in_the_middle_of_a_download(
    store: AgentProcess, tmp_path: Path, host: ssl.SSLContext
) -> None:
    images = tmp_path / "images"
    ensure = Operation(
        id="ensure", action="store.ensure", resource="bs", args={"path": str(images)}
    )
    await store.client.send("bs-1", ensure, role="store")
    await store.ended("bs-1", "ensure", "store")
    async with bad_server(CONTENT, cuts=1, stall=True) as server:
        wanted = image_add(server.url, images, checksum=sha256(CONTENT))
        assert (await store.client.send("bs-1", wanted, role="store"))[0] == 202
        async with asyncio.timeout(10):
            while not any(p.stat().st_size for p in images.glob(".*.tmp")):
                await asyncio.sleep(0.01)
        await store.end(signal.SIGKILL)
        assert files_in(images) == [".img.qcow2.tmp"]
        await store.start()
        done = await store.ended("bs-1", "add", "store")
    assert done["state"] == "Succeeded"
    assert files_in(images) == [".img.json", "img.qcow2"]
    assert (images / "img.qcow2").read_bytes() == CONTENT
