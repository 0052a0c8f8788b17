"""A plugin's kind that misbehaves degrades; the other kinds go on as if it were not there.

Whether they do is judged by progress, not by time: all of the others' work is done while the
plugin is still at its first. If the plugin held up the loop, that could never be.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from controller.core import Core
from controller.keys import Key
from controller.plugins import guarded, room
from controller.plugins.guarded import guarded_actuator, missing_actuator
from controller.plugins.room import Limits, Room
from controller.reconcile.actuator import Actuator, Context, Outcome
from controller.registry import build
from controller.settings import Settings
from crds.base import ObjectMeta, Resource
from tests.support.waiting import until
from tests.unit.core.fakes import WORLD, FakeApi, FakeSource, Leaf, LeafActuator, LoopClock, Trunk

LONG = 60.0
LEAVES, TRUNKS = 60, 12


class Bad(Actuator[Any]):
    """``way``: how it misbehaves, until ``release``."""

    model = Trunk
    way = ""
    release = threading.Event()
    began = 0
    ended = 0

    async def reconcile(self, obj: Trunk, ctx: Context) -> Outcome:
        cls = type(self)
        cls.began += 1
        if not cls.release.is_set():
            await getattr(self, cls.way)()
        cls.ended += 1
        return Outcome()

    async def raises(self) -> None:
        raise RuntimeError("a defect")

    async def hangs(self) -> None:
        await asyncio.Event().wait()

    async def blocks(self) -> None:
        while not self.release.wait(0.01):
            pass

    async def spins(self) -> None:
        while not self.release.is_set():
            pass

    async def leaks(self) -> None:
        for _ in range(50):
            asyncio.get_running_loop().create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        raise RuntimeError("and fails")


@contextlib.asynccontextmanager
async def core(actuators: list[type[Actuator[Any]]]) -> AsyncIterator[tuple[FakeApi, Core]]:
    WORLD.__init__()  # type: ignore[misc]
    api, stopping = FakeApi(), asyncio.Event()
    registry = build(actuators, models=(Trunk, Leaf, _branch()))
    made = Core(Settings(), registry, api, "me", LoopClock())  # type: ignore[arg-type]
    made.equip(agents=None, ledger=None, flows=None)  # type: ignore[arg-type]
    task = asyncio.create_task(made.run(FakeSource(api), stopping))
    try:
        yield api, made
    finally:
        Bad.release.set()
        stopping.set()
        await asyncio.wait_for(task, LONG)


def _branch() -> type[Resource]:
    from tests.unit.core.fakes import Branch

    return Branch


@pytest.fixture
def toy_room(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(room, "POLL", 0.05)
    monkeypatch.setattr(room, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(guarded, "LOOK_SECONDS", 3.0)
    found = Room("bad", Limits(stall=0.5))
    yield found
    found.close()


def failures(what: str) -> float:
    labels = {"plugin": "bad", "what": what}
    return REGISTRY.get_sample_value("kumulus_plugin_failures_total", labels) or 0.0


def ready(api: FakeApi, key: Key) -> dict[str, Any]:
    found = api.find(key) or {}
    conditions = found.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Ready"), {"status": "", "reason": ""})


@pytest.mark.parametrize(
    ("way", "counted"),
    [
        ("raises", "raised"),
        ("hangs", "timeout"),
        ("blocks", "blocked"),
        ("spins", "blocked"),
        ("leaks", "leaked"),
    ],
)
async def test_others_go_on_and_the_bad_kind_says_what_is_wrong(
    way: str, counted: str, toy_room: Room
) -> None:
    Bad.way, Bad.began, Bad.ended = way, 0, 0
    Bad.release.clear()
    before = failures(counted)
    async with core([guarded_actuator(Bad, toy_room), LeafActuator]) as (api, made):
        for number in range(TRUNKS):
            api.put(Trunk(metadata=ObjectMeta(name=f"bad-{number}")))
        await until(lambda: Bad.began)
        # The plugin is at it already; now comes the others' work.
        for number in range(LEAVES):
            api.put(Leaf(metadata=ObjectMeta(name=f"leaf-{number}", namespace="n")))
        leaves = [Key("Leaf", "n", f"leaf-{number}") for number in range(LEAVES)]
        await until(lambda: all(ready(api, key)["status"] == "True" for key in leaves))
        assert Bad.ended == 0, "the others were done while the plugin had done nothing"
        trunks = [Key("Trunk", "", f"bad-{number}") for number in range(TRUNKS)]
        await until(lambda: all(ready(api, key)["reason"] == "PluginFailed" for key in trunks))
        assert "plugin bad" in ready(api, trunks[0])["message"]
        assert failures(counted) > before
        await until(lambda: any(plural == "events" for plural, _, _ in api.objects))
        # It behaves again: so does its kind, without a restart.
        Bad.release.set()
        for key in trunks:
            made.wake(key)
        await until(lambda: all(ready(api, key)["status"] == "True" for key in trunks))


async def test_the_same_actuator_without_a_room_would_stop_everybody() -> None:
    """What the test above rests on: progress of others does tell whether the loop is held up."""
    Bad.way, Bad.began, Bad.ended = "blocks", 0, 0
    Bad.release.clear()
    threading.Timer(1.0, Bad.release.set).start()
    async with core([Bad, LeafActuator]) as (api, _):
        api.put(Trunk(metadata=ObjectMeta(name="bad-0")))
        await until(lambda: Bad.began)
        api.put(Leaf(metadata=ObjectMeta(name="leaf", namespace="n")))
        await until(lambda: ready(api, Key("Leaf", "n", "leaf"))["status"] == "True")
        assert Bad.ended > 0


async def test_objects_of_a_plugin_that_is_broken_say_so(toy_room: Room) -> None:
    actuator = missing_actuator(Trunk, "plugin x cannot be loaded: mend it")
    async with core([actuator, LeafActuator]) as (api, _):
        key = Key("Trunk", "", "orphan")
        api.put(Trunk(metadata=ObjectMeta(name="orphan")))
        await until(lambda: ready(api, key)["reason"] == "PluginBroken")
        assert "mend it" in ready(api, key)["message"]
        api.remove(key)
        await asyncio.sleep(0.05)
        assert api.find(key) is not None, "only its plugin can clean up after it"
