"""Telling a controller that an operation has ended.

A callback only saves the controller a read-back, so losing one is harmless: it is tried for some
minutes and then given up. Each is POSTed with the agent's own certificate, without following
redirects, to the URL that came with the operation; whoever answers must be a controller.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from agents import metrics
from agents.drivers.base import AgentId
from agents.journal import Untold
from agents.wire import CONTROLLER

log = logging.getLogger(__name__)
PERMANENT = frozenset({400, 401, 403, 404, 405, 410, 413, 415, 422})
"""Answers that another attempt would get too."""

PER_AGENT = 2
"""Connections of one agent: operations end in bursts, and a TLS handshake for each callback would
cost more than waiting for the one before."""


@dataclass(frozen=True)
class CallbackPolicy:
    """Seconds, but for the counts. ``window``: from the operation's end to giving up."""

    window: float = 300.0
    timeout: float = 10.0
    first_delay: float = 0.5
    max_delay: float = 30.0
    at_once: int = 64
    waiting: int = 20_000


class Post(Protocol):
    async def __call__(self, agent: AgentId, url: str, body: bytes) -> int:
        """The answer's HTTP status. Raises OSError or aiohttp.ClientError."""


Copies = Callable[[AgentId, str], int]
"""(agent, operation id) → how often to deliver: 1, except in a simulator that injects faults."""


def retry_delay(policy: CallbackPolicy, attempt: int, chance: float) -> float:
    """Seconds before attempt ``attempt`` (the second is 1), exponential, half of it jitter."""
    whole = min(policy.max_delay, policy.first_delay * 2.0 ** min(attempt - 1, 32))
    return float(whole * (0.5 + 0.5 * chance))


class Callbacks:
    """Delivers callbacks in tasks of its own."""

    def __init__(
        self,
        post: Post,
        told: Callable[[int], Awaitable[None]],
        policy: CallbackPolicy | None = None,
        *,
        copies: Copies = lambda agent, id: 1,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """told: records that a callback need not be delivered any more (by its seq)."""
        self._post = post
        self._told = told
        self._policy = policy or CallbackPolicy()
        self._copies = copies
        self._clock = clock
        self._chance = chance
        self._slots = asyncio.Semaphore(self._policy.at_once)
        self._tasks: dict[tuple[AgentId, str], asyncio.Task[None]] = {}

    @property
    def waiting(self) -> int:
        return len(self._tasks)

    def send(self, untold: Untold) -> None:
        """Deliver, soon. A former callback of the same operation is dropped: it is stale."""
        key = (untold.agent, untold.reply.id)
        self.drop(*key)
        if len(self._tasks) >= self._policy.waiting:
            metrics.CALLBACKS.labels("dropped").inc()
            return
        task = asyncio.create_task(self._deliver(untold), name=f"callback {untold.reply.id}")
        self._tasks[key] = task
        metrics.CALLBACKS_WAITING.inc()
        task.add_done_callback(lambda ended: self._ended(key, ended))

    def drop(self, agent: AgentId, id: str) -> None:
        """Stop delivering: the operation is run anew."""
        task = self._tasks.pop((agent, id), None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Undelivered ones stay in the table, for the next process."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, key: tuple[AgentId, str], task: asyncio.Task[None]) -> None:
        metrics.CALLBACKS_WAITING.dec()
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("callback task failed", exc_info=error)

    async def _deliver(self, untold: Untold) -> None:
        copies = self._copies(untold.agent, untold.reply.id)
        for _ in range(copies):
            await self._deliver_once(untold)
        if copies == 0:
            metrics.CALLBACKS.labels("lost").inc()
        await self._told(untold.seq)

    async def _deliver_once(self, untold: Untold) -> None:
        body = untold.reply.model_dump_json(by_alias=True).encode()
        attempt = 0
        while not await self._attempt(untold, body):
            attempt += 1
            delay = retry_delay(self._policy, attempt, self._chance())
            if self._clock() + delay > untold.finished + self._policy.window:
                metrics.CALLBACKS.labels("given_up").inc()
                log.warning("callback given up", extra=_about(untold))
                return
            await asyncio.sleep(delay)

    async def _attempt(self, untold: Untold, body: bytes) -> bool:
        """True when no further attempt is needed."""
        try:
            async with self._slots, asyncio.timeout(self._policy.timeout):
                status = await self._post(untold.agent, untold.callback, body)
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            # Never the URL: its token authenticates the callback.
            log.info("callback failed: %s", type(error).__name__, extra=_about(untold))
            metrics.CALLBACKS.labels("unreachable").inc()
            return False
        if 200 <= status < 300:
            metrics.CALLBACKS.labels("delivered").inc()
            return True
        log.info("callback answered %d", status, extra=_about(untold))
        metrics.CALLBACKS.labels("refused").inc()
        return status in PERMANENT


def _about(untold: Untold) -> dict[str, str]:
    return {"agent": untold.agent.server_name, "operation": untold.reply.id}


class HttpsPost:
    """Posts over mutual TLS, one session for all agents, each with its own certificate."""

    def __init__(self, context_of: Callable[[AgentId], ssl.SSLContext], connections: int) -> None:
        self._context_of = context_of
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, agent: AgentId, url: str, body: bytes) -> int:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections, limit_per_host=PER_AGENT, keepalive_timeout=30
            )
            self._session = aiohttp.ClientSession(connector=connector)
        async with self._session.post(
            url,
            data=body,
            headers={"Content-Type": "application/json"},
            ssl=self._context_of(agent),
            server_hostname=CONTROLLER,
            allow_redirects=False,
        ) as response:
            return response.status

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
