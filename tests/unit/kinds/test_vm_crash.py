"""The controller dies while a VM is made, and something else happens, too.

That it dies at any step of any flow is the fault matrix' matter (tests/faults)."""

from __future__ import annotations

import asyncio

import pytest

from controller.workflow.observers import StepEvent
from tests.support.fakes import FakeAgents, Fault
from tests.unit.kinds.world import World, cloud, running_vm, vm_spec

pytestmark = pytest.mark.looptime

CREATE = [
    "select-image", "allocate-host", "create-volumes", "create-nics", "allocate-ips",
    "await-volumes", "prepare-network", "start", "post-start",
]  # fmt: skip
WHEN = ["before", "after"]


@pytest.fixture(autouse=True, params=[0.0, 1.0], ids=["pending", "awaited"])
def _patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations end after the pass that began them, or within it."""
    monkeypatch.setattr(FakeAgents, "patience", request.param)


class Killer:
    """Ends the controller when ``step`` comes by: in the middle of a pass, nothing is written."""

    def __init__(self, world: World, flow: str, step: str, when: str) -> None:
        self._world, self._at, self.fired = world, (flow, step, when), False
        world.observers.append(self)

    def __call__(self, event: StepEvent) -> None:
        if self.fired or (event.flow, event.step, event.when) != self._at:
            return
        self.fired = True
        asyncio.get_running_loop().create_task(self._again())
        raise asyncio.CancelledError

    async def _again(self) -> None:
        await self._world.kill()
        self._world.controller()


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("step", CREATE[1:])
async def test_killed_while_creating_and_then_deleted(step: str, when: str) -> None:
    async with cloud() as world:
        killer = Killer(world, "vm-create", step, when)
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.until(lambda: killer.fired)
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        await world.settle()
        assert world.leftovers() == []


@pytest.mark.parametrize("when", ["before", "after", "rollback"])
@pytest.mark.parametrize("step", ["allocate-host", "create-volumes", "prepare-network", "start"])
async def test_killed_while_starting_fails_on_one_host(step: str, when: str) -> None:
    async with cloud() as world:
        world.agents.faults = [Fault("vm.start", host="host-1", after=True)]
        killer = Killer(world, "vm-create", step, when)
        vm = await running_vm(world)
        assert killer.fired
        await _is_whole(world, vm.uid)
        assert "host-1" not in world.domains().values()


async def test_a_new_controller_changes_nothing() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.settle(30)  # counters have caught up
        done = len(world.agents.executed)
        writes = len(world.objects.writes)
        await world.kill()
        world.controller()
        await world.settle(60)
        assert [e for e in world.agents.executed[done:] if not e[1].endswith(".ensure")] == []
        assert world.objects.writes[writes:] == []


async def _is_whole(world: World, uid: str, nics: int = 1) -> None:
    """One domain, one of each disk, one address for each NIC, and the ledger agrees."""
    assert list(world.domains()) == [uid]
    host = world.domains()[uid]
    for name, agent in world.agents.agents.items():
        seen = agent.machine.inventory()
        mine = name == host
        assert len(seen.volumes) == (len(world.vm().status.disks) if mine else 0)
        assert len(seen.dhcp) == len(seen.taps) == (nics if mine else 0)
    assert [o for s, o in world.ledger.amounts if s.startswith("host/")] == [uid]
    assert len([o for s, o in world.ledger.amounts if s.startswith("storage/")]) == len(
        world.vm().status.disks
    )
    assert len([o for s, o in world.ledger.values if not o.endswith("/dhcp")]) == 2 * nics
