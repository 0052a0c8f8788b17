"""The simulator: a driver that pretends to be a hypervisor or an image store.

It does what a real one would (it keeps its machines across restarts, refuses what cannot be) in
the time and with the faults that it is told to (``simulated.chaos``). One process may hold
thousands of machines: each is some records in one database.

While it runs, a controller's certificate may change what goes wrong:

=================================  =================================================
``GET    …/{name}/chaos``          configuration and counts of executed actions
``PUT    …/{name}/chaos``          ChaosConfig for this agent, kept across restarts
``DELETE …/{name}/chaos``          back to the process' own configuration
``POST   …/{name}/chaos``          ChaosEvent: the machine restarts, a guest crashes
``GET    …/{name}/executions``     log of executed actions; ``?resource=``, ``?limit=``
=================================  =================================================
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from agents.drivers.base import (
    OPERATION,
    Actions,
    AgentId,
    DriverContext,
    DriverError,
)
from agents.drivers.simulated.chaos import Chaos, ChaosConfig, Plan, Tally
from agents.drivers.simulated.depot import Depot
from agents.drivers.simulated.machine import HYPERVISOR, Capacity, Machine
from agents.drivers.simulated.world import Execution, World
from agents.wire import (
    AGENT_VERSION,
    CachePruneArgs,
    Empty,
    Facts,
    ImageAddArgs,
    ImageRemoveArgs,
    Inventory,
    NetworkArgs,
    NetworkReleaseArgs,
    Ping,
    StorageArgs,
    StorageRemoveArgs,
    VmArgs,
    VmDiskArgs,
    VmNicArgs,
    VmRebootArgs,
    VmStopArgs,
    VolumeCreateArgs,
    VolumeDeleteArgs,
    Wire,
)

A = TypeVar("A", bound=Wire)
KEPT_PLANS = 10_000
"""Operations whose callback may still have to be lost or doubled."""


def die() -> None:
    """kill -9 of this process: nothing is flushed, closed or said."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Simulation:
    """What all simulated agents of a process share."""

    world: World
    capacity: Capacity = field(default_factory=Capacity)
    chaos: ChaosConfig = field(default_factory=ChaosConfig)
    die: Callable[[], None] = die
    drivers: dict[AgentId, SimulatorDriver] = field(default_factory=dict)

    def driver(self, agent: AgentId) -> SimulatorDriver:
        """A new driver; the one that copies and dead ask from now on."""
        self.drivers[agent] = SimulatorDriver(self, agent)
        return self.drivers[agent]

    def copies(self, agent: AgentId, operation: str) -> int:
        """callbacks.Copies: how often to deliver the operation's callback."""
        driver = self.drivers.get(agent)
        return 1 if driver is None else driver.copies(operation)

    def dead(self, agent: AgentId) -> bool:
        """Must the agent look as if its host were gone?"""
        driver = self.drivers.get(agent)
        chaos = Chaos(agent.name, self.chaos) if driver is None else driver.chaos
        return chaos.unreachable


