"""A real host, a real image store and the tiny guest, with words for what tests do to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from aiohttp import ClientError, web

from agents.drivers.base import AgentId, DriverContext
from agents.drivers.files import files
from agents.identity import DirectoryCertificates, Identities
from agents.runtime import running
from agents.settings import AgentSettings
from agents.wire import (
    ACTIONS,
    CachePruneArgs,
    Disk,
    Empty,
    Error,
    ImageAddArgs,
    ImageAddResult,
    ImageSource,
    Inventory,
    Lease,
    NetworkArgs,
    NetworkReleaseArgs,
    NicDevice,
    Operation,
    Ping,
    StorageArgs,
    VmArgs,
    VolumeCreateArgs,
    VolumeDeleteArgs,
    VolumeResult,
    Wire,
)
from common.pki import Authority, client_context
from common.web import serve
from tests.support.agents import AgentClient, agent_pair, controller_pair
from tests.support.hypervisor import RealHost, hypervisor

W = TypeVar("W", bound=Wire)
STORE = AgentId("store-1", "store")
MEMORY = 128 << 20
DISK_BYTES = 64 << 20


class Failed(Exception):
    """An operation that ended Failed."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error


async def eventually(condition: Callable[[], Any], what: str, seconds: float = 180.0) -> Any:
    """What ``condition`` answers once it is true. It may be a coroutine function."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        value = await value if asyncio.iscoroutine(value) else value
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.1)


@dataclass
class Bench:
    host: RealHost
    client: AgentClient
    store: AgentClient
    image_url: str
    directory: Path
    image: ImageSource | None = None
    nets: list[Net] = field(default_factory=list)

    async def begin(self, action: str, resource: str, args: Wire, operation: str = "") -> str:
        """Hand in an operation; answers its id."""
        client, agent = self._of(action)
        op = Operation(
            id=operation or f"{action}-{uuid4().hex[:12]}",
            action=action,
            resource=resource,
            args=args.model_dump(by_alias=True),
        )
        status, body = await client.send(agent.name, op, role=agent.role)
        assert status == 202, body
        return op.id

    async def end(self, action: str, operation: str, seconds: float = 120.0) -> dict[str, Any]:
        """The operation's result, when it has one; patient while the agent is down."""
        client, agent = self._of(action)

        async def done() -> Any:
            try:
                status, body = await client.ask(
                    "GET", agent.name, f"operations/{operation}", role=agent.role
                )
            except (ClientError, TimeoutError):
                return None
            return body if status == 200 and body["state"] in ("Succeeded", "Failed") else None

        body = await eventually(done, f"{action} ended", seconds)
        if body["state"] == "Failed":
            raise Failed(Error.model_validate(body["error"]))
        return dict(body["result"])

    async def do(self, action: str, resource: str, args: Wire | None = None) -> Any:
        """One operation from begin to end; its result as its model. Raises Failed."""
        operation = await self.begin(action, resource, args or Empty())
        return ACTIONS[action][2].model_validate(await self.end(action, operation))

    async def ping(self) -> Ping:
        status, body = await self.client.ask("GET", self.host.name, "ping")
        assert status == 200, body
        return Ping.model_validate(body)

    async def inventory(self) -> Inventory:
        status, body = await self.client.ask("GET", self.host.name, "inventory")
        assert status == 200, body
        return Inventory.model_validate(body)

    async def stored_image(self) -> ImageSource:
        """The guest's image, in the store."""
        if self.image is None:
            uid, path = str(uuid4()), str(self.directory / "images")
            await self.do("store.ensure", str(uuid4()), StorageArgs(path=path))
            added: ImageAddResult = await self.do(
                "image.add", uid, ImageAddArgs(path=path, url=self.image_url)
            )
            self.image = ImageSource(
                uid=uid,
                store=STORE.name,
                address=self.store.address,
                port=self.store.port,
                file=added.file,
                format="qcow2",
                checksum=added.checksum,
                virtual_size=added.virtual_size,
            )
        return self.image

    async def forget_images(self) -> None:
        """Out of the host's cache, so that the next disk has to fetch its image again."""
        for image in (await self.inventory()).images:
            await self.do("image.prune", image, CachePruneArgs(path=str(self.host.storage)))

    async def clear(self) -> None:
        """After a test that failed: what it left would fail the next ones too."""
        left = await self.inventory()
        for vm in left.vms:
            await self.do("vm.destroy", vm)
        for net in self.nets:
            for entry in left.dhcp:
                uid, _, mac = entry.partition("/")
                if uid == net.uid:
                    await self.do("network.release", uid, net.release_args(mac))
            await net.release()
        for volume in left.volumes:
            args = VolumeDeleteArgs(path=str(self.host.storage))
            await self.do("volume.delete", volume, args)

    def _of(self, action: str) -> tuple[AgentClient, AgentId]:
        if ACTIONS[action][0] == "store":
            return self.store, STORE
        return self.client, AgentId(self.host.name, "host")


