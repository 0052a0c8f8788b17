"""Telling all agents of a new ring generation, before what was taken by force is served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.agentlink.client import Endpoint
from controller.errors import KumulusError
from controller.reconcile.actuator import Actuator, Context

log = logging.getLogger(__name__)

SECONDS = 2.0
"""For all agents together: those that do not answer must not keep the others' objects waiting.
Who cannot be told has no command on its way either, or gets to know with the next command."""
AT_ONCE = 64

Send = Callable[[Endpoint, int], Awaitable[None]]


@dataclass(frozen=True)
class Fence:
    """``send`` tells one agent; it may raise KumulusError."""

    actuators: Mapping[str, Actuator[Any]]
    ctx: Context
    send: Send

    async def __call__(self, generation: int) -> None:
        """Raises nothing."""
        room, missed = asyncio.Semaphore(AT_ONCE), list[str]()

        async def tell(endpoint: Endpoint) -> None:
            try:
                async with room, asyncio.timeout(SECONDS):
                    await self.send(endpoint, generation)
            except (KumulusError, TimeoutError) as error:
                missed.append(endpoint.name)
                log.debug("agent not told", extra={"agent": endpoint.name, "why": str(error)})

        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.gather(*(tell(endpoint) for endpoint in self._endpoints()))
        except TimeoutError:
            missed.append("others")
        if missed:
            log.warning(
                "agents do not know of the ring's new generation yet",
                extra={"generation": generation, "agents": missed[:20]},
            )

    def _endpoints(self) -> Iterator[Endpoint]:
        for kind, actuator in self.actuators.items():
            if type(actuator).agent is Actuator.agent:
                continue
            for obj in self.ctx.store.list(kind):
                endpoint = actuator.agent(obj, self.ctx)
                if endpoint is not None:
                    yield endpoint