class SimulatorDriver:
    """One simulated machine. Implements drivers.base.Driver."""

    def __init__(self, simulation: Simulation, agent: AgentId) -> None:
        self.agent = agent
        self._simulation = simulation
        self._world = simulation.world
        self.machine = Machine(simulation.capacity)
        self.chaos = Chaos(agent.name, simulation.chaos)
        self._own_chaos = False
        self._plans: OrderedDict[str, int] = OrderedDict()
        self._actions = _actions(self.machine)

    async def open(self) -> None:
        await self._world.open()
        for kind, key, record in await self._world.load(self.agent):
            self.machine.load(kind, key, record)
        own = await self._world.chaos(self.agent)
        if own is not None:
            self._own_chaos = True
            self.chaos = Chaos(self.agent.name, ChaosConfig.model_validate_json(own))
        for fault, seen, fired in await self._world.tallies(self.agent):
            self.chaos.tallies[fault] = Tally(seen, fired)
        if "boot-id" not in self.machine.notes:
            await self.reboot()

    async def close(self) -> None:
        await self._world.close()

    async def execute(self, action: str, resource: str, args: Wire) -> Wire:
        plan = self.chaos.plan(action, resource)
        self._remember(plan)
        # Half before, half after: the work lies somewhere within the time that it takes.
        await asyncio.sleep(plan.delay / 2)
        await self._strike_before(plan)
        outcome = "done"
        try:
            _fail(plan)
            result = await self._actions.run(action, resource, args)
        except DriverError as error:
            outcome = error.code
            raise
        finally:
            # The changes were made in one go, so nothing of another action is among them.
            await self._world.executed(
                self.agent,
                self.machine.changes(),
                operation=OPERATION.get(),
                action=action,
                resource=resource,
                outcome=outcome,
            )
        await self._strike_after(plan)
        await asyncio.sleep(plan.delay / 2)
        return result

    async def ping(self) -> Ping:
        """Takes the latency that is configured for ``ping`` by name."""
        await asyncio.sleep(self.chaos.ping_delay())
        return Ping(boot_id=self.boot_id, vms=self.machine.power())

    async def facts(self) -> Facts:
        capacity = self._simulation.capacity
        return Facts(
            hostname=self.agent.name,
            architecture="x86_64",
            operating_system="Simulated Linux",
            kernel="6.12.0-simulated",
            cpu=capacity.cpu,
            cpu_sockets=capacity.cpu_sockets,
            cpu_model="Simulated CPU",
            memory=capacity.memory,
            hypervisor=HYPERVISOR,
            hypervisor_version=AGENT_VERSION,
            boot_id=self.boot_id,
        )

    async def inventory(self) -> Inventory:
        return self.machine.inventory()

    async def image_file(self, file: str) -> Path:
        raise DriverError("not-found", f"{file}: a simulated store has no bytes to give")

    @property
    def boot_id(self) -> str:
        note = self.machine.notes.get("boot-id")
        return note.text if note is not None else ""

    async def reboot(self) -> None:
        """The machine restarts: a new boot id, every guest off."""
        self.machine.boot(str(uuid.uuid4()))
        await self._world.save(self.agent, self.machine.changes())

    async def crash(self, uid: str) -> None:
        """A guest dies. Raises DriverError not-found."""
        self.machine.crash(uid)
        await self._world.save(self.agent, self.machine.changes())

    async def set_chaos(self, config: ChaosConfig | None) -> None:
        """Other faults from now on, counted from zero; None: the process' own."""
        text = None if config is None else config.model_dump_json()
        await self._world.set_chaos(self.agent, text)
        self._own_chaos = config is not None
        self.chaos = Chaos(self.agent.name, config or self._simulation.chaos)

    async def report(self) -> dict[str, Any]:
        """Configuration and counts, for GET chaos."""
        return {
            "config": self.chaos.config.model_dump(mode="json"),
            "own": self._own_chaos,
            "bootId": self.boot_id,
            "executed": await self._world.counts(self.agent),
        }

    async def executions(self, resource: str | None, limit: int) -> list[Execution]:
        """The latest of the log of executed actions, oldest first."""
        return await self._world.executions(self.agent, resource, limit)

    def copies(self, operation: str) -> int:
        """How often the operation's callback is to be delivered."""
        return self._plans.pop(operation, 1)

    def _remember(self, plan: Plan) -> None:
        operation = OPERATION.get()
        if plan.copies != 1 and operation:
            self._plans[operation] = plan.copies
            while len(self._plans) > KEPT_PLANS:
                self._plans.popitem(last=False)

    async def _strike_before(self, plan: Plan) -> None:
        if plan.fault("hang"):
            await asyncio.Event().wait()
        if plan.fault("die"):
            await self._die()

    async def _strike_after(self, plan: Plan) -> None:
        if plan.fault("die-after"):
            await self._die()

    async def _die(self) -> None:
        tallies = [(key, t.seen, t.fired) for key, t in self.chaos.tallies.items()]
        # Else the next process would die of the same fault, for ever.
        await self._world.set_tallies(self.agent, tallies)
        self._simulation.die()


