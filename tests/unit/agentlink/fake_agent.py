"""An agent that does as it is told: answers late, badly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agents.wire import (
    CONTROLLERS,
    Error,
    OperationBatch,
    OperationReplies,
    OperationReply,
    Ping,
    Role,
    server_name,
)
from common.pki import Authority, CertPair, client_context, server_context
from common.web import Server, serve
from controller.agentlink.callbacks import callback_routes
from controller.agentlink.client import Endpoint
from controller.agentlink.link import AgentsClient
from controller.agentlink.transport import Limits
from controller.keys import Key

SECRET = b"s" * 32
OWNER = Key("VirtualMachine", "default", "vm-1")
QUICK = Limits(connect=1, request=0.5, ping=0.2, patience=0, first_look=0.05, longest_look=0.2)
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass
class FakeAgent:
    """``operations`` is what it remembers; ``behave`` may answer a request in its place."""

    directory: Path
    authority: Authority
    operations: dict[str, OperationReply] = field(default_factory=dict)
    callbacks: dict[str, str] = field(default_factory=dict)
    batches: list[OperationBatch] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    behave: Behaviour | None = None
    server: Server | None = None

    def endpoint(self, name: str = "host-1", role: Role = "host") -> Endpoint:
        assert self.server is not None
        return Endpoint(name, role, "127.0.0.1", self.server.port)

    def certificate(self, name: str = "host-1", role: Role = "host") -> CertPair:
        identity = server_name(name, role)
        return self.authority.issue(
            self.directory, identity, common_name=identity, dns=[identity], server=True, client=True
        )

    async def start(self, name: str = "host-1") -> None:
        app = web.Application(middlewares=[self._first])
        app.router.add_post("/v1/agents/{name}/operations", self._post)
        app.router.add_get("/v1/agents/{name}/operations/{id}", self._read)
        app.router.add_get("/v1/agents/{name}/ping", self._ping)
        tls = server_context(
            self.certificate(name), self.authority.ca, client_certificates="required"
        )
        self.server = await serve(app, "127.0.0.1", 0, ssl_context=tls, flag="--port")

    async def call_back(self, reply: OperationReply, *, sender: str = "host-1") -> int:
        """POST a reply to the URL that came with its operation; returns the HTTP status."""
        tls = client_context(self.authority.ca, self.certificate(sender))
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session,
            session.post(self.callbacks[reply.id], data=reply.model_dump_json()) as response,
        ):
            return response.status

    async def finish(self, operation: str, **result: Any) -> None:
        """It succeeds, and nobody is told."""
        self.operations[operation] = OperationReply(id=operation, state="Succeeded", result=result)

    def fail(self, operation: str, code: str, message: str) -> None:
        error = Error(code=code, message=message)
        self.operations[operation] = OperationReply(id=operation, state="Failed", error=error)

    @web.middleware
    async def _first(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path.rsplit('/', 1)[-1]}")
        answer = await self.behave(request) if self.behave is not None else None
        return answer or await handler(request)

    async def _post(self, request: web.Request) -> web.Response:
        batch = OperationBatch.model_validate_json(await request.read())
        self.batches.append(batch)
        replies = []
        for operation in batch.operations:
            known = self.operations.get(operation.id)
            if known is None or known.state == "Failed":
                known = OperationReply(id=operation.id, state="Pending")
                self.operations[operation.id] = known
            if operation.callback:
                self.callbacks[operation.id] = operation.callback
            replies.append(known)
        return _json(OperationReplies(operations=replies), 202)

    async def _read(self, request: web.Request) -> web.Response:
        known = self.operations.get(request.match_info["id"])
        if known is None:
            return _json(Error(code="not-found", message="no such operation"), 404)
        return _json(known)

    async def _ping(self, _: web.Request) -> web.Response:
        return _json(Ping(boot_id="b"))


def _json(model: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status, text=model.model_dump_json(), content_type="application/json"
    )


def always(status: int, body: str = "") -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body)

    return behave


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    raise web.HTTPInternalServerError


@dataclass
class Cloud:
    """A controller's end (its callback server) and a fake agent."""

    agent: FakeAgent
    authority: Authority
    directory: Path
    woken: list[Key] = field(default_factory=list)
    clients: list[AgentsClient] = field(default_factory=list)
    generation: int = 7
    server: Server | None = None

    @property
    def client(self) -> AgentsClient:
        return self.clients[-1]

    def connect(self, limits: Limits = QUICK, authority: Authority | None = None) -> AgentsClient:
        """A new controller process: it remembers nothing."""
        by = authority or self.authority
        pair = by.issue(
            self.directory / by.directory.name, "controller", common_name="c",
            organizations=[CONTROLLERS], ips=["127.0.0.1"], server=True, client=True,
        )  # fmt: skip
        port = self.server.port if self.server else 0
        self.clients.append(
            AgentsClient(
                ca=self.authority.ca, identity=pair, callback_base=f"https://127.0.0.1:{port}",
                secret=SECRET, ring_generation=lambda: self.generation, limits=limits,
            )
        )  # fmt: skip
        return self.client

    async def listen(self) -> None:
        pair = self.authority.issue(
            self.directory, "server", common_name="c", ips=["127.0.0.1"], server=True
        )
        tls = server_context(pair, self.authority.ca, client_certificates="optional")
        app = web.Application()
        receiver = _Latest(self)
        app.add_routes(callback_routes(receiver, self.woken.append, SECRET))
        self.server = await serve(app, "127.0.0.1", 0, ssl_context=tls, flag="--port")


@dataclass
class _Latest:
    cloud: Cloud

    def deliver(self, *args: Any) -> str:
        return self.cloud.client.deliver(*args)


@asynccontextmanager
async def cloud(directory: Path) -> AsyncIterator[Cloud]:
    authority = Authority.create(directory / "ca")
    agent = FakeAgent(directory / "agent", authority)
    found = Cloud(agent, authority, directory)
    await agent.start()
    await found.listen()
    found.connect()
    try:
        yield found
    finally:
        for client in found.clients:
            await client.close()
        servers: Iterable[Server | None] = (agent.server, found.server)
        for server in servers:
            if server is not None:
                await server.close()
