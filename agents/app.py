"""The agent's HTTP interface, as agents.wire lists it."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import ValidationError

from agents.checks import describe
from agents.drivers.base import AgentId, Code, Driver, DriverError
from agents.identity import Identities, is_host
from agents.operations import Operations, Refused
from agents.served import Served
from agents.wire import (
    CONTROLLERS,
    Error,
    OperationBatch,
    OperationReplies,
    Wire,
)
from common.pki import Peer, peer_of
from common.web import add_probes

log = logging.getLogger(__name__)
MAX_BODY = 16 * 2**20
"""Bytes of a request: a batch of 256 operations with user data."""
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_STATUS: Mapping[str, int] = {
    "invalid": 400,
    "not-found": 404,
    "conflict": 409,
    "fenced": 409,
    "busy": 429,
    "unsupported": 400,
    "internal": 500,
}
"""HTTP status of a DriverError; 503 for the others: the host cannot now."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Extension = Callable[[AgentId, Driver, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Extensions:
    """What a driver adds to the interface (the simulator: its fault injection).

    routes: (method, last part of the path) → handler, for controllers only. dead: True while an
    agent has to look as if its host were gone.
    """

    routes: Mapping[tuple[str, str], Extension] = field(default_factory=dict)
    dead: Callable[[AgentId], bool] = lambda agent: False


class Denied(Exception):
    def __init__(self, status: int, code: Code, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = Error(code=code, message=message)


class Api:
    """Handlers. Each first finds out who asks and which agent is meant."""

    def __init__(
        self, identities: Identities, served: Served, operations: Operations, extra: Extensions
    ) -> None:
        self._identities = identities
        self._served = served
        self._operations = operations
        self._extra = extra

    def routes(self) -> list[web.RouteDef]:
        base = "/v1/agents/{name}"
        extra = [
            web.route(method, f"{base}/{path}", self._extension(handler))
            for (method, path), handler in self._extra.routes.items()
        ]
        return [
            web.post(f"{base}/operations", self.post),
            web.get(f"{base}/operations/{{id}}", self.read),
            web.get(f"{base}/ping", self.ping),
            web.get(f"{base}/facts", self.facts),
            web.get(f"{base}/inventory", self.inventory),
            web.get(f"{base}/images/{{file}}", self.image),
            *extra,
        ]

    async def post(self, request: web.Request) -> web.Response:
        agent, _ = await self._meant(request)
        batch = OperationBatch.model_validate_json(await request.read())
        replies = await self._operations.accept(agent, batch)
        return respond(OperationReplies(operations=replies), 202)

    async def read(self, request: web.Request) -> web.Response:
        agent, _ = await self._meant(request)
        id = request.match_info["id"]
        reply = await self._operations.read(agent, id)
        if reply is None:
            raise Denied(404, "not-found", f"operation {id} is not known to {agent.server_name}")
        return respond(reply)

    async def ping(self, request: web.Request) -> web.Response:
        _, driver = await self._meant(request)
        return respond(await driver.ping())

    async def facts(self, request: web.Request) -> web.Response:
        _, driver = await self._meant(request)
        return respond(await driver.facts())

    async def inventory(self, request: web.Request) -> web.Response:
        _, driver = await self._meant(request)
        return respond(await driver.inventory())

    async def image(self, request: web.Request) -> web.StreamResponse:
        """Streams; answers Range requests, so that a broken fetch can go on."""
        agent, driver = await self._meant(request, hosts=True)
        file = request.match_info["file"]
        if agent.role != "store" or not _FILE.fullmatch(file):
            raise Denied(404, "not-found", f"{agent.server_name} has no such image")
        return web.FileResponse(await driver.image_file(file))

    def _extension(self, handler: Extension) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            agent, driver = await self._meant(request, ghosts=True)
            return await handler(agent, driver, request)

        return handle

    async def _meant(
        self, request: web.Request, *, hosts: bool = False, ghosts: bool = False
    ) -> tuple[AgentId, Driver]:
        """The agent that is meant, if this client may ask it. hosts: hosts' agents may ask too.
        ghosts: even if it plays dead. Raises Denied, DriverError."""
        authorize(peer_of(request), hosts=hosts)
        name = request.match_info["name"]
        agent = self._identities.agent_of(request)
        if agent is None or agent.name != name:
            raise self._misdirected(name, agent)
        if self._extra.dead(agent) and not ghosts:
            _cut(request)
        driver = await self._served.driver_of(agent)
        if driver is None:
            raise Denied(404, "not-found", f"no agent {agent.server_name} here")
        return agent, driver

    def _misdirected(self, name: str, asked: AgentId | None) -> Denied:
        if asked is not None and not self._served.serves(AgentId(name, asked.role)):
            return Denied(404, "not-found", f"no agent {name} of role {asked.role} here")
        return Denied(
            421,
            "invalid",
            f"agent {name} must be asked under its own TLS server name "
            f"(asked for: {asked.server_name if asked else 'none of an agent here'})",
        )


def authorize(peer: Peer | None, *, hosts: bool) -> None:
    """Raises Denied unless the client is a controller, or, with ``hosts``, a host's agent."""
    if peer is None:
        raise Denied(401, "invalid", "a client certificate of the cloud's CA is needed")
    if CONTROLLERS in peer.organizations or (hosts and is_host(peer)):
        return
    raise Denied(403, "invalid", f"certificate {peer.common_name!r} is not of {CONTROLLERS}")


def respond(body: Wire, status: int = 200) -> web.Response:
    text = body.model_dump_json(by_alias=True)
    return web.Response(status=status, text=text, content_type="application/json")


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure becomes an agents.wire.Error; nobody sees a stack trace."""
    try:
        return await handler(request)
    except (Denied, Refused) as error:
        headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
        response = respond(error.error, error.status)
        response.headers.update(headers)
        return response
    except DriverError as error:
        return respond(error.wire(), _STATUS.get(error.code, 503))
    except ValidationError as error:
        return respond(Error(code="invalid", message=describe(error)), 400)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = "not-found" if error.status == 404 else "invalid"
        return respond(Error(code=code, message=f"{request.path}: {error.reason}"), error.status)
    except Exception:
        log.exception("request failed", extra={"path": request.path})
        return respond(Error(code="internal", message="the agent failed; see its log"), 500)


def make_app(
    identities: Identities,
    served: Served,
    operations: Operations,
    ready: Callable[[], bool | str],
    extra: Extensions | None = None,
) -> web.Application:
    app = web.Application(middlewares=[errors], client_max_size=MAX_BODY)
    app.add_routes(Api(identities, served, operations, extra or Extensions()).routes())
    add_probes(app, ready)
    return app


def _cut(request: web.Request) -> None:
    """End the connection without an answer, as a host does that has lost its power."""
    if request.transport is not None:
        request.transport.abort()
    raise Denied(503, "unreachable", "gone")
