"""Plugins' steps, allocators, observers and actuators, called through their rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from controller.errors import Terminal, Waiting
from controller.keys import Key
from controller.kinds.allocation.model import Candidate, Request
from controller.plugins import guarded
from controller.plugins.bridge import bridged
from controller.plugins.guarded import GuardedAllocator, GuardedStep, Observers, guarded_actuator
from controller.plugins.interface import Event, Insertion
from controller.plugins.room import Limits, PluginFailed, Room
from controller.reconcile.actuator import Actuator, Context, Observations, Outcome, Tuning
from controller.watch.base import Change
from controller.watch.store import ObjectStore
from controller.workflow.observers import StepEvent
from controller.workflow.step import Scope, Step
from crds.base import ObjectMeta, WorkflowStatus
from crds.v1alpha1.zone import Zone, ZoneSpec
from tests.support.fakes import FakeEvents, FakeLedger
from tests.unit.core.fakes import LoopClock

LONG = 60.0


@pytest.fixture
def room() -> Iterator[Room]:
    found = Room("toy", Limits(stall=30.0))
    yield found
    found.close()


def zone(name: str = "z", **more: Any) -> Zone:
    meta = ObjectMeta(name=name, uid=f"uid-{name}", resource_version="1", generation=1)
    return Zone(kind="Zone", metadata=meta, spec=ZoneSpec(**more))


@pytest.fixture
def ctx() -> Context:
    store = ObjectStore({"Zone": Zone})
    store.apply(Change.PRESENT, "Zone", zone("shared", description="as it is").wire())
    woken: list[Key] = []
    return Context(
        store=store, objects=None, agents=None, ledger=FakeLedger(), flows=None,  # type: ignore[arg-type]
        events=FakeEvents(), observed=Observations(), clock=LoopClock(), tuning=Tuning(),
        wake=woken.append,
    )  # fmt: skip


class Toy(Step):
    name = "toy"

    async def run(self, scope: Scope[Any]) -> None:
        scope.obj.status.state = "Enabled"
        if scope.data is not None:
            scope.data["seen"] = scope.data.get("given")
        await scope.ctx.ledger.claim_value("toys", scope.obj.uid, scope.operation())
        if scope.obj.spec.description:
            raise {"wait": Waiting("for it"), "break": KeyError("x")}[scope.obj.spec.description]

    async def rollback(self, scope: Scope[Any]) -> None:
        await scope.ctx.ledger.release(scope.obj.uid, "toys")


def scope_of(obj: Zone, ctx: Context) -> Scope[Any]:
    return Scope(obj, ctx, "run-1", "toy", {"given": 7})


async def test_a_step_works_on_the_object_and_through_the_context(room: Room, ctx: Context) -> None:
    step, obj = GuardedStep(Insertion("Zone", Toy, before="x"), room), zone()
    obj.status.workflow = record = WorkflowStatus(name="flow", run_id="run-1")
    scope = scope_of(obj, ctx)
    await step.run(scope)
    assert obj.status.workflow is record, "the engine goes on with it"
    assert step.name == "toy" and obj.status.state == "Enabled"
    assert scope.data == {"given": 7, "seen": 7}
    (claim,) = await ctx.ledger.claims(owner=obj.uid)
    assert claim.value == "run-1.toy"
    await step.rollback(scope)
    assert list(await ctx.ledger.claims(owner=obj.uid)) == []


async def test_what_a_step_did_before_it_paused_is_kept(room: Room, ctx: Context) -> None:
    step, obj = GuardedStep(Insertion("Zone", Toy, before="x"), room), zone(description="wait")
    with pytest.raises(Waiting, match="for it"):
        await step.run(scope_of(obj, ctx))
    assert obj.status.state == "Enabled"


@pytest.mark.parametrize("required", [True, False])
async def test_a_step_that_breaks_fails_the_flow_only_if_it_is_required(
    room: Room, ctx: Context, required: bool
) -> None:
    insertion = Insertion("Zone", Toy, before="x", required=required)
    step, obj = GuardedStep(insertion, room), zone(description="break")
    if required:
        with pytest.raises(PluginFailed, match="KeyError"):
            await step.run(scope_of(obj, ctx))
    else:
        await step.run(scope_of(obj, ctx))
        assert ctx.events.reasons("z") == ["PluginFailed"]  # type: ignore[attr-defined]
    assert obj.status.state == "", "of what broke, nothing is taken over"


async def test_a_step_that_is_cut_off_cannot_change_the_object_later(
    room: Room, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "STEP_SECONDS", 0.1)
    late = asyncio.Event()
    home = asyncio.get_running_loop()

    class Late(Step):
        name = "late"

        async def run(self, scope: Scope[Any]) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                scope.obj.status.state = "Disabled"
                home.call_soon_threadsafe(late.set)

    obj = zone()
    with pytest.raises(PluginFailed):
        await GuardedStep(Insertion("Zone", Late, before="x"), room).run(scope_of(obj, ctx))
    await asyncio.wait_for(late.wait(), LONG)
    assert obj.status.state == ""


# -- the bridge


async def test_shared_objects_are_copied_and_calls_reach_the_controller(
    room: Room, ctx: Context
) -> None:
    far = bridged(ctx, asyncio.get_running_loop())

    async def work() -> list[str]:
        got, (listed,) = far.store.get("Zone", "shared"), far.store.list("Zone")
        got.spec.description = listed.spec.description = "changed by a plugin"
        far.events.normal(got, "Said", "from afar")
        far.wake(Key("Zone", "", "shared"))
        await far.ledger.claim_value("toys", "me", "one")
        return [type(far.store.get("Zone", "none")).__name__, far.clock.now().__class__.__name__]

    assert await room.run(work, LONG) == ["NoneType", "float"]
    assert ctx.store.get("Zone", "shared").spec.description == "as it is"
    assert ctx.events.reasons("shared") == ["Said"]  # type: ignore[attr-defined]
    assert [claim.value for claim in await ctx.ledger.claims(owner="me")] == ["one"]


async def test_the_engine_gets_the_controllers_own_context(room: Room, ctx: Context) -> None:
    seen: list[Any] = []

    class Flows:
        async def run(self, name: str, obj: Any, given: Context) -> None:
            seen.append(given)

    real = replace(ctx, flows=Flows())  # type: ignore[arg-type]
    far = bridged(real, asyncio.get_running_loop())

    async def work() -> None:
        await far.flows.run("x", zone(), far)

    await room.run(work, LONG)
    assert seen == [real] and seen[0] is real


async def test_errors_of_the_controller_come_back_as_they_are(room: Room, ctx: Context) -> None:
    far = bridged(ctx, asyncio.get_running_loop())

    async def work() -> None:
        far.store.list()  # type: ignore[call-arg]

    with pytest.raises(PluginFailed, match="TypeError"):
        await room.run(work, LONG)


# -- actuators


async def test_an_actuator_keeps_what_it_declares(room: Room, ctx: Context) -> None:
    class Mine(Actuator[Zone]):
        model = Zone
        watches = {"Zone": lambda *_: []}
        quiet = frozenset({"x"})

        async def reconcile(self, obj: Zone, ctx: Context) -> Outcome:
            obj.status.state = "Disabled"
            return Outcome(reason="Mine")

        async def delete(self, obj: Zone, ctx: Context) -> Any:
            return None

        def waits_for(self, obj: Any, reference: Any) -> bool:
            return False

    cls = guarded_actuator(Mine, room)
    assert (cls.model, cls.quiet, cls.partitioned) == (Zone, Mine.quiet, False)
    assert set(cls.watches) == {"Zone"}
    assert cls.holds is Actuator.holds and cls.waits_for is not Actuator.waits_for
    actuator, obj = cls(), zone()
    assert actuator.waits_for(obj, None) is False  # type: ignore[arg-type]
    assert (await actuator.reconcile(obj, ctx)).reason == "Mine"
    assert obj.status.state == "Disabled"
    with pytest.raises(PluginFailed, match="must return an Outcome"):
        await actuator.delete(obj, ctx)


# -- allocators

REQUEST = Request(cpu=1, memory=1)
A, B = (Candidate(name, name, "c", "z") for name in "ab")


async def test_an_allocator_orders_the_hosts(room: Room) -> None:
    found = GuardedAllocator("Mine", lambda request, hosts: list(reversed(hosts)), room)
    assert await found(REQUEST, [A, B]) == [B, A]


@pytest.mark.parametrize(
    ("theirs", "error", "said"),
    [
        (lambda request, hosts: 1 / 0, Waiting, "ZeroDivisionError"),
        (lambda request, hosts: None, Waiting, "TypeError"),
        (lambda request, hosts: [replace(A, name="elsewhere")], Waiting, "does not fit"),
    ],
)
async def test_an_allocator_that_fails_makes_its_vms_wait(
    room: Room, theirs: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        await GuardedAllocator("Mine", theirs, room)(REQUEST, [A, B])
    assert caught.value.retry_after  # type: ignore[attr-defined]
    assert caught.value.reason == "PluginFailed"  # type: ignore[attr-defined]


async def test_what_an_allocator_refuses_is_refused(room: Room) -> None:
    def never(request: Request, hosts: Sequence[Candidate]) -> Sequence[Candidate]:
        raise Terminal("not for you", reason="NotForYou")

    with pytest.raises(Terminal, match="not for you"):
        await GuardedAllocator("Mine", never, room)(REQUEST, [A])


# -- observers


async def test_observers_are_told_what_they_asked_for_in_order(room: Room) -> None:
    seen: list[Event] = []
    done = asyncio.Event()
    home = asyncio.get_running_loop()

    class Watcher:
        events = ("step.after", "state.changed")

        async def __call__(self, event: Event) -> None:
            seen.append(event)
            if len(seen) == 2:
                home.call_soon_threadsafe(done.set)

    watcher = Watcher()
    told = Observers([(watcher, frozenset(watcher.events), room)], lambda: 17.0)
    observe, obj = told.on_step(), zone()
    obj.status.state = "Enabled"
    observe(StepEvent("flow", "one", "before", obj))
    observe(StepEvent("flow", "one", "after", obj))
    told.on_state(obj, "Disabled")
    await asyncio.wait_for(done.wait(), LONG)
    first, second = seen
    assert (first.name, first.flow, first.step, first.at) == ("step.after", "flow", "one", 17.0)
    assert (second.kind, second.object, second.uid) == ("Zone", "z", "uid-z")
    assert (second.old, second.new) == ("Disabled", "Enabled")
