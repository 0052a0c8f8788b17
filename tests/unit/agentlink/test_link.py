"""Operations reach an agent once and their results come back, whatever fails in between."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agents.wire import Error, OperationReply, VmArgs, VmResult
from common.pki import Authority
from controller.agentlink.client import Endpoint
from controller.agentlink.link import AgentsClient
from controller.agentlink.transport import Limits
from controller.errors import AgentFailed, AgentUnreachable, OperationPending, Transient
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.unit.agentlink.fake_agent import (
    OWNER,
    QUICK,
    Cloud,
    always,
    cloud,
    cut,
    hang,
)

ARGS = VmArgs(name="vm", namespace="default", cpu=1, memory=2**30, disks=[])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path) as found:
        yield found


async def _start(
    client: AgentsClient, endpoint: Endpoint, operation: str = "r1.start", resource: str = "vm-1"
) -> VmResult:
    return await client.run(
        endpoint, "vm.start", resource, ARGS, VmResult, operation=operation, owner=OWNER
    )


async def _pending(world: Cloud, **more: Any) -> OperationPending:
    with pytest.raises(OperationPending) as caught:
        await _start(world.client, world.agent.endpoint(), **more)
    return caught.value


def _done(operation: str = "r1.start") -> OperationReply:
    return OperationReply(id=operation, state="Succeeded", result={"state": "Running"})


def _failed(operation: str = "r1.start") -> OperationReply:
    error = Error(code="hypervisor", message="no such machine type")
    return OperationReply(id=operation, state="Failed", error=error)


async def test_a_callback_brings_the_result_and_wakes_the_owner(world: Cloud) -> None:
    pending = await _pending(world)
    assert pending.retry_after is not None
    assert 0 < pending.retry_after <= 0.0625
    assert world.agent.batches[0].ring_generation == 7
    assert await world.agent.call_back(_done()) == 204
    assert world.woken == [OWNER]
    for _ in range(2):
        result = await _start(world.client, world.agent.endpoint())
        assert result.state == "Running"
    assert world.agent.requests == ["POST operations"]


async def test_a_step_that_runs_again_does_not_submit_again(world: Cloud) -> None:
    world.connect(Limits())
    for _ in range(5):
        await _pending(world)
    assert world.agent.requests == ["POST operations"]


async def test_a_lost_callback_is_made_up_for_by_reading_back(world: Cloud) -> None:
    pending = await _pending(world)
    await asyncio.sleep(pending.retry_after or 0)
    slower = await _pending(world)
    assert (slower.retry_after or 0) > 0.0625
    await world.agent.finish("r1.start", state="Running")
    await asyncio.sleep(slower.retry_after or 0)
    result = await _start(world.client, world.agent.endpoint())
    assert result.state == "Running"
    assert world.agent.requests == ["POST operations", "GET r1.start", "GET r1.start"]


async def test_an_operation_that_the_agent_lost_is_submitted_again(world: Cloud) -> None:
    pending = await _pending(world)
    world.agent.operations.clear()
    await asyncio.sleep(pending.retry_after or 0)
    await _pending(world)
    assert world.agent.requests == ["POST operations", "GET r1.start", "POST operations"]


async def test_a_restarted_controller_finds_what_its_predecessor_began(world: Cloud) -> None:
    await _pending(world)
    await world.agent.finish("r1.start", state="Running")
    world.connect()
    result = await _start(world.client, world.agent.endpoint())
    assert result.state == "Running"


async def test_a_result_that_comes_before_the_restarted_controller_asks_is_kept(
    world: Cloud,
) -> None:
    await _pending(world)
    world.connect()
    assert await world.agent.call_back(_done()) == 204
    assert (await _start(world.client, world.agent.endpoint())).state == "Running"
    assert world.agent.requests == ["POST operations"]


async def test_a_callback_may_overtake_the_answer(world: Cloud) -> None:
    async def call_back_first(request: web.Request) -> None:
        if request.method == "POST":
            body = await request.json()
            world.agent.callbacks["r1.start"] = body["operations"][0]["callback"]
            await world.agent.call_back(_done())

    world.agent.behave = call_back_first  # type: ignore[assignment]
    assert (await _start(world.client, world.agent.endpoint())).state == "Running"


async def test_a_failure_is_told_once_and_the_work_may_then_be_tried_anew(world: Cloud) -> None:
    await _pending(world)
    await world.agent.call_back(_failed())
    with pytest.raises(AgentFailed, match=r"host-1: vm\.start: no such machine type") as caught:
        await _start(world.client, world.agent.endpoint())
    assert caught.value.code == "hypervisor"
    world.agent.operations["r1.start"] = _failed()
    await _pending(world)
    assert world.agent.requests == ["POST operations"] * 2


async def test_an_old_failures_echo_does_not_fail_the_new_attempt(world: Cloud) -> None:
    await _pending(world)
    old = dict(world.agent.callbacks)
    await world.agent.call_back(_failed())
    with pytest.raises(AgentFailed):
        await _start(world.client, world.agent.endpoint())
    await world.agent.call_back(_failed())
    await _pending(world)
    world.agent.callbacks = old
    assert await world.agent.call_back(_failed()) == 204
    await _pending(world)
    assert world.agent.requests[-1] == "GET r1.start", "it looks for itself instead"


async def test_doubled_and_early_callbacks_are_harmless(world: Cloud) -> None:
    await _pending(world)
    early = OperationReply(id="r1.start", state="Running")
    statuses = [await world.agent.call_back(r) for r in (early, _done(), _done(), _failed())]
    assert statuses == [204] * 4
    assert (await _start(world.client, world.agent.endpoint())).state == "Running"


async def test_a_callback_that_is_not_the_agents_is_refused(world: Cloud) -> None:
    await _pending(world)
    good = world.agent.callbacks["r1.start"]
    assert await world.agent.call_back(_done(), sender="host-2") == 403
    for bad in (
        good.replace("vm-1", "vm-2"),
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        good.split("?")[0],
        good.replace("attempt=", "attempt=x"),
    ):
        world.agent.callbacks["r1.start"] = bad
        assert await world.agent.call_back(_done()) == 403
    assert world.woken == []
    await _pending(world)


async def test_a_callback_without_certificate_or_with_another_body_is_refused(
    world: Cloud,
) -> None:
    await _pending(world)
    url = world.agent.callbacks["r1.start"]
    world.agent.callbacks["other"] = url
    assert await world.agent.call_back(_done("other")) == 400
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=_done().model_dump_json(), ssl=False) as response,
    ):
        assert response.status == 403
    assert world.woken == []


async def test_operations_submitted_together_travel_together_and_in_order(world: Cloud) -> None:
    names = [f"r{i}.start" for i in range(150)]
    await asyncio.gather(*(_pending(world, operation=n, resource=n) for n in names))
    assert [len(b.operations) for b in world.agent.batches] == [64, 64, 22]
    assert [o.id for b in world.agent.batches for o in b.operations] == names


async def test_one_bad_operation_does_not_take_the_others_with_it(world: Cloud) -> None:
    async def picky(request: web.Request) -> web.StreamResponse | None:
        if request.method == "POST" and b"bad" in await request.read():
            body = Error(code="invalid", message="cpu must be positive").model_dump_json()
            return web.Response(status=400, text=body)
        return None

    world.agent.behave = picky
    client, endpoint = world.client, world.agent.endpoint()
    results = await asyncio.gather(
        *(_start(client, endpoint, n) for n in ("r1.good", "r2.bad", "r3.good")),
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [OperationPending, AgentFailed, OperationPending]
    assert "cpu must be positive" in str(results[1])


async def test_a_fenced_controller_is_told_so(world: Cloud) -> None:
    body = Error(code="fenced", message="generation 9 was seen").model_dump_json()
    world.agent.behave = always(409, body)
    with pytest.raises(Transient, match=r"generation 9 was seen.*must read the ring") as caught:
        await _start(world.client, world.agent.endpoint())
    assert caught.value.reason == "Fenced"


async def test_a_ring_that_changed_a_moment_ago_is_no_failure(world: Cloud) -> None:
    """The agent heard of it first; once we have, too, the same operation is offered again."""
    offered = list[int]()

    async def behind(*request: Any) -> Any:
        offered.append(world.generation)
        if world.generation < 9:
            world.generation = 9
            return await always(409, Error(code="fenced", message="9").model_dump_json())(*request)
        return None  # as usual

    world.agent.behave = behind
    with contextlib.suppress(OperationPending):
        await _start(world.client, world.agent.endpoint())
    assert len(offered) == 2 and world.agent.batches[-1].ring_generation == 9


async def test_fencing_is_a_batch_without_operations(world: Cloud) -> None:
    await world.client.fence(world.agent.endpoint(), 42)
    assert (world.agent.batches[-1].ring_generation, world.agent.batches[-1].operations) == (42, [])


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, "oops", "answered submit with HTTP 500: oops"),
        (503, "", "answered submit with HTTP 503: no further word"),
        (403, "", "does not accept our certificate"),
        (404, "", "no agent is called host-1"),
        (202, "{}", "answers what we cannot read"),
        (202, "<html>", "answers what we cannot read"),
        (202, '{"operations":[]}', "says nothing of the operation"),
    ],
)
async def test_answers_that_are_no_use(world: Cloud, status: int, body: str, words: str) -> None:
    world.agent.behave = always(status, body)
    with pytest.raises(AgentUnreachable, match=words):
        await _start(world.client, world.agent.endpoint())
    world.agent.behave = None
    await _pending(world)


async def test_a_hanging_agent_is_given_up_soon_and_then_left_alone(world: Cloud) -> None:
    world.agent.behave = hang
    endpoint = world.agent.endpoint()
    with pytest.raises(AgentUnreachable, match=r"host host-1 at 127.*no answer within 0\.5s"):
        await _start(world.client, endpoint)
    asked = len(world.agent.requests)
    loop = asyncio.get_running_loop()
    before = loop.time()
    with pytest.raises(AgentUnreachable, match="it is asked again in") as caught:
        await _start(world.client, endpoint)
    assert loop.time() - before < 0.2
    assert caught.value.retry_after is not None
    assert len(world.agent.requests) == asked
    with pytest.raises(AgentUnreachable, match=r"no answer within 0\.2s"):
        await world.client.ping(endpoint)
    world.agent.behave = None
    assert (await world.client.ping(endpoint)).boot_id == "b"
    await _pending(world)


async def test_a_cut_connection_is_tried_once_more(world: Cloud) -> None:
    async def cut_once(request: web.Request) -> web.StreamResponse:
        world.agent.behave = None
        return await cut(request)

    world.agent.behave = cut_once
    await _pending(world)
    assert len(world.agent.batches) == 1
    world.agent.behave = cut
    with pytest.raises(AgentUnreachable, match="cannot be reached"):
        await _start(world.client, world.agent.endpoint(), "r2.start")


async def test_nobody_listens(world: Cloud) -> None:
    nobody = Endpoint("host-1", "host", "127.0.0.1", free_port())
    with pytest.raises(AgentUnreachable, match="refuses connections; is the agent running"):
        await world.client.ping(nobody)


async def test_each_agent_must_have_its_own_certificate(world: Cloud) -> None:
    """Also over connections that are open already: host-2 is not host-1 at the same port."""
    await world.client.ping(world.agent.endpoint())
    with pytest.raises(AgentUnreachable, match=r"is not one for host-2\.host\.kumulus\.dev"):
        await world.client.ping(world.agent.endpoint("host-2"))
    with pytest.raises(AgentUnreachable, match=r"not one for host-1\.store\.kumulus\.dev"):
        await world.client.ping(world.agent.endpoint("host-1", "store"))
    await world.client.ping(world.agent.endpoint())


async def test_a_certificate_that_the_agent_does_not_trust_is_told(
    world: Cloud, tmp_path: Path
) -> None:
    stranger = Authority.create(tmp_path / "other-ca")
    world.connect(authority=stranger)
    with pytest.raises(AgentUnreachable, match="cannot be reached"):
        await world.client.ping(world.agent.endpoint())


async def test_a_result_of_another_version_is_not_taken_for_good(world: Cloud) -> None:
    await _pending(world)
    await world.agent.call_back(
        OperationReply(id="r1.start", state="Succeeded", result={"nonsense": 1})
    )
    with pytest.raises(AgentUnreachable, match="is it of another version") as caught:
        await _start(world.client, world.agent.endpoint())
    assert caught.value.reason == "AgentMismatch"


async def test_a_cancelled_operation_that_was_not_sent_is_not_sent(world: Cloud) -> None:
    world.connect(Limits(batch_window=0.05))
    task = asyncio.create_task(_start(world.client, world.agent.endpoint()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await _pending(world, operation="r2.start")
    assert [o.id for b in world.agent.batches for o in b.operations] == ["r2.start"]


async def test_what_is_forgotten_is_asked_again(world: Cloud) -> None:
    world.connect(Limits(remembered=2))
    for number in range(4):
        await _pending(world, operation=f"r{number}.start")
    await world.agent.finish("r0.start", state="Running")
    endpoint = world.agent.endpoint()
    assert (await _start(world.client, endpoint, "r0.start")).state == "Running"


async def test_closing_ends_what_waits(world: Cloud) -> None:
    world.agent.behave = hang
    client = world.connect(QUICK)
    task = asyncio.create_task(_start(client, world.agent.endpoint()))
    await until(lambda: bool(world.agent.requests))
    await client.close()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled()


async def test_a_quick_operation_is_waited_for(world: Cloud) -> None:
    """Its owner gets the result in the look that asked for it, and is not woken for another."""
    world.connect(replace(QUICK, patience=5))
    starting = asyncio.create_task(_start(world.client, world.agent.endpoint()))
    await until(lambda: "r1.start" in world.agent.callbacks)
    assert await world.agent.call_back(_done()) == 204
    assert (await starting).state == "Running"
    assert world.woken == []


async def test_a_slow_operation_is_waited_for_only_once(world: Cloud) -> None:
    world.connect(replace(QUICK, patience=0.1, first_look=10))
    await _pending(world)
    began = time.monotonic()
    await _pending(world)
    assert time.monotonic() - began < 0.1
    assert await world.agent.call_back(_done()) == 204
    assert world.woken == [OWNER]
