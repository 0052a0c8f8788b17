"""kill -9 of an agent at any moment: what it accepted is done when it is back, and told."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.wire import Operation
from common.pki import Authority
from tests.integration.agents.process import (
    COMMAND,
    AgentProcess,
    agent_process,
    simulator_arguments,
)
from tests.support.agents import CallbackSink, callback_sink


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca")


@pytest.fixture
async def sink(authority: Authority) -> AsyncIterator[CallbackSink]:
    async with callback_sink(authority) as running:
        yield running


@pytest.fixture
async def agent(tmp_path: Path, authority: Authority) -> AsyncIterator[AgentProcess]:
    async with agent_process(tmp_path, authority, *simulator_arguments(tmp_path)) as running:
        yield running


def ensure(id: str, callback: str | None = None, resource: str = "s") -> Operation:
    return Operation(
        id=id, action="storage.ensure", resource=resource, args={"path": "/ks"}, callback=callback
    )


async def told(sink: CallbackSink, operation: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while not sink.of(operation):
            await asyncio.sleep(0.02)
    return sink.of(operation)[-1]


async def test_killed_in_the_middle_of_work(agent: AgentProcess, sink: CallbackSink) -> None:
    await agent.client.ask("PUT", "host-1", "chaos", {"latency": {"*": 60}})
    operations = [ensure("a", sink.url("a")), ensure("b", sink.url("b"), "other")]
    assert (await agent.client.send("host-1", *operations, generation=3))[0] == 202
    await agent.end(signal.SIGKILL)
    assert sink.received == []
    await agent.start()
    status, body = await agent.client.ask("GET", "host-1", "operations/a")
    assert status == 200 and body["state"] in ("Pending", "Running")
    assert (await agent.client.send("host-1", ensure("c"), generation=2))[0] == 409
    # Taken up again with the latency that was set; without it the next start is quick.
    await agent.client.ask("DELETE", "host-1", "chaos")
    await agent.end(signal.SIGKILL)
    await agent.start()
    for id in ("a", "b"):
        assert (await agent.ended("host-1", id))["state"] == "Succeeded"
        assert (await told(sink, id))["state"] == "Succeeded"


@pytest.mark.parametrize("effect", ["die", "die-after"])
async def test_the_host_dies_before_or_after_the_work(
    agent: AgentProcess, sink: CallbackSink, effect: str
) -> None:
    fault = {"faults": [{"effect": effect, "actions": ["storage.ensure"], "times": 1}]}
    await agent.client.ask("PUT", "host-1", "chaos", fault)
    with suppress(aiohttp.ClientError):  # it may be dead before it has answered
        await agent.client.send("host-1", ensure("a", sink.url("a")))
    assert await agent.gone() == -signal.SIGKILL
    await agent.start()
    assert (await agent.ended("host-1", "a"))["state"] == "Succeeded"
    assert (await told(sink, "a"))["state"] == "Succeeded"
    _, log = await agent.client.ask("GET", "host-1", "executions")
    # Work that was done and not recorded is done again: that is what idempotence is for.
    expected = 1 if effect == "die" else 2
    assert Counter(e["operation"] for e in log["executions"]) == {"a": expected}


async def test_killed_under_load_nothing_accepted_is_lost(
    agent: AgentProcess, sink: CallbackSink
) -> None:
    rng = random.Random(1)
    accepted: list[tuple[str, str]] = []
    for round_ in range(3):

        async def load(host: str, round_: int = round_) -> None:
            for n in range(40):
                ids = [f"{round_}.{n}.{k}" for k in range(5)]
                operations = [ensure(id, resource=f"r{rng.randrange(8)}") for id in ids]
                status, body = await agent.client.send(host, *operations)
                assert status == 202, body
                accepted.extend((host, id) for id in ids)

        loads = [asyncio.create_task(load(f"host-{n}")) for n in range(4)]
        enough = len(accepted) + rng.randrange(20, 120)
        async with asyncio.timeout(60):
            while len(accepted) < enough:
                await asyncio.sleep(0.01)
        await agent.end(signal.SIGKILL)
        ended = await asyncio.gather(*loads, return_exceptions=True)
        assert all(e is None or isinstance(e, aiohttp.ClientError | OSError) for e in ended), ended
        await agent.start()
    assert len(accepted) > 20
    for host, id in accepted:
        assert (await agent.ended(host, id))["state"] == "Succeeded"
    for n in range(4):
        _, log = await agent.client.ask("GET", f"host-{n}", "executions?limit=100000")
        counts = Counter(e["operation"] for e in log["executions"])
        # Only what a kill cut off before its end was recorded may have run again.
        assert all(count <= 1 + 3 for count in counts.values())
        assert sum(count > 1 for count in counts.values()) <= 3 * 64


async def test_sigterm_ends_in_time_and_work_goes_on_later(
    agent: AgentProcess, sink: CallbackSink
) -> None:
    await agent.client.ask("PUT", "host-1", "chaos", {"latency": {"*": 60}})
    await agent.client.send("host-1", ensure("a", sink.url("a")))
    await agent.client.ask("DELETE", "host-1", "chaos")
    async with asyncio.timeout(10):
        assert await agent.end(signal.SIGTERM) == 0
    await agent.start()
    assert (await told(sink, "a"))["state"] == "Succeeded"
    assert "Traceback" not in agent.log.read_text()


def fails(*arguments: str) -> str:
    """What a command that cannot work says."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_port_is_named(tmp_path: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = fails(*simulator_arguments(tmp_path, "--port", port))
    assert port in said and "--port" in said


async def test_one_process_a_data_directory(
    agent: AgentProcess, tmp_path: Path, authority: Authority
) -> None:
    said = await asyncio.to_thread(fails, *simulator_arguments(tmp_path, "--port", "0"))
    assert "--data-dir" in said


def test_what_is_missing_is_named(tmp_path: Path, authority: Authority) -> None:
    assert "ca.crt" in fails("simulator", "--ca-dir", str(tmp_path), "--data-dir", str(tmp_path))
    run = ["run", "--name", "h", "--data-dir", str(tmp_path), "--pki-dir", str(tmp_path / "ca")]
    assert "h.store.crt" in fails(*run, "--role", "store", "--driver", "files")
    assert "no driver 'hal'" in fails(*run, "--driver", "hal")
    assert "neither host nor store" in fails(*run, "--role", "guest")
    assert "vm.fly" in fails(*simulator_arguments(tmp_path, "--timeout", "vm.fly=1"))
    (tmp_path / "chaos.yaml").write_text("faults: [{effect: no}]")
    said = fails(*simulator_arguments(tmp_path, "--chaos", str(tmp_path / "chaos.yaml")))
    assert "faults.0.effect" in said
