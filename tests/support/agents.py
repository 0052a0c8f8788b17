"""Simulated agents inside a test's own process, with a throwaway CA, on a free port."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agents.callbacks import CallbackPolicy
from agents.drivers.simulated.chaos import ChaosConfig
from agents.drivers.simulated.machine import Capacity
from agents.drivers.simulated.process import simulating
from agents.drivers.simulated.world import World
from agents.drivers.simulator import Simulation
from agents.identity import Identities, MintedCertificates
from agents.settings import AgentSettings
from agents.wire import CONTROLLER, CONTROLLERS, Operation, OperationBatch, Role, server_name
from common.pki import Authority, CertPair, client_context, peer_of, server_context
from common.web import Server, serve

QUICK = CallbackPolicy(timeout=2.0, first_delay=0.01, max_delay=0.1, window=10.0)


def controller_pair(authority: Authority, name: str = "controller") -> CertPair:
    """A controller's certificate: client, and server for its callbacks on loopback."""
    return authority.issue(
        authority.directory,
        name,
        common_name=name,
        organizations=[CONTROLLERS],
        dns=[CONTROLLER],
        server=True,
        client=True,
    )


def agent_pair(authority: Authority, name: str, role: Role) -> CertPair:
    """An agent's certificate."""
    return authority.issue(
        authority.directory,
        f"{name}.{role}",
        common_name=server_name(name, role),
        dns=[server_name(name, role)],
        server=True,
        client=True,
    )


@dataclass
class AgentClient:
    """Asks agents at a port, as whoever ``tls`` says."""

    port: int
    tls: ssl.SSLContext
    address: str = "127.0.0.1"

    async def ask(
        self,
        method: str,
        name: str,
        path: str,
        body: Any = None,
        *,
        role: Role = "host",
        sni: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """(status, JSON or bytes). body: JSON, or bytes (large: BytesIO) as they are."""
        url = f"https://{self.address}:{self.port}/v1/agents/{name}/{path}"
        data = {"data": body} if isinstance(body, bytes | BytesIO) else {"json": body}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.request(
                method,
                url,
                ssl=self.tls,
                server_hostname=sni or server_name(name, role),
                headers=headers,
                **(data if body is not None else {}),
            ) as answer,
        ):
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.read()

    async def send(
        self, name: str, *operations: Operation, generation: int = 0, role: Role = "host"
    ) -> tuple[int, Any]:
        """POST a batch."""
        batch = OperationBatch(ring_generation=generation, operations=list(operations))
        body = batch.model_dump_json(by_alias=True).encode()
        return await self.ask("POST", name, "operations", body, role=role)


@dataclass
class SimulatedAgents:
    """Running simulated agents: any name is one. ``controller`` asks them as a controller."""

    authority: Authority
    simulation: Simulation
    server: Server
    controller: AgentClient

    @property
    def port(self) -> int:
        return self.server.port


@asynccontextmanager
async def simulated_agents(
    directory: Path,
    *,
    authority: Authority | None = None,
    chaos: ChaosConfig | None = None,
    capacity: Capacity | None = None,
    die: Callable[[], None] | None = None,
    settings: Callable[[AgentSettings], AgentSettings] = lambda settings: settings,
) -> AsyncIterator[SimulatedAgents]:
    """Agents that keep what they hold in ``directory``: entered again with the same one, they are
    as they were. settings: changes the settings before they are used."""
    authority = authority or Authority.create(directory / "ca")
    data = directory / "agents"
    data.mkdir(parents=True, exist_ok=True)
    simulation = Simulation(
        World(data / "simulator.db"), capacity or Capacity(), chaos or ChaosConfig()
    )
    if die is not None:
        simulation = replace(simulation, die=die)
    identities = Identities(MintedCertificates(authority.directory, data / "pki"))
    chosen = settings(AgentSettings(data_dir=data, port=0, grace=0.0, callbacks=QUICK))
    async with simulating(chosen, identities, simulation) as server:
        tls = client_context(authority.ca, controller_pair(authority))
        yield SimulatedAgents(authority, simulation, server, AgentClient(server.port, tls))


@dataclass
class CallbackSink:
    """A controller's callback server: remembers what it is told, answers ``status``."""

    status: int = 200
    received: list[tuple[str, dict[str, Any], frozenset[str]]] = field(default_factory=list)
    """(path, body, DNS names of the client's certificate)."""
    server: Server | None = None

    def url(self, operation: str) -> str:
        assert self.server is not None
        return f"https://127.0.0.1:{self.server.port}/callbacks/{operation}?token=secret"

    def of(self, operation: str) -> list[dict[str, Any]]:
        """What was told about an operation."""
        return [body for _, body, _ in self.received if body["id"] == operation]

    async def handle(self, request: web.Request) -> web.Response:
        peer = peer_of(request)
        assert peer is not None
        self.received.append((request.path, await request.json(), peer.dns))
        return web.Response(status=self.status)


@asynccontextmanager
async def callback_sink(authority: Authority) -> AsyncIterator[CallbackSink]:
    """Serves with a controller's certificate; asks clients for theirs."""
    sink = CallbackSink()
    app = web.Application()
    app.router.add_post("/callbacks/{operation}", sink.handle)
    tls = server_context(controller_pair(authority), authority.ca, client_certificates="required")
    sink.server = await serve(app, "127.0.0.1", 0, ssl_context=tls, flag="--controller-port")
    try:
        yield sink
    finally:
        await sink.server.close()
