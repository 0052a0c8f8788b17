"""The HTTP interface over real TLS: who may ask what, and what is answered."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.drivers.simulated.chaos import ChaosConfig
from agents.operations import Limits
from agents.wire import Operation, server_name
from common.pki import Authority, client_context
from tests.support.agents import (
    AgentClient,
    CallbackSink,
    SimulatedAgents,
    agent_pair,
    callback_sink,
    controller_pair,
    simulated_agents,
)
from tests.support.waiting import until


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[SimulatedAgents]:
    async with simulated_agents(tmp_path) as running:
        yield running


@pytest.fixture
async def sink(agents: SimulatedAgents) -> AsyncIterator[CallbackSink]:
    async with callback_sink(agents.authority) as running:
        yield running


async def ended(agents: SimulatedAgents, name: str, id: str) -> dict[str, Any]:
    async def check() -> Any:
        status, body = await agents.controller.ask("GET", name, f"operations/{id}")
        assert status == 200, body
        return body if body["state"] in ("Succeeded", "Failed") else None

    found: dict[str, Any] = await until(check)
    return found


def ensure(id: str, callback: str | None = None, path: str = "/ks") -> Operation:
    return Operation(
        id=id, action="storage.ensure", resource="s", args={"path": path}, callback=callback
    )


async def test_there_and_back(agents: SimulatedAgents, sink: CallbackSink) -> None:
    status, body = await agents.controller.send("host-1", ensure("a", sink.url("a")))
    assert status == 202 and body["operations"][0]["state"] in ("Pending", "Running")
    done = await ended(agents, "host-1", "a")
    assert done["state"] == "Succeeded" and done["result"]["total"] > 0

    async def told() -> Any:
        return sink.received

    [(_, told_body, names)] = await until(told)
    assert told_body == done and names == {"host-1.host.kumulus.dev"}


async def test_what_a_host_says_of_itself(agents: SimulatedAgents) -> None:
    ask = agents.controller.ask
    assert (await ask("GET", "host-1", "facts"))[1]["hypervisor"] == "Simulator"
    status, ping = await ask("GET", "host-1", "ping")
    assert status == 200 and ping["bootId"] and ping["vms"] == {}
    assert (await ask("GET", "host-2", "ping"))[1]["bootId"] != ping["bootId"]
    assert (await ask("GET", "host-1", "inventory"))[1]["vms"] == []
    assert (await ask("GET", "host-1", "operations/none"))[0] == 404


PRIVATE = ["ping", "facts", "inventory", "operations/a", "chaos", "executions"]


@pytest.mark.parametrize("path", PRIVATE)
async def test_only_controllers_may_ask(agents: SimulatedAgents, path: str) -> None:
    authority = agents.authority
    nobody = AgentClient(agents.port, client_context(authority.ca, None))
    assert (await nobody.ask("GET", "host-1", path))[0] == 401
    host = AgentClient(
        agents.port, client_context(authority.ca, agent_pair(authority, "host-2", "host"))
    )
    status, body = await host.ask("GET", "host-1", path)
    assert status == 403 and "kumulus:controllers" in body["message"]


async def test_only_controllers_may_command(agents: SimulatedAgents) -> None:
    authority = agents.authority
    for pair in (None, agent_pair(authority, "host-1", "host")):
        client = AgentClient(agents.port, client_context(authority.ca, pair))
        assert (await client.send("host-1", ensure("a")))[0] in (401, 403)
    assert (await agents.controller.ask("GET", "host-1", "operations/a"))[0] == 404


async def test_another_clouds_controller_is_refused(
    agents: SimulatedAgents, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path / "other")
    tls = client_context(agents.authority.ca, controller_pair(other))
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
        await AgentClient(agents.port, tls).ask("GET", "host-1", "ping")


async def test_another_clouds_agent_is_not_believed(
    agents: SimulatedAgents, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path / "other")
    tls = client_context(other.ca, None)
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await AgentClient(agents.port, tls).ask("GET", "host-1", "ping")


async def test_each_agent_shows_its_own_certificate(agents: SimulatedAgents) -> None:
    for name, role in (("host-1", "host"), ("host-2", "host"), ("bs-1", "store")):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", agents.port, ssl=agents.controller.tls,
            server_hostname=server_name(name, role),
        )  # fmt: skip
        shown = writer.get_extra_info("peercert")["subjectAltName"]
        assert shown == (("DNS", server_name(name, role)),)
        writer.close()
        await writer.wait_closed()


async def test_an_agent_answers_only_under_its_own_name(agents: SimulatedAgents) -> None:
    for sni in (server_name("host-2", "host"), "localhost"):
        status, body = await agents.controller.ask("GET", "host-1", "ping", sni=sni)
        assert status == 421 and "host-1" in body["message"]
        batch = {"operations": [ensure("a").model_dump()]}
        status, _ = await agents.controller.ask("POST", "host-1", "operations", batch, sni=sni)
        assert status == 421


async def test_host_and_store_of_one_name_are_two(agents: SimulatedAgents) -> None:
    status, body = await agents.controller.send("one", ensure("a"), role="store")
    assert status == 422 and "is for agents of role host" in body["message"]
    assert (await agents.controller.send("one", ensure("a")))[0] == 202
    await ended(agents, "one", "a")
    status, _ = await agents.controller.ask("GET", "one", "operations/a", role="store")
    assert status == 404


async def test_probes_need_no_certificate(agents: SimulatedAgents) -> None:
    await agents.controller.send("host-1", ensure("a"))
    await ended(agents, "host-1", "a")
    tls = client_context(agents.authority.ca, None)
    async with aiohttp.ClientSession() as session:
        texts = {}
        for path in ("healthz", "readyz", "metrics"):
            url = f"https://127.0.0.1:{agents.port}/{path}"
            async with session.get(url, ssl=tls) as answer:
                assert answer.status == 200
                texts[path] = await answer.text()
    counted = 'kumulus_agentd_operations_total{action="storage.ensure",state="Succeeded"}'
    assert counted in texts["metrics"]
    for name in ("operation_seconds", "operations_queued", "operations_running", "callbacks"):
        assert f"kumulus_agentd_{name}" in texts["metrics"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "JSON"),
        (b"{}", 400, "operations"),
        (
            b'{"operations": [{"id": "../x", "action": "a", "resource": "r"}]}',
            400,
            "operations.0.id",
        ),
        (b'{"operations": [], "more": 1}', 400, "more"),
        (b'{"operations": [{"id": "a", "action": "vm.fly", "resource": "r"}]}', 422, "vm.fly"),
    ],
)
async def test_bad_batches_are_named(
    agents: SimulatedAgents, body: bytes, status: int, says: str
) -> None:
    answered, error = await agents.controller.ask("POST", "host-1", "operations", body)
    assert answered == status and error["code"] == "invalid" and says in error["message"]


async def test_a_batch_is_bounded(agents: SimulatedAgents) -> None:
    operations = [ensure(f"a{n}").model_dump() for n in range(257)]
    status, body = await agents.controller.ask(
        "POST", "host-1", "operations", {"operations": operations}
    )
    assert status == 400 and "256" in body["message"]
    status, body = await agents.controller.ask(
        "POST", "host-1", "operations", BytesIO(b"x" * 17 * 2**20)
    )
    assert status == 413 and body["code"] == "invalid"


async def test_fenced(agents: SimulatedAgents) -> None:
    assert (await agents.controller.send("host-1", ensure("a"), generation=2))[0] == 202
    status, body = await agents.controller.send("host-1", ensure("b"), generation=1)
    assert (status, body["code"]) == (409, "fenced")
    assert (await agents.controller.send("host-2", ensure("b"), generation=1))[0] == 202


async def test_too_much_at_once_is_told_to_come_back(tmp_path: Path) -> None:
    slow = ChaosConfig.model_validate({"latency": {"*": 30}})
    async with simulated_agents(
        tmp_path, chaos=slow, settings=lambda s: replace(s, limits=Limits(queue_agent=2))
    ) as agents:
        assert (await agents.controller.send("host-1", ensure("a"), ensure("b")))[0] == 202
        status, body = await agents.controller.send("host-1", ensure("c"))
        assert (status, body["code"]) == (429, "busy")
        assert (await agents.controller.send("host-1", ensure("a")))[0] == 202


async def test_unknown_paths_are_json_too(agents: SimulatedAgents) -> None:
    status, body = await agents.controller.ask("GET", "host-1", "nothing")
    assert status == 404 and body["code"] == "not-found"
    status, body = await agents.controller.ask("DELETE", "host-1", "ping")
    assert status == 405 and body["code"] == "invalid"


async def test_simulated_stores_have_no_bytes(agents: SimulatedAgents) -> None:
    for role in ("store", "host"):
        status, _ = await agents.controller.ask("GET", "x", "images/i.qcow2", role=role)
        assert status == 404


async def test_faults_are_set_while_it_runs(agents: SimulatedAgents) -> None:
    ask = agents.controller.ask
    fault = {"faults": [{"effect": "error", "code": "no-space", "times": 1}]}
    assert (await ask("PUT", "host-1", "chaos", fault))[0] == 200
    await agents.controller.send("host-1", ensure("a"))
    assert (await ended(agents, "host-1", "a"))["error"]["code"] == "no-space"
    await agents.controller.send("host-1", ensure("a"))
    assert (await ended(agents, "host-1", "a"))["state"] == "Succeeded"
    _, report = await ask("GET", "host-1", "chaos")
    assert report["own"] and report["executed"] == {"storage.ensure": {"done": 1, "no-space": 1}}
    _, log = await ask("GET", "host-1", "executions?resource=s")
    assert [(e["operation"], e["outcome"]) for e in log["executions"]] == [
        ("a", "no-space"), ("a", "done"),
    ]  # fmt: skip
    assert (await ask("GET", "host-1", "executions?resource=other"))[1] == {"executions": []}
    assert not (await ask("DELETE", "host-1", "chaos"))[1]["own"]
    status, body = await ask("PUT", "host-1", "chaos", {"faults": [{"effect": "x"}]})
    assert status == 400 and "faults.0.effect" in body["message"]


async def test_a_host_that_is_gone_does_not_answer(agents: SimulatedAgents) -> None:
    ask = agents.controller.ask
    await ask("PUT", "host-1", "chaos", {"unreachable": ["*"]})
    with pytest.raises(aiohttp.ClientError):
        await ask("GET", "host-1", "ping")
    assert (await ask("GET", "host-2", "ping"))[0] == 200
    await ask("DELETE", "host-1", "chaos")
    assert (await ask("GET", "host-1", "ping"))[0] == 200


async def test_a_lost_callback_is_read_back(agents: SimulatedAgents, sink: CallbackSink) -> None:
    ask = agents.controller.ask
    await ask("PUT", "host-1", "chaos", {"faults": [{"effect": "lose-callback"}]})
    await agents.controller.send("host-1", ensure("a", sink.url("a")))
    assert (await ended(agents, "host-1", "a"))["state"] == "Succeeded"
    await ask("PUT", "host-1", "chaos", {"faults": [{"effect": "duplicate-callback"}]})
    await agents.controller.send("host-1", ensure("b", sink.url("b")))

    async def twice() -> bool:
        return len(sink.of("b")) == 2

    await until(twice)
    assert sink.of("a") == []


async def test_a_hang_ends_with_its_timeout(tmp_path: Path) -> None:
    chaos = ChaosConfig.model_validate({"faults": [{"effect": "hang", "times": 1}]})
    async with simulated_agents(
        tmp_path, chaos=chaos, settings=lambda s: replace(s, timeouts={"storage.ensure": 0.05})
    ) as agents:
        await agents.controller.send("host-1", ensure("a"))
        assert (await ended(agents, "host-1", "a"))["error"]["code"] == "timeout"
        await agents.controller.send("host-1", ensure("a"))
        assert (await ended(agents, "host-1", "a"))["state"] == "Succeeded"


async def test_machines_outlive_the_process(tmp_path: Path) -> None:
    async with simulated_agents(tmp_path) as agents:
        await agents.controller.send("host-1", ensure("a"))
        await ended(agents, "host-1", "a")
        await agents.controller.ask("PUT", "host-1", "chaos", {"latency": {"x": 1}})
        _, ping = await agents.controller.ask("GET", "host-1", "ping")
    async with simulated_agents(tmp_path) as agents:
        ask = agents.controller.ask
        assert (await ask("GET", "host-1", "ping"))[1] == ping
        assert (await ask("GET", "host-1", "operations/a"))[1]["state"] == "Succeeded"
        _, report = await ask("GET", "host-1", "chaos")
        assert report["own"] and report["executed"] == {"storage.ensure": {"done": 1}}
        await ask("POST", "host-1", "chaos", {"reboot": True})
        assert (await ask("GET", "host-1", "ping"))[1]["bootId"] != ping["bootId"]
        status, _ = await ask("POST", "host-1", "chaos", {"crash": "nobody"})
        assert status == 404
