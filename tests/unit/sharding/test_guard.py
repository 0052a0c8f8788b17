"""The last check before anything leaves the process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents.wire import Empty
from controller.agentlink.client import Endpoint
from controller.errors import Transient
from controller.keys import Key
from controller.objects import Objects
from controller.sharding.base import Moved
from controller.sharding.guard import (
    COMMAND_SECONDS,
    Guard,
    GuardedAgents,
    GuardedLedger,
    to_its_end,
    working_on,
)
from crds.base import ObjectMeta
from crds.v1alpha1.zone import Zone, ZoneSpec
from tests.support.fakes import FakeLedger
from tests.support.sharding import Everything

HOST = Endpoint("h", "host", "127.0.0.1", 1)


class Lost(Everything):
    """Owns nothing but "mine"."""

    def check(self, uid: str) -> None:
        if uid != "mine":
            raise Moved("it is another's")


class SlowAgents:
    """Takes ``seconds`` for a command; notes which ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.ended = seconds, list[str]()

    async def run(self, *args: Any, operation: str, **_: Any) -> Any:
        await asyncio.sleep(self.seconds)
        self.ended.append(operation)
        return Empty()


async def command(agents: GuardedAgents) -> None:
    await agents.run(HOST, "a", "r", Empty(), Empty, operation="o", owner=Key("Zone", "", "z"))


@pytest.mark.looptime
async def test_commands_claims_and_writes_of_a_lost_object_do_not_leave() -> None:
    guard = Guard(Lost())
    agents, ledger = SlowAgents(0.0), FakeLedger()
    guarded, claims = GuardedAgents(agents, guard), GuardedLedger(ledger, guard)  # type: ignore[arg-type]
    sent: list[str] = []

    class Api:
        async def create(self, resource: Any, namespace: str, body: Any) -> Any:
            sent.append("create")
            return {**body, "metadata": {**body["metadata"], "uid": "u", "resourceVersion": "1"}}

    class Intake:
        def apply(self, *_: Any, **__: Any) -> bool:
            return True

    objects = Objects(Api(), Intake(), {"Zone": Zone}, guard)  # type: ignore[arg-type]
    zone = Zone(metadata=ObjectMeta(name="z"), spec=ZoneSpec())
    with working_on("gone"):
        for work in (
            command(guarded), claims.claim_value("s", "gone", "v"), claims.release("gone"),
            claims.set_pool("p", {}), claims.drop_pool("p"), claims.claim_amounts("p", "gone", {}),
            claims.claim_address("s", "gone", [(1, 2)]), objects.create(zone),
        ):  # fmt: skip
            with pytest.raises(Moved):
                await work
        assert await claims.claims() == [] and await claims.pools("") == [], "questions are free"
    assert not agents.ended and not sent
    with working_on("mine"):
        await command(guarded)
        await claims.claim_value("s", "mine", "v")
        await objects.create(zone)
    assert agents.ended == ["o"] and sent == ["create"] and len(await claims.claims()) == 1
    await command(guarded)  # not a reconcile's: nobody's object


@pytest.mark.looptime
async def test_what_has_begun_ends_though_it_is_cancelled_and_what_takes_too_long_is_reported() -> (
    None
):
    for seconds, ends in ((COMMAND_SECONDS / 2, True), (COMMAND_SECONDS * 2, False)):
        agents = SlowAgents(seconds)
        guarded = GuardedAgents(agents, Guard(Everything()))  # type: ignore[arg-type]

        async def work(guarded: GuardedAgents = guarded) -> None:
            with working_on("mine"):
                await command(guarded)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bool(agents.ended) == ends
        assert guarded.late == (set() if ends else {"mine"})
        await asyncio.sleep(10)
        assert bool(agents.ended) == ends, "cancelled, then"


@pytest.mark.looptime
async def test_an_error_of_what_is_guarded_comes_through() -> None:
    async def fails() -> None:
        raise LookupError("so")

    with pytest.raises(LookupError, match="so"):
        await to_its_end(fails(), 1.0)


def test_in_a_transaction_the_ledgers_generation_counts_too() -> None:
    guard = Guard(Everything())
    guard.in_transaction("mine", lambda: 1)
    with pytest.raises(Transient, match="the ring has changed"):
        guard.in_transaction("mine", lambda: 2)
    guard.in_transaction("", lambda: 2)  # not a reconcile's
    with pytest.raises(Moved):
        Guard(Lost()).in_transaction("gone", lambda: 0)
