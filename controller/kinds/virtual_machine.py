"""VirtualMachine: makes a guest be as its spec says, whatever happened meanwhile.

One look: correct the state by what the host reports, decide what is needed next
(``vm_plan.next_flow``), run that flow, and look again. The steps are in ``vm_place``,
``vm_disks``, ``vm_networks`` and ``vm_power``; what must outlive this process is in the status
and in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.errors import FlowFailed, Terminal, Transient
from controller.keys import Key
from controller.kinds.availability import storages_away, users_of
from controller.kinds.support import (
    RETRY_FAILED,
    abandoned,
    clean_up,
    failed_before,
    key_of,
    stalls,
)
from controller.kinds.trash import recovers
from controller.kinds.vm_holdings import vm_holdings
from controller.kinds.vm_model import (
    VM_NAME,
    going,
    host_of,
    is_created,
    new_disks,
    new_nics,
    size_of,
    skipped_nics,
    stale_disks,
    stale_nics,
)
from controller.kinds.vm_plan import (
    AFTER_FAILURE,
    DURING,
    HOST_STEPS,
    STARTING,
    Situation,
    next_flow,
    observed_state,
)
from controller.kinds.vm_trash import destroying, restore, to_be_recovered
from controller.reconcile.actuator import Actuator, Context, News, Outcome, Store
from controller.reconcile.holdings import Holding
from crds.base import format_quantity, parse_quantity
from crds.refs import Reference
from crds.v1alpha1.host import Host
from crds.v1alpha1.virtual_machine import VirtualMachine

MAX_FLOWS = 20
"""Flows that may follow each other in one look, before others have their turn."""


def _maker(volume: News, store: Store) -> Iterable[Key]:
    """The VM that made a volume waits for it to come or to go, and may not refer to it yet."""
    name = volume.annotation(VM_NAME)
    return [Key("VirtualMachine", volume.key.namespace, name)] if name else []


def _on_network(l2: News, store: Store) -> Iterable[Key]:
    """VMs with a NIC on it: a cluster may have lost it, or have it again."""
    networks = [l3 for l3, _ in store.users(l2.key, "L3Network")]
    return {vm for l3 in networks for vm, _ in store.users(l3, "VirtualMachine")}


def _on_storage(storage: News, store: Store) -> Iterable[Key]:
    """VMs with a disk on it: it may be in maintenance, or gone from their cluster, or back."""
    return users_of(storage.key, store) if storage.loud else ()


class VirtualMachineActuator(Actuator[VirtualMachine]):
    model = VirtualMachine
    partitioned = True
    watches = {"Volume": _maker, "L2Network": _on_network, "PrimaryStorage": _on_storage}

    async def reconcile(self, obj: VirtualMachine, ctx: Context) -> Outcome:
        if to_be_recovered(obj, ctx):
            await restore(obj, ctx)
        await _cancel_if_unwanted(obj, ctx)
        failed = _prepare(obj, ctx) if not ctx.flows.running(obj) else None
        for _ in range(MAX_FLOWS):
            flow = ctx.flows.running(obj) or _next(obj, ctx)
            if flow is None:
                return _outcome(obj, ctx)
            if failed is not None and flow != "vm-stop":
                raise failed
            await _run(flow, obj, ctx)
        raise Transient("still changing", reason="Converging")

    async def delete(self, obj: VirtualMachine, ctx: Context) -> Outcome:
        """Its owned volumes go with it; other volumes stay."""
        obj.status.state = "Destroying"
        ctx.observed.unscheduled.discard(key_of(obj))
        await clean_up(destroying(obj, ctx), obj, ctx)
        obj.status.state = "Destroyed"
        return Outcome()

    def holdings(self, obj: VirtualMachine, store: Store) -> Iterable[Holding]:
        return vm_holdings(obj, store)

    def waits_for(self, obj: VirtualMachine, reference: Reference) -> bool:
        """Only a VM of which nothing exists yet."""
        return obj.status.workflow is None and not is_created(obj) and not recovers(obj)


# -- before anything is decided


def _prepare(vm: VirtualMachine, ctx: Context) -> Terminal | None:
    """Take note of what happened; returns the failure that it is too early to repeat."""
    _observe(vm, ctx)
    failed = failed_before(vm, ctx)
    if failed is None and not _trying(vm):
        vm.status.excluded_hosts, vm.status.start_failures = [], []
    return failed


def _trying(vm: VirtualMachine) -> bool:
    """Is it in the middle of trying hosts, for the spec that it has now?"""
    return not stalls(vm) and vm.status.observed_generation == vm.metadata.generation


async def _cancel_if_unwanted(vm: VirtualMachine, ctx: Context) -> None:
    """A start that has not even found a host is given up when the VM is to be stopped."""
    flow = ctx.flows.running(vm)
    if flow in STARTING and vm.spec.power_state == "Stopped" and vm.status.host_ref is None:
        ctx.observed.unscheduled.discard(key_of(vm))
        await ctx.flows.cancel(vm, ctx, "it is to be stopped")


def _observe(vm: VirtualMachine, ctx: Context) -> None:
    """Correct the state by what the host says of the VM."""
    before, host = vm.status.state, host_of(vm, ctx.store)
    if host is None:
        return
    seen = ctx.observed.vms.get(host.uid)
    power = seen.get(vm.uid, "Absent") if seen is not None else None
    after = observed_state(before, host.status.status, power)
    vm.status.state = after
    if after == before:
        return
    if after == "Unknown":
        ctx.events.warning(vm, "HostDisconnected", f"host {host.name} does not answer")
    elif before == "Unknown":
        ctx.events.normal(vm, "HostReconnected", f"host {host.name} says: {after}")
    elif after == "Crashed":
        ctx.events.warning(vm, "Crashed", f"the guest crashed on host {host.name}")
    elif after == "Stopped":
        ctx.events.warning(vm, "GuestStopped", f"the guest went off on host {host.name}")


# -- deciding


def _next(vm: VirtualMachine, ctx: Context) -> str | None:
    if ctx.store.doomed(vm):
        return None
    return next_flow(situation(vm, ctx))


def situation(vm: VirtualMachine, ctx: Context) -> Situation:
    """What the decision depends on, as it is now."""
    host, placed = host_of(vm, ctx.store), vm.status.host_ref is not None
    found = Situation(
        desired=vm.spec.power_state, state=vm.status.state, created=is_created(vm), placed=placed
    )
    if not found.created:
        return found
    return replace(
        found,
        leave=placed and (_must_leave(host) or bool(storages_away(vm, ctx.store))),
        abandoned=placed and abandoned(host),
        reboot=_reboot_due(vm),
        stale_nics=bool(stale_nics(vm, ctx.store)),
        new_nics=bool(new_nics(vm, ctx.store)),
        stale_disks=bool(stale_disks(vm, ctx.store)),
        new_disks=bool(new_disks(vm, ctx.store)),
    )


def _must_leave(host: Host | None) -> bool:
    return host is None or going(host) or host.spec.state == "Maintenance"


def _reboot_due(vm: VirtualMachine) -> bool:
    asked, done = vm.spec.restarted_at, vm.status.restarted_at
    return asked is not None and (done is None or asked > done)


# -- doing


async def _run(flow: str, vm: VirtualMachine, ctx: Context) -> None:
    vm.status.state = DURING.get(flow, vm.status.state)
    try:
        await ctx.flows.run(flow, vm, ctx)
    except FlowFailed as failure:
        _failed(flow, vm, failure, ctx)
    else:
        if flow == "vm-stop":
            vm.status.state = "Stopped"  # this pass may have had only the last steps to do
            ctx.events.normal(vm, "Stopped", f"on host {vm.status.last_host}")


def _failed(flow: str, vm: VirtualMachine, failure: FlowFailed, ctx: Context) -> None:
    """Return to try another host; otherwise raise ``failure``."""
    if flow in STARTING and failure.step in HOST_STEPS and vm.status.excluded_hosts:
        host = vm.status.excluded_hosts[-1]
        ctx.events.warning(vm, "TryingAnotherHost", f"{host}: {failure.message}")
        return
    let_go = flow == "vm-stop" and vm.status.host_ref is None
    vm.status.state = "Stopped" if let_go else AFTER_FAILURE.get(flow, vm.status.state)
    failure.retry_after = RETRY_FAILED
    raise failure


# -- telling


def _outcome(vm: VirtualMachine, ctx: Context) -> Outcome:
    if ctx.store.doomed(vm):
        return Outcome(False, "Deleting", "it is deleted together with what it belongs to")
    state, message = vm.status.state, "; ".join(_remarks(vm, ctx))
    if state == "Unknown":
        name = vm.status.host_ref.name if vm.status.host_ref else ""
        return Outcome(False, "HostDisconnected", f"host {name} does not answer; state unknown")
    return Outcome(reason=state, message=message)


def _remarks(vm: VirtualMachine, ctx: Context) -> list[str]:
    """For people: what of the spec has not taken effect, and when it will."""
    remarks = skipped_nics(vm, ctx.store)
    if vm.status.host_ref is None:
        return remarks
    cpu, memory = size_of(vm, ctx.store)
    if (cpu, memory) != (vm.status.cpu, parse_quantity(vm.status.memory)):
        wanted = f"{cpu} vCPUs and {format_quantity(memory)}"
        remarks.append(f"{wanted} take effect at the next start")
    return remarks
