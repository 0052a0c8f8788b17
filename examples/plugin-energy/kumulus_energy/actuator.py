"""EnergyBudget: adds up what the VMs of its zone draw."""

from __future__ import annotations

from collections.abc import Iterable

from controller.keys import Key
from controller.reconcile.actuator import Actuator, Context, News, Outcome, Store
from kumulus_energy.crds import EnergyBudget

DRAWING = ("Starting", "Running", "Rebooting", "Stopping", "Unknown")


def budgets_of(vm: News, store: Store) -> Iterable[Key]:
    """A VM concerns the budget of the zone that it is in, and those of a zone that it left."""
    return [Key("EnergyBudget", "", budget.name) for budget in store.list("EnergyBudget")]


def draws(store: Store, budget: EnergyBudget, but: str = "") -> int:
    """Watts of the zone's VMs, without the one with the uid ``but``."""
    return sum(
        vm.status.cpu * budget.spec.watts_per_cpu
        for vm in store.list("VirtualMachine")
        if vm.uid != but
        and vm.status.host_ref is not None
        and vm.status.zone_ref is not None
        and vm.status.zone_ref.name == budget.spec.zone_ref.name
        and vm.status.state in DRAWING
    )


class EnergyBudgetActuator(Actuator[EnergyBudget]):
    model = EnergyBudget
    watches = {"VirtualMachine": budgets_of}
    surveys = frozenset({"VirtualMachine"})

    async def reconcile(self, obj: EnergyBudget, ctx: Context) -> Outcome:
        obj.status.watts = draws(ctx.store, obj)
        obj.status.state = "Within" if obj.status.watts <= obj.spec.watts else "Exceeded"
        return Outcome(reason=obj.status.state)
