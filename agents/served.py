"""The agents that this process serves, each with its open driver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agents.drivers.base import AgentId, Driver

log = logging.getLogger(__name__)


class Served:
    """Drivers by agent, opened when first needed."""

    def __init__(
        self, make: Callable[[AgentId], Driver], accepts: Callable[[AgentId], bool]
    ) -> None:
        """make: an unopened driver. accepts: is this an agent of this process?"""
        self._make = make
        self._accepts = accepts
        self._drivers: dict[AgentId, asyncio.Task[Driver]] = {}

    def serves(self, agent: AgentId) -> bool:
        return self._accepts(agent)

    async def driver_of(self, agent: AgentId) -> Driver | None:
        """The agent's driver; None if it is not served here. Raises DriverError if it cannot be
        opened; the next call tries again."""
        if agent not in self._drivers:
            if not self._accepts(agent):
                return None
            self._drivers[agent] = asyncio.create_task(
                self._open(agent), name=f"open {agent.server_name}"
            )
        opening = self._drivers[agent]
        if opening.done() and not opening.cancelled() and opening.exception() is None:
            return opening.result()
        return await asyncio.shield(opening)

    async def close(self) -> None:
        opened = await asyncio.gather(*self._drivers.values(), return_exceptions=True)
        for driver in opened:
            if isinstance(driver, BaseException):
                continue
            try:
                await driver.close()
            except Exception:
                log.exception("a driver did not close")

    async def _open(self, agent: AgentId) -> Driver:
        try:
            driver = self._make(agent)
            await driver.open()
        except BaseException:
            self._drivers.pop(agent, None)
            raise
        return driver
