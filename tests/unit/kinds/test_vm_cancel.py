"""A spec that changes, or a VM that is deleted, in the middle of a flow."""

from __future__ import annotations

import pytest

from controller.workflow.observers import StepEvent
from tests.faults.test_fault_matrix import ALL
from tests.support.fakes import Fault
from tests.unit.kinds.world import World, cloud, running_vm, vm_spec

pytestmark = pytest.mark.looptime
HERE, THERE = ({"hostRef": {"name": f"host-{n}"}} for n in (1, 2))


class Once:
    """Notes that ``step`` of ``flow`` begins."""

    def __init__(self, world: World, flow: str, step: str) -> None:
        self._at, self.passed = (flow, step, "before"), False
        world.observers.append(self)

    def __call__(self, event: StepEvent) -> None:
        self.passed |= (event.flow, event.step, event.when) == self._at


async def test_another_placement_in_the_middle_of_a_creation_makes_it_anew_there() -> None:
    async with cloud(2) as world:
        world.agents.faults = [Fault("volume.create", host="host-1", hang=True)]
        await world.apply("VirtualMachine", "vm", **vm_spec(placement=HERE))
        await world.until(lambda: (w := world.vm().status.workflow) and w.step == "await-volumes")
        world.agents.faults = []
        await world.change("VirtualMachine", "vm", placement=THERE)
        await world.until(lambda: world.vm().status.state == "Running", seconds=1200)
        assert list(world.domains().values()) == ["host-2"]
        assert (await world.audit()).clean
        reasons = world.events.reasons("vm")
        assert reasons.index("FlowCancelled") < reasons.index("RolledBack")
        assert "TryingAnotherHost" not in reasons, "no host failed"


@pytest.mark.parametrize("how", ["slow", "hangs"])
async def test_a_start_that_is_not_wanted_any_more_is_rolled_back(how: str) -> None:
    async with cloud(1) as world:
        await running_vm(world)
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.until(lambda: world.vm().status.state == "Stopped" and world.vm().ready)
        world.agents.delay = 2.0
        world.agents.faults = [Fault("vm.start", hang=True)] if how == "hangs" else []
        await world.change("VirtualMachine", "vm", powerState="Running")
        await world.until(lambda: (w := world.vm().status.workflow) and w.step == "start")
        world.agents.faults = []
        await world.change("VirtualMachine", "vm", powerState="Stopped")
        await world.until(lambda: world.vm().status.state == "Stopped" and world.vm().ready)
        assert world.domains() == {}
        assert world.events.reasons("vm").count("FlowCancelled") == 1
        assert (await world.audit()).clean


async def test_what_a_run_does_not_depend_on_may_change() -> None:
    async with cloud(2) as world:
        world.agents.delay = 1.0
        await world.apply("VirtualMachine", "vm", **vm_spec(placement=HERE))
        await world.until(lambda: world.vm().status.workflow is not None)
        await world.change("VirtualMachine", "vm", description="more words")
        await world.until(lambda: world.vm().status.state == "Running" and world.vm().ready)
        assert "FlowCancelled" not in world.events.reasons("vm")


@pytest.mark.parametrize("step", [step.name for step in ALL["vm-create"].steps])
async def test_a_vm_that_is_deleted_at_any_step_of_its_creation_leaves_nothing(step: str) -> None:
    async with cloud(2) as world:
        world.agents.delay = 1.0
        there = Once(world, "vm-create", step)
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.until(lambda: there.passed, step=0.01)
        await world.delete("VirtualMachine", "vm")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        await world.settle()
        assert world.leftovers() == []
        assert (await world.audit()).clean
