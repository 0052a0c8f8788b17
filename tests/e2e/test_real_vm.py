"""A manifest becomes a real guest: libvirt and QEMU under the whole cloud, driven by kubectl.

The host is a real one in namespaces of its own (tests.support.hypervisor), the image store a real
agent that downloads the guest's image over HTTP and verifies it; API server and controller are the
same processes as everywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agents.drivers.base import AgentId
from tests.support.cloud import Cloud, Object, wait_for
from tests.support.guest import GuestUnavailable, build_guest
from tests.support.hypervisor import RealHost, hypervisor, why_not
from tests.support.ports import free_port

pytestmark = [pytest.mark.root, pytest.mark.slow]
HOST, STORE, VM = "kvm-1", "real-images", "guest"
USER_DATA = "#!/bin/sh\necho user data says $((40 + 2))\n"
SECONDS = 180.0
"""For whatever a guest has to boot for, under emulation on a busy machine."""


async def test_a_manifest_becomes_a_real_guest(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    try:
        image = await asyncio.to_thread(build_guest)
    except GuestUnavailable as reason:
        pytest.skip(f"the guest cannot be built: {reason}")
    with Cloud(tmp_path, env={"KUMULUS_PING_INTERVAL": "2"}) as cloud, _web(image) as url:
        await asyncio.to_thread(cloud.up)
        store = await asyncio.to_thread(_start_store, cloud, image)
        async with hypervisor(cloud.authority, name=HOST) as host:
            for port in (cloud.controller_port, store):
                await host.net.admit(port)
            # In a thread: the loop carries the ports into the host's namespace meanwhile.
            await asyncio.to_thread(_live, Site(cloud, host, image, url, store))


class Site:
    """The cloud, its one real host and what the test asks of them."""

    def __init__(self, cloud: Cloud, host: RealHost, image: Path, url: str, store: int) -> None:
        self.cloud, self.host, self.image, self.url, self.store = cloud, host, image, url, store

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.host.inside(*command), capture_output=True, text=True, timeout=60, check=False
        )

    def patch(self, spec: str) -> None:
        self.cloud.kubectl("patch", "vm", VM, "--type=merge", "-p", f'{{"spec":{spec}}}')

    def wait(self, state: str) -> Object:
        return self.cloud.wait_state("VirtualMachine", VM, state, SECONDS)

    def answers(self, address: str) -> bool:
        """Does the guest's web server answer on its network?"""
        namespaces = self.inside("ip", "-o", "netns", "list").stdout.split()
        name = next(name for name in namespaces if not name.startswith("("))
        curl = ("curl", "-s", "-m", "3", f"http://{address}/user-data")
        return self.inside("ip", "netns", "exec", name, *curl).stdout == USER_DATA


def _live(site: Site) -> None:
    site.cloud.apply(*_manifests(site))
    vm = site.wait("Running")
    uid, address = vm["metadata"]["uid"], vm["status"]["ip"]
    assert vm["status"]["hostRef"]["name"] == HOST
    wait_for("the console to show it ready", lambda: "READY" in site.host.console(uid), SECONDS)
    console = site.host.console(uid)
    assert f"DHCP eth0 {address}/24 gw=10.88.0.1" in console
    assert f"SEED hostname={VM} instance={uid}" in console
    wait_for("user data to run", lambda: "user data says 42" in site.host.console(uid), SECONDS)
    wait_for("the guest to answer", lambda: site.answers(address), SECONDS)
    host = site.cloud.get("Host", HOST)
    assert host is not None
    assert host["status"]["hypervisor"] in ("KVM", "QEMU (TCG)")
    assert host["status"]["hypervisorVersion"]

    site.patch('{"powerState":"Paused"}')
    site.wait("Paused")
    assert not site.answers(address)
    site.patch('{"powerState":"Running"}')
    site.wait("Running")
    wait_for("the guest to answer after the pause", lambda: site.answers(address), SECONDS)

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    site.patch(f'{{"restartedAt":"{now}"}}')
    wait_for("the reboot", lambda: "GUEST boot=2" in site.host.console(uid), SECONDS)
    site.wait("Running")

    site.patch('{"powerState":"Stopped"}')
    site.wait("Stopped")
    assert uid not in site.inside("virsh", "list", "--all", "--uuid").stdout
    site.patch('{"powerState":"Running"}')
    assert site.wait("Running")["status"]["ip"] == address
    wait_for("the guest's third boot", lambda: "GUEST boot=3" in site.host.console(uid), SECONDS)
    wait_for("the guest to answer after the start", lambda: site.answers(address), SECONDS)

    site.cloud.kubectl("delete", "vm", VM, "--timeout=90s")
    _nothing_left(site, uid)
    site.cloud.kubectl("delete", "zone", "real", "--timeout=90s")
    site.cloud.kubectl("delete", "backupstorage", STORE, "--timeout=90s")
    assert site.cloud.ledger_rows() == []
    assert [path for path in site.host.storage.rglob("*") if path.is_file()] == []


