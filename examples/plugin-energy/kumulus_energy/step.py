"""A step before a host is chosen: a flexible VM waits until there is power for it."""

from __future__ import annotations

from controller.errors import Waiting
from controller.plugins.interface import Insertion
from controller.workflow.step import Scope, Step
from crds.tags import one_of
from crds.v1alpha1.virtual_machine import VirtualMachine
from kumulus_energy.actuator import draws

LOOK_AGAIN = 5.0
"""Seconds. Nothing wakes a VM when others stop."""


class AwaitPower(Step):
    name = "await-power"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, store = scope.obj, scope.ctx.store
        tag = one_of(vm, "energyClass")
        if tag is None or tag["class"] != "flexible":
            return
        cpu = _cpu(vm, scope)
        for budget in store.list("EnergyBudget"):
            asked = cpu * budget.spec.watts_per_cpu
            left = budget.spec.watts - draws(store, budget, but=vm.uid)
            if asked > left:
                raise Waiting(
                    f"EnergyBudget {budget.name} has {max(0, left)} W left, the VM needs {asked} W",
                    reason="WaitingForPower",
                    retry_after=LOOK_AGAIN,
                )


def _cpu(vm: VirtualMachine, scope: Scope[VirtualMachine]) -> int:
    ref = vm.spec.instance_offering_ref
    offering = scope.ctx.store.get("InstanceOffering", ref.name) if ref else None
    return offering.spec.cpu if offering is not None else vm.spec.cpu or 1


INSERTION = Insertion("VirtualMachine", AwaitPower, before="allocate-host")
