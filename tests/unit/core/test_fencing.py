"""Telling all agents of a new generation: those that answer, in time, whatever the others do."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from controller.agentlink.client import Endpoint
from controller.errors import AgentUnreachable
from controller.fencing import SECONDS, Fence
from controller.reconcile.actuator import Actuator


class Stands(Actuator[Any]):
    def agent(self, obj: str, ctx: Any) -> Endpoint | None:
        return None if obj == "none" else Endpoint(obj, "host", "127.0.0.1", 1)


class Store:
    def __init__(self, names: list[str]) -> None:
        self.names = names

    def list(self, kind: str) -> list[str]:
        assert kind == "Host", "other kinds stand for no agent"
        return self.names


@pytest.mark.looptime
async def test_agents_that_answer_are_told_whatever_the_others_do() -> None:
    told: list[tuple[str, int]] = []

    async def send(endpoint: Endpoint, generation: int) -> None:
        if endpoint.name.startswith("hung"):
            await asyncio.sleep(1e6)
        if endpoint.name == "down":
            raise AgentUnreachable("refused")
        await asyncio.sleep(0.01)
        told.append((endpoint.name, generation))

    good = [f"h{number}" for number in range(300)]
    store = Store(["down", "none", "hung-1", *good, "hung-2"])
    ctx: Any = SimpleNamespace(store=store)
    fence = Fence({"Host": Stands(), "Zone": Actuator()}, ctx, send)
    began = asyncio.get_running_loop().time()
    await fence(7)
    assert asyncio.get_running_loop().time() - began <= SECONDS
    assert sorted(told) == sorted((name, 7) for name in good)