@dataclass
class Net:
    """An L3 network on a bridge of its own, as the controllers would describe it."""

    bench: Bench
    number: int
    bridge: str
    l2: str = field(default_factory=lambda: str(uuid4()))
    uid: str = field(default_factory=lambda: str(uuid4()))
    physical: str | None = None

    def __post_init__(self) -> None:
        self.bench.nets.append(self)

    def args(self, lease: Lease | None = None) -> NetworkArgs:
        return NetworkArgs(
            bridge_id=self.l2,
            bridge=self.bridge,
            physical_interface=self.physical,
            cidr=f"10.{self.number}.0.0/24",
            gateway=f"10.{self.number}.0.1",
            dns=["192.0.2.53"],
            dns_domain="guests.example",
            mtu=1450,
            dhcp_server=f"10.{self.number}.0.2",
            lease=lease,
        )

    @property
    def netns(self) -> str:
        """Where its DHCP server lives: from there guests can be reached."""
        return f"kumulus-{self.uid}"

    def ip(self, last: int) -> str:
        return f"10.{self.number}.0.{last}"

    def nic(self, last: int) -> NicDevice:
        return NicDevice(
            mac=f"52:54:00:{self.number:02x}:00:{last:02x}",
            bridge=self.bridge,
            device=f"vnic{self.number}.{last}",
            mtu=1450,
        )

    def lease(self, last: int) -> Lease:
        return Lease(mac=self.nic(last).mac, ip=self.ip(last), hostname=f"guest-{last}")

    async def ensure(self, last: int | None = None) -> None:
        lease = None if last is None else self.lease(last)
        await self.bench.do("network.ensure", self.uid, self.args(lease))

    async def release(self, last: int | None = None) -> None:
        mac = None if last is None else self.nic(last).mac
        await self.bench.do("network.release", self.uid, self.release_args(mac))

    def release_args(self, mac: str | None) -> NetworkReleaseArgs:
        return NetworkReleaseArgs(bridge_id=self.l2, bridge=self.bridge, mac=mac)

    async def answers(self, last: int) -> bool:
        """Does the guest answer pings and HTTP?"""
        ip = self.ip(last)
        inside = ("ip", "netns", "exec", self.netns)
        ping = await self.bench.host.run(*inside, "busybox", "ping", "-c1", "-W2", ip, check=False)
        return "1 packets received" in ping and "hello from" in await self.get(last, "/")

    async def get(self, last: int, path: str) -> str:
        url = f"http://{self.ip(last)}{path}"
        inside = ("ip", "netns", "exec", self.netns, "curl", "-s", "--noproxy", "*", "-m", "3", url)
        return await self.bench.host.run(*inside, check=False)


@dataclass
class Guest:
    """A VM with a root disk made from the image."""

    bench: Bench
    nics: list[NicDevice] = field(default_factory=list)
    uid: str = field(default_factory=lambda: str(uuid4()))
    root: str = field(default_factory=lambda: str(uuid4()))
    user_data: str | None = None
    hostname: str | None = None
    disk: Disk | None = None

    @property
    def storage(self) -> str:
        return str(self.bench.host.storage)

    async def make_disk(self) -> None:
        image = await self.bench.stored_image()
        args = VolumeCreateArgs(path=self.storage, size=DISK_BYTES, image=image)
        made: VolumeResult = await self.bench.do("volume.create", self.root, args)
        self.disk = Disk(volume=self.root, path=made.path, device="vda")

    def args(self) -> VmArgs:
        assert self.disk is not None
        return VmArgs(
            name="guest",
            namespace="tests",
            cpu=1,
            memory=MEMORY,
            disks=[self.disk],
            nics=self.nics,
            hostname=self.hostname,
            user_data=self.user_data,
        )

    def console(self) -> str:
        return self.bench.host.console(self.uid)

    async def says(self, text: str, seconds: float = 180.0) -> None:
        await eventually(lambda: text in self.console(), f"{text!r} on the console", seconds)

    async def delete_disk(self) -> None:
        await self.bench.do("volume.delete", self.root, VolumeDeleteArgs(path=self.storage))


@asynccontextmanager
async def make_bench(directory: Path, image: Path) -> AsyncIterator[Bench]:
    """Everything up, and everything ended afterwards."""
    authority = Authority.create(directory / "ca")
    tls = client_context(authority.ca, controller_pair(authority))
    async with (
        _web(image) as url,
        _store(directory, authority) as store_port,
        hypervisor(authority) as host,
    ):
        await host.net.admit(store_port)
        yield Bench(host, AgentClient(host.port, tls), AgentClient(store_port, tls), url, directory)


@asynccontextmanager
async def _web(image: Path) -> AsyncIterator[str]:
    """A web site with the image on it."""
    app = web.Application()
    app.router.add_static("/", image.parent)
    server = await serve(app, "127.0.0.1", 0, flag="-")
    try:
        yield f"http://127.0.0.1:{server.port}/{image.name}"
    finally:
        await server.close()


@asynccontextmanager
async def _store(directory: Path, authority: Authority) -> AsyncIterator[int]:
    agent_pair(authority, STORE.name, STORE.role)
    identities = Identities(DirectoryCertificates(authority.directory, [STORE]))
    own = directory / "store"
    own.mkdir()
    settings = AgentSettings(data_dir=own, port=0)

    def make(agent: AgentId) -> Any:
        return files(DriverContext(agent, own, identities.client_tls(agent)))

    async with running(settings, identities, make, STORE.__eq__, at_start=[STORE]) as server:
        yield server.port
