"""The simulator's interface from end to end, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.wire import Operation, OperationReply
from tests.support.agents import CallbackSink, SimulatedAgents, callback_sink, simulated_agents


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[SimulatedAgents]:
    async with simulated_agents(tmp_path) as running:
        yield running


@pytest.fixture
async def sink(agents: SimulatedAgents) -> AsyncIterator[CallbackSink]:
    async with callback_sink(agents.authority) as running:
        yield running


async def ended(agents: SimulatedAgents, name: str, id: str) -> OperationReply:
    for _ in range(500):
        status, body = await agents.controller.ask("GET", name, f"operations/{id}")
        assert status == 200, body
        reply = OperationReply.model_validate(body)
        if reply.state in ("Succeeded", "Failed"):
            return reply
        await asyncio.sleep(0.01)
    raise TimeoutError(id)


async def test_it_works(agents: SimulatedAgents, sink: CallbackSink) -> None:
    operation = Operation(
        id="a", action="storage.ensure", resource="s", args={"path": "/ks"}, callback=sink.url("a")
    )
    status, body = await agents.controller.send("host-1", operation)
    assert status == 202, body
    reply = await ended(agents, "host-1", "a")
    assert reply.state == "Succeeded"
    for _ in range(100):
        if sink.received:
            break
        await asyncio.sleep(0.01)
    assert sink.received[0][2] == {"host-1.host.kumulus.dev"}
    assert sink.received[0][1]["state"] == "Succeeded"
    print(await agents.controller.ask("GET", "host-1", "ping"))
    print(await agents.controller.ask("GET", "host-1", "facts"))
    print(await agents.controller.ask("GET", "host-1", "inventory"))
    print(await agents.controller.ask("GET", "host-1", "chaos"))
    print(await agents.controller.ask("GET", "host-1", "executions"))
