"""Steps that start, stop and otherwise handle the guest itself."""

from __future__ import annotations

from agents.wire import BootMode, Empty, VmArgs, VmRebootArgs, VmResult, VmStopArgs
from controller.errors import Waiting
from controller.kinds.heartbeat import note_power
from controller.kinds.support import answers, on_host
from controller.kinds.vm_disks import wire_disks
from controller.kinds.vm_model import (
    disk_devices,
    host_of,
    placed_host,
    tap_name,
)
from controller.kinds.vm_networks import wire_nics
from controller.kinds.vm_tags import boot_mode_of, hostname_of
from controller.reconcile.actuator import Context
from controller.workflow.step import Scope, Step
from crds.base import parse_quantity
from crds.v1alpha1.host import Host
from crds.v1alpha1.virtual_machine import VirtualMachine

AT_ONCE = 0.001
"""Seconds: as soon as the status is written."""


class Start(Step):
    name = "start"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = _here(vm, ctx)
        boot = boot_mode_of(vm, ctx.store)
        vm.status.boot_mode = boot or ""
        _written_first(scope)
        started = await on_host(scope, host, "vm.start", _vm_args(vm, host, boot, ctx), VmResult)
        vm.status.state = "Paused" if started.state == "Paused" else "Running"
        devices = disk_devices(vm.status.disks)
        for disk in vm.status.disks:
            disk.device = devices[disk.name]
        for nic in vm.status.nics:
            nic.device = tap_name(vm, nic.name)
        note_power(ctx, host.uid, vm.uid, started.state)

    async def rollback(self, scope: Scope[VirtualMachine]) -> None:
        await _destroy(scope, "undo")


class PostStart(Step):
    """The VM runs: what was true of starting it is over."""

    name = "post-start"
    no_rollback = "it only takes note"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, status = scope.obj, scope.obj.status
        status.restarted_at = vm.spec.restarted_at
        status.last_host = status.host_ref.name if status.host_ref else status.last_host
        status.excluded_hosts, status.start_failures = [], []
        scope.ctx.events.normal(
            vm, "Started", f"on host {status.last_host}, {status.ip or 'no IP'}"
        )


class Stop(Step):
    """Ask the guest to shut down; one that cannot hear (crashed, paused) is pulled at once."""

    name = "stop"
    no_rollback = "a guest that is to run is started by the next look"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = await placed_host(scope)
        if host is None or not await answers(host, ctx):
            ctx.events.warning(vm, "HostLost", "its host was deleted and cannot be reached")
            return
        power = ctx.observed.vms.get(host.uid, {}).get(vm.uid)
        args = VmStopArgs(force=power in ("Paused", "Crashed"))
        await on_host(scope, host, "vm.stop", args, VmResult)
        note_power(ctx, host.uid, vm.uid, None)


class Destroy(Step):
    name = "destroy"
    no_rollback = "what is deleted stays deleted"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        await _destroy(scope)


class ReleaseHost(Step):
    """Give the host's capacity back; the VM is nowhere now."""

    name = "release-host"
    no_rollback = "the next start claims a host anew"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx, status = scope.obj, scope.ctx, scope.obj.status
        await ctx.ledger.release(vm.uid, "host/")
        if status.host_ref is not None:
            status.last_host = status.host_ref.name
        status.host_ref = status.cluster_ref = None
        if not vm.deleting:
            status.state = "Stopped"
            status.restarted_at = vm.spec.restarted_at


class Reboot(Step):
    name = "reboot"
    no_rollback = "a reboot cannot be taken back"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = _here(vm, ctx)
        _written_first(scope)
        done = await on_host(scope, host, "vm.reboot", VmRebootArgs(), VmResult)
        _keep(vm, host, done, ctx)
        vm.status.restarted_at = vm.spec.restarted_at
        ctx.events.normal(vm, "Rebooted", f"on host {host.name}")


class Pause(Step):
    name = "pause"
    no_rollback = "the next look resumes a guest that is to run"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = _here(vm, ctx)
        done = await on_host(scope, host, "vm.pause", Empty(), VmResult)
        _keep(vm, host, done, ctx)
        ctx.events.normal(vm, "Paused", f"on host {host.name}")


class Resume(Step):
    name = "resume"
    no_rollback = "the next look pauses a guest that is to be paused"

    async def run(self, scope: Scope[VirtualMachine]) -> None:
        vm, ctx = scope.obj, scope.ctx
        host = _here(vm, ctx)
        done = await on_host(scope, host, "vm.resume", Empty(), VmResult)
        _keep(vm, host, done, ctx)
        ctx.events.normal(vm, "Resumed", f"on host {host.name}")


def _written_first(scope: Scope[VirtualMachine]) -> None:
    """Raise Waiting, for the status to be written, unless the API says already where the VM is
    and in which run: a guest must not run where nobody looks for it, nor be rebooted twice,
    because the controller was killed here."""
    vm = scope.obj
    written = scope.ctx.store.get("VirtualMachine", vm.name, vm.metadata.namespace or "")
    run = written.status.workflow if written is not None else None
    known = run is not None and run.run_id == scope.run_id
    if not known or written.status.host_ref != vm.status.host_ref:
        raise Waiting("its host is written down first", reason="Recording", retry_after=AT_ONCE)


def _here(vm: VirtualMachine, ctx: Context) -> Host:
    host = host_of(vm, ctx.store)
    if host is None:
        raise Waiting("its host does not exist any more", reason="HostMissing")
    return host


def _keep(vm: VirtualMachine, host: Host, done: VmResult, ctx: Context) -> None:
    vm.status.state = "Paused" if done.state == "Paused" else "Running"
    note_power(ctx, host.uid, vm.uid, done.state)


async def _destroy(scope: Scope[VirtualMachine], part: str = "") -> None:
    """Pull the guest and remove its definition, wherever it may have been started."""
    vm, ctx = scope.obj, scope.ctx
    host = await placed_host(scope)
    if host is not None and await answers(host, ctx):
        await on_host(scope, host, "vm.destroy", Empty(), VmResult, part=part)
        note_power(ctx, host.uid, vm.uid, None)


def _vm_args(vm: VirtualMachine, host: Host, boot: BootMode | None, ctx: Context) -> VmArgs:
    return VmArgs(
        name=vm.name,
        namespace=vm.metadata.namespace or "",
        cpu=vm.status.cpu,
        memory=parse_quantity(vm.status.memory),
        architecture=host.status.architecture or "x86_64",
        disks=wire_disks(vm, ctx),
        nics=wire_nics(vm, ctx),
        hostname=hostname_of(vm),
        user_data=vm.spec.user_data,
        boot_mode=boot,
        paused=vm.spec.power_state == "Paused",
    )