def simulator(context: DriverContext) -> SimulatorDriver:
    """DriverFactory: one simulated machine, kept in its own directory.

    Options: ``cpu``, ``memory`` and ``disk`` (bytes), ``chaos`` (a YAML file).
    """
    chaos = context.options.get("chaos")
    simulation = Simulation(
        World(context.data_dir / "simulator.db"),
        capacity_of(context.options),
        ChaosConfig.load(Path(chaos)) if chaos else ChaosConfig(),
    )
    return simulation.driver(context.agent)


def capacity_of(options: Mapping[str, str]) -> Capacity:
    """Capacity with some numbers replaced. Raises DriverError ``invalid``."""
    given = {key: options[key] for key in ("cpu", "memory", "disk") if key in options}
    try:
        numbers = {key: int(text) for key, text in given.items()}
    except ValueError as error:
        raise DriverError("invalid", f"simulator options: {error}") from None
    whole = Capacity()
    return replace(
        whole,
        cpu=numbers.get("cpu", whole.cpu),
        memory=numbers.get("memory", whole.memory),
        disk=numbers.get("disk", whole.disk),
    )


def _fail(plan: Plan) -> None:
    fault = plan.fault("error")
    if fault is not None:
        raise DriverError(fault.code, fault.message)


def _actions(machine: Machine) -> Actions:
    depot = Depot(machine)
    actions = Actions()
    at_once(actions, "storage.ensure", StorageArgs, lambda _, a: machine.make_storage(a.path))
    at_once(actions, "storage.remove", StorageRemoveArgs, machine.storage_remove)
    at_once(actions, "store.ensure", StorageArgs, lambda _, a: depot.ensure(a.path))
    at_once(actions, "image.add", ImageAddArgs, depot.add)
    at_once(actions, "image.remove", ImageRemoveArgs, depot.remove)
    at_once(actions, "image.prune", CachePruneArgs, machine.image_prune)
    at_once(actions, "volume.create", VolumeCreateArgs, machine.volume_create)
    at_once(actions, "volume.delete", VolumeDeleteArgs, machine.volume_delete)
    at_once(actions, "network.ensure", NetworkArgs, machine.network_ensure)
    at_once(actions, "network.release", NetworkReleaseArgs, machine.network_release)
    at_once(actions, "vm.start", VmArgs, machine.vm_start)
    at_once(actions, "vm.stop", VmStopArgs, lambda uid, _: machine.vm_remove(uid))
    at_once(actions, "vm.destroy", Empty, lambda uid, _: machine.vm_remove(uid))
    at_once(actions, "vm.reboot", VmRebootArgs, lambda uid, _: machine.vm_reboot(uid))
    at_once(actions, "vm.pause", Empty, lambda uid, _: machine.vm_pause(uid))
    at_once(actions, "vm.resume", Empty, lambda uid, _: machine.vm_resume(uid))
    at_once(
        actions, "vm.attach-disk", VmDiskArgs, lambda uid, a: machine.vm_attach_disk(uid, a.disk)
    )
    at_once(
        actions, "vm.detach-disk", VmDiskArgs, lambda uid, a: machine.vm_detach_disk(uid, a.disk)
    )
    at_once(actions, "vm.attach-nic", VmNicArgs, lambda uid, a: machine.vm_attach_nic(uid, a.nic))
    at_once(actions, "vm.detach-nic", VmNicArgs, lambda uid, a: machine.vm_detach_nic(uid, a.nic))
    return actions


def at_once(actions: Actions, action: str, model: type[A], work: Callable[[str, A], Wire]) -> None:
    """Register work that needs no waiting."""

    async def handle(resource: str, args: A) -> Wire:
        return work(resource, args)

    actions.on(action, model, handle)
