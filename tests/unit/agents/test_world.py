"""The simulator's records are shared by all its machines."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agents.drivers.base import AgentId
from agents.drivers.simulated.world import World


async def test_machines_that_open_it_at_once_all_find_it_open(tmp_path: Path) -> None:
    world = World(tmp_path / "simulator.db")

    async def use(name: str) -> int:
        await world.open()
        try:
            return len(await world.load(AgentId(name, "host")))
        finally:
            await world.close()

    assert await asyncio.gather(*(use(f"host-{i}") for i in range(20))) == [0] * 20
