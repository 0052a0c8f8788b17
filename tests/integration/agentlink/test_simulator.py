"""The link against the real agent application, posing as two hosts that misbehave."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from agents.drivers.simulated.chaos import ChaosConfig, Fault
from agents.wire import StorageArgs, StorageResult, VolumeCreateArgs, VolumeResult, Wire
from common.pki import Authority, server_context
from common.web import Server, serve
from controller.agentlink.callbacks import callback_routes, load_secret
from controller.agentlink.client import Endpoint
from controller.agentlink.link import AgentsClient
from controller.agentlink.transport import Limits
from controller.errors import AgentFailed, OperationPending
from controller.keys import Key
from tests.support.agents import controller_pair, simulated_agents

CHAOS = ChaosConfig(
    latency={"*": 0.01},
    faults=[
        Fault(actions=["volume.create"], every=5, effect="lose-callback"),
        Fault(actions=["volume.create"], every=7, effect="duplicate-callback"),
        Fault(actions=["volume.create"], every=11, effect="error"),
    ],
)
VOLUMES = 60
W = TypeVar("W", bound=Wire)


class _Controller:
    """As much of one as operations need: who is woken looks again."""

    def __init__(self, client: AgentsClient) -> None:
        self.client = client
        self.events: defaultdict[Key, asyncio.Event] = defaultdict(asyncio.Event)
        self.failures = 0

    def wake(self, key: Key) -> None:
        self.events[key].set()

    async def work(
        self, endpoint: Endpoint, action: str, resource: str, args: Wire, result: type[W]
    ) -> W:
        key = Key("Volume", "default", f"{endpoint.name}-{resource}")
        while True:
            self.events[key].clear()
            try:
                return await self.client.run(
                    endpoint, action, resource, args, result,
                    operation=f"run.{resource}", owner=key,
                )  # fmt: skip
            except AgentFailed:
                self.failures += 1
            except OperationPending as pending:
                wait = asyncio.wait_for(self.events[key].wait(), pending.retry_after)
                await asyncio.gather(wait, return_exceptions=True)


async def _listen(controller: _Controller, authority: Authority, secret: bytes) -> Server:
    app = web.Application()
    app.add_routes(callback_routes(controller.client, controller.wake, secret))
    tls = server_context(controller_pair(authority), authority.ca, client_certificates="optional")
    return await serve(app, "127.0.0.1", 0, ssl_context=tls, flag="--controller-port")


async def test_every_volume_is_made_whatever_is_lost_or_fails(tmp_path: Path) -> None:
    secret = load_secret(tmp_path)
    async with simulated_agents(tmp_path, chaos=CHAOS) as agents:
        client = AgentsClient(
            ca=agents.authority.ca, identity=controller_pair(agents.authority), callback_base="",
            secret=secret, limits=Limits(first_look=0.2, longest_look=1),
        )  # fmt: skip
        controller = _Controller(client)
        server = await _listen(controller, agents.authority, secret)
        client.callback_base = f"https://127.0.0.1:{server.port}"
        try:
            hosts = [Endpoint(n, "host", "127.0.0.1", agents.port) for n in ("host-1", "host-2")]
            async with asyncio.timeout(60):
                for host in hosts:
                    room = await controller.work(
                        host, "storage.ensure", "ps", StorageArgs(path="/p"), StorageResult
                    )
                    assert room.total >= room.available > 0
                args = VolumeCreateArgs(path="/p", size=2**20)
                made = await asyncio.gather(
                    *(
                        controller.work(
                            hosts[n % 2], "volume.create", f"uid-{n}", args, VolumeResult
                        )
                        for n in range(VOLUMES)
                    )
                )
            assert [r.size for r in made] == [2**20] * VOLUMES
            assert controller.failures > 0
            for parity, host in enumerate(hosts):
                expected = {f"uid-{n}" for n in range(VOLUMES) if n % 2 == parity}
                assert set((await client.inventory(host)).volumes) == expected
                assert (await client.ping(host)).vms == {}
                assert (await client.facts(host)).cpu > 0
        finally:
            await client.close()
            await server.close()