def _nothing_left(site: Site, uid: str) -> None:
    assert site.inside("virsh", "list", "--all", "--name").stdout.strip() == ""
    links = site.inside("ip", "-o", "link").stdout
    assert [line for line in links.splitlines() if ": lo:" not in line] == []
    assert site.inside("ip", "netns", "list").stdout.strip() == ""
    assert "dnsmasq" not in site.inside("ps", "-eo", "comm").stdout
    kept = [path for path in site.host.storage.rglob("*.qcow2") if "cache" not in path.parts]
    assert kept == []
    assert not (site.host.state / "vms" / uid).exists()


def _start_store(cloud: Cloud, image: Path) -> int:
    """A real image store; returns its agent's port."""
    port = free_port()
    agent = AgentId(STORE, "store")
    cloud.authority.issue(
        cloud.layout.pki, f"{STORE}.store", common_name=agent.server_name,
        dns=[agent.server_name], server=True, client=True,
    )  # fmt: skip
    cloud.start(
        "store", "agent", "run", "--name", STORE, "--role", "store", "--listen", "127.0.0.1",
        "--port", port, "--pki-dir", cloud.layout.pki, "--data-dir", cloud.root / "store",
    )  # fmt: skip
    wait_for("the store's readiness", lambda: cloud.answers(port))
    return port


@contextmanager
def _web(image: Path) -> Iterator[str]:
    """A web server with the image; yields its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Not on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(image.parent)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{image.name}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _object(kind: str, name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "kumulus.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def _manifests(site: Site) -> list[Object]:
    digest = hashlib.sha256(site.image.read_bytes()).hexdigest()
    cluster = [{"name": "kvm"}]
    vm = _object(
        "VirtualMachine", VM, cpu=1, memory="160Mi", imageRef={"name": "tiny"}, userData=USER_DATA,
        nics=[{"name": "eth0", "l3NetworkRef": {"name": "lan"}}],
    )  # fmt: skip
    return [
        _object("Zone", "real"),
        _object("Cluster", "kvm", zoneRef={"name": "real"}, hypervisorType="KVM"),
        _object("Host", HOST, clusterRef={"name": "kvm"}, managementIp=site.host.address,
                agentPort=site.host.port, reservedMemory=0),
        _object("PrimaryStorage", "disks", zoneRef={"name": "real"}, clusterRefs=cluster,
                path=str(site.host.storage)),
        _object("BackupStorage", STORE, managementIp="127.0.0.1", agentPort=site.store,
                path=str(site.cloud.root / "images")),
        _object("Image", "tiny", backupStorageRef={"name": STORE}, url=site.url,
                checksum=f"sha256:{digest}"),
        _object("L2Network", "lan", zoneRef={"name": "real"}, clusterRefs=cluster),
        _object("L3Network", "lan", l2NetworkRef={"name": "lan"}, cidr="10.88.0.0/24",
                gateway="10.88.0.1", ranges=[{"start": "10.88.0.10", "end": "10.88.0.99"}]),
        {**vm, "metadata": {"name": VM, "namespace": "default"}},
    ]  # fmt: skip
