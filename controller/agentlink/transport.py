"""HTTPS to agents: one session, an identity per agent, and errors that say what is wrong."""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from agents.wire import server_name
from common.pki import CertPair, client_context
from controller.agentlink.breaker import Breaker
from controller.agentlink.client import Endpoint
from controller.agentlink.metrics import IN_FLIGHT, REQUEST_SECONDS
from controller.errors import AgentUnreachable

MAX_BODY = 16 * 2**20
_ERRNO = {
    errno.ECONNREFUSED: "it refuses connections; is the agent running on that port?",
    errno.EHOSTUNREACH: "there is no route to it; is the machine up?",
    errno.ENETUNREACH: "there is no route to its network",
}


@dataclass(frozen=True)
class Limits:
    """Seconds and numbers that bound what a bad agent can cost."""

    connect: float = 3.0
    request: float = 10.0
    ping: float = 10.0
    requests: int = 128
    """In flight to all agents together."""
    reads_per_agent: int = 4
    """Read-backs, facts and inventories in flight to one agent. Submissions go one at a time."""
    batch: int = 64
    batch_window: float = 0.002
    waiting_per_agent: int = 1024
    patience: float = 0.25
    """How long ``run`` waits for a new operation before it reports it as pending."""
    first_look: float = 2.0
    longest_look: float = 30.0
    remembered: int = 50_000


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


class Transport:
    """One per process; made inside the loop that uses it. ``close`` it."""

    def __init__(self, ca: Path, identity: CertPair, limits: Limits) -> None:
        self.limits = limits
        self.tls = client_context(ca, identity)
        self._session: aiohttp.ClientSession | None = None
        self._room = asyncio.Semaphore(limits.requests)
        self._reads: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(limits.reads_per_agent)
        )
        self._breaker = Breaker(lambda: asyncio.get_running_loop().time())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self, endpoint: Endpoint, path: str, *, seconds: float | None = None, probe: bool = False
    ) -> Answer:
        """``probe``: ask at once, even an agent that is left alone, and outside all bounds."""
        seconds = seconds or self.limits.request
        if probe:
            return await self._call(endpoint, "GET", path, None, seconds)
        self._pass(endpoint)
        async with self._reads[identity_of(endpoint)], self._room:
            return await self._call(endpoint, "GET", path, None, seconds)

    async def post(self, endpoint: Endpoint, path: str, body: bytes) -> Answer:
        self._pass(endpoint)
        async with self._room:
            return await self._call(endpoint, "POST", path, body, self.limits.request)

    def _pass(self, endpoint: Endpoint) -> None:
        held = self._breaker.enter(identity_of(endpoint), self.limits.request)
        if held is not None:
            seconds, why = held
            raise AgentUnreachable(
                f"{why}; it is asked again in {seconds:.0f}s", retry_after=seconds
            )

    async def _call(
        self, endpoint: Endpoint, method: str, path: str, body: bytes | None, seconds: float
    ) -> Answer:
        identity = identity_of(endpoint)
        try:
            answer = await self._twice(endpoint, method, path, body, seconds)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            why = f"{describe(endpoint)} cannot be reached: {explain(error, endpoint, seconds)}"
            self._breaker.failure(identity, why)
            raise AgentUnreachable(why) from error
        self._breaker.success(identity)
        return answer

    async def _twice(
        self, endpoint: Endpoint, method: str, path: str, body: bytes | None, seconds: float
    ) -> Answer:
        """Once more if the connection was cut: an idle one may have been closed meanwhile, and
        every request of ours may come twice."""
        with _in_flight(method):
            async with asyncio.timeout(seconds):
                try:
                    return await self._once(endpoint, method, path, body)
                except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                    return await self._once(endpoint, method, path, body)

    async def _once(self, endpoint: Endpoint, method: str, path: str, body: bytes | None) -> Answer:
        host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        async with self._opened().request(
            method,
            f"https://{host}:{endpoint.port}/v1/agents/{endpoint.name}{path}",
            data=body,
            headers={"Content-Type": "application/json"} if body is not None else None,
            server_hostname=identity_of(endpoint),
            allow_redirects=False,
        ) as response:
            return Answer(response.status, await _bounded(response))

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self.tls, limit=0, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=self.limits.connect, sock_connect=self.limits.connect
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


@contextmanager
def _in_flight(method: str) -> Iterator[None]:
    begun = time.perf_counter()
    IN_FLIGHT.inc()
    try:
        yield
    finally:
        IN_FLIGHT.dec()
        REQUEST_SECONDS.labels(method).observe(time.perf_counter() - begun)


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(2**16):
        size += len(part)
        if size > MAX_BODY:
            raise aiohttp.ClientPayloadError(f"its answer is longer than {MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


def identity_of(endpoint: Endpoint) -> str:
    """The name that the agent's certificate must have."""
    return server_name(endpoint.name, endpoint.role)


def describe(endpoint: Endpoint) -> str:
    return f"the agent of {endpoint.role} {endpoint.name} at {endpoint.address}:{endpoint.port}"


def explain(error: BaseException, endpoint: Endpoint, seconds: float) -> str:
    """Why a request got no answer, and what to look at."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate(error.certificate_error, endpoint)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {endpoint.address} cannot be resolved"
    tls = _tls_error(error)
    if tls is not None:
        return f"TLS failed: {tls.reason or tls}; is our client certificate from the agent's CA?"
    if isinstance(error, OSError) and error.errno in _ERRNO:
        return _ERRNO[error.errno]
    said = str(error) or type(error).__name__
    plain: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
        (aiohttp.ConnectionTimeoutError, "no connection in time; is the machine up?"),
        (TimeoutError, f"no answer within {seconds:g}s"),
        ((aiohttp.ServerDisconnectedError, ConnectionResetError), "it cut the connection"),
    )
    return next((why for kind, why in plain if isinstance(error, kind)), said)


def _certificate(error: Exception, endpoint: Endpoint) -> str:
    reason = getattr(error, "verify_message", "") or str(error)
    return (
        f"its certificate is not one for {identity_of(endpoint)}: {reason}; is another machine at "
        "this address?"
    )


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    for found in (error, getattr(error, "os_error", None), error.__cause__):
        if isinstance(found, ssl.SSLError):
            return found
    return None
