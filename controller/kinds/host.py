"""Host: connects to the agent of a machine, keeps pinging it and offers its capacity.

::

    "" → Connecting → Connected ⇄ Disconnected (three missed pings)

A host connects by the flow host-connect: facts are read and checked, the capacity pool is set.
It connects again when it was disconnected, restarted (another boot id), got another agent
version or another spec, and when the controller restarts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from agents.wire import Facts, Ping
from controller.agentlink.client import Endpoint
from controller.clock import utc
from controller.errors import FlowFailed, Terminal
from controller.keys import Key
from controller.kinds.availability import inherited
from controller.kinds.heartbeat import Heartbeat, forget_host, record_ping
from controller.kinds.primary_storage import STORAGE, serves
from controller.kinds.support import host_endpoint, key_of, wake_unscheduled
from controller.ledger.base import Pool
from controller.reconcile.actuator import Actuator, Context, News, Outcome, Store
from controller.reconcile.holdings import LEDGER, POOLS, Holding
from controller.workflow.step import Scope, Step
from crds.base import format_quantity
from crds.refs import Reference
from crds.v1alpha1.host import Host

MAX_VMS = 100_000
"""Room for VMs in a host's pool: they are counted there, their number is not what limits it."""

RECOUNT = 1.0
"""Seconds between two looks at the capacity pool when VMs come and go quickly."""

_POWER_STATE = {"Running": "Running", "Paused": "Paused", "Crashed": "Crashed"}


def host_scope(host: Host) -> str:
    return f"host/{host.uid}"


def vms_on(host: Host, store: Store) -> list[Key]:
    """VMs whose status says that they are placed here."""
    return [
        vm
        for vm, ref in store.users(key_of(host), "VirtualMachine")
        if ref.path == ("status", "hostRef")
    ]


def _left_host(vm: News, store: Store) -> Iterable[Key]:
    """The host that a VM left: it has room again, and may be waiting to be empty."""
    return vm.left("Host")


def _cleared(storage: News, store: Store) -> Iterable[Key]:
    """Hosts that are being deleted and wait until a storage that goes has cleaned up on them."""
    clusters = {key.name for key in storage.refs("Cluster")}
    hosts = store.list("Host") if storage.deleting else ()
    return [key_of(h) for h in hosts if h.deleting and h.spec.cluster_ref.name in clusters]


def _going(host: Host, store: Store) -> list[str]:
    """Primary storages that are deleted with ``host`` or by themselves."""
    cluster = host.spec.cluster_ref.name
    storages = store.list("PrimaryStorage")
    return sorted(s.name for s in storages if serves(s, cluster) and store.doomed(s))


class ReadFacts(Step):
    """Raises Terminal if the machine does not fit its cluster."""

    name = "read-facts"
    no_rollback = "it only looks"

    async def run(self, scope: Scope[Host]) -> None:
        host, ctx = scope.obj, scope.ctx
        facts = await ctx.agents.facts(host_endpoint(host, ctx))
        cluster = ctx.store.get("Cluster", host.spec.cluster_ref.name)
        if cluster is not None and facts.architecture != cluster.spec.architecture:
            raise Terminal(
                f"host {host.name} is {facts.architecture}, cluster {cluster.name} is "
                f"{cluster.spec.architecture}; add it to a cluster of its architecture",
                reason="ArchitectureMismatch",
            )
        _keep_facts(host, facts)
        assert scope.data is not None
        scope.data["facts"] = facts


class SetHostCapacity(Step):
    """Over-provisioning: a host offers (CPUs - reserved) · ratio vCPUs; memory likewise."""

    name = "set-host-capacity"
    no_rollback = "each connection sets the pool anew, and it goes with the host"

    async def run(self, scope: Scope[Host]) -> None:
        host, ctx = scope.obj, scope.ctx
        facts = (scope.data or {}).get("facts") or await ctx.agents.facts(host_endpoint(host, ctx))
        await ctx.ledger.set_pool(host_scope(host), capacity(host, facts, ctx))


def capacity(host: Host, facts: Facts, ctx: Context) -> dict[str, int]:
    """What VMs may claim: vCPUs, bytes of memory, VMs."""
    reserved = host.spec.reserved_memory
    kept = ctx.tuning.reserved_memory if reserved is None else reserved
    return {
        "cpu": int(max(0, facts.cpu - host.spec.reserved_cpu) * ctx.tuning.cpu_ratio),
        "memory": int(max(0, facts.memory - kept) * ctx.tuning.memory_ratio),
        "vms": MAX_VMS,
    }


def _keep_facts(host: Host, facts: Facts) -> None:
    status = host.status
    status.cpu, status.cpu_sockets = facts.cpu, facts.cpu_sockets
    status.cpu_model, status.memory = facts.cpu_model, format_quantity(facts.memory)
    status.architecture, status.operating_system = facts.architecture, facts.operating_system
    status.kernel, status.boot_id = facts.kernel, facts.boot_id
    status.hypervisor, status.hypervisor_version = facts.hypervisor, facts.hypervisor_version
    status.agent_version = facts.agent_version


class HostActuator(Actuator[Host]):
    """Every replica pings each host every ``tuning.ping_interval`` seconds, since it has to know
    what the host says of the VMs that the replica works on; the host's owner writes its status."""

    model = Host
    watches = {"VirtualMachine": _left_host, "PrimaryStorage": _cleared}

    def __init__(self) -> None:
        self._pulse = Heartbeat()
        self._connected: dict[str, int] = {}  # uid → generation that it was connected with
        self._counted: dict[str, float] = {}
        self._room: dict[str, tuple[bool, int, int]] = {}  # uid → others' hosts, when last seen

    async def reconcile(self, obj: Host, ctx: Context) -> Outcome:
        if ctx.flows.running(obj):
            await self._connect(obj, ctx)
        elif self._pulse.left(obj.uid, ctx) <= 0 or self._respecified(obj):
            await self._ping(obj, ctx)
        obj.status.state = _state(obj, ctx)
        recount = await self._count(obj, ctx)
        ping = max(self._pulse.left(obj.uid, ctx), 0.1)
        if obj.status.status != "Connected":
            reason = obj.status.status or "Connecting"
            return Outcome(False, reason, self._pulse.silence(obj), ping)
        return _outcome(obj, ctx, min(ping, recount) if recount else ping)

    async def observe(self, obj: Host, ctx: Context) -> float | None:
        if obj.deleting or obj.status.status != "Connected":
            forget_host(ctx, obj.uid)
            return None
        if self._pulse.left(obj.uid, ctx) <= 0:
            began = ctx.clock.monotonic()
            answer = await self._pulse.look(obj.uid, host_endpoint(obj, ctx), ctx)
            if answer is not None:
                record_ping(ctx, obj.uid, answer.vms, began)
                _wake_drifted(obj, ctx)
        before, now = self._room.get(obj.uid), _room(obj)
        self._room[obj.uid] = now
        if before is None or now > before:
            wake_unscheduled(ctx)
        return max(self._pulse.left(obj.uid, ctx), 0.1)

    def agent(self, obj: Host, ctx: Context) -> Endpoint | None:
        return host_endpoint(obj, ctx)

    async def delete(self, obj: Host, ctx: Context) -> Outcome:
        """Its VMs have been stopped and its volumes let go by now. Storage that is deleted, too,
        still needs its agent."""
        obj.status.state = "Deleting"
        going = _going(obj, ctx.store)
        if going:
            message = f"waiting for PrimaryStorage {', '.join(going)} to clean up on it"
            return Outcome(False, "WaitingForStorage", message)
        for pool in await ctx.ledger.pools(STORAGE):
            if pool.scope.endswith(f"/{obj.uid}"):
                await ctx.ledger.drop_pool(pool.scope)
        await ctx.ledger.drop_pool(host_scope(obj))
        self._forget(obj, ctx)
        return Outcome()

    def holdings(self, obj: Host, store: Store) -> Iterable[Holding]:
        connected = obj.status.status == "Connected" and not obj.deleting
        return [Holding(LEDGER, POOLS, host_scope(obj), needed=connected)]

    def waits_for(self, obj: Host, reference: Reference) -> bool:
        return not obj.status.status

    async def _ping(self, host: Host, ctx: Context) -> None:
        began = ctx.clock.monotonic()
        answer = await self._pulse.beat(host, host_endpoint(host, ctx), ctx)
        if answer is None:
            if host.status.status == "Disconnected":
                forget_host(ctx, host.uid)
            return
        if self._must_connect(host, answer):
            await self._connect(host, ctx)
        record_ping(ctx, host.uid, answer.vms, began)
        _wake_drifted(host, ctx)

    def _respecified(self, host: Host) -> bool:
        return self._connected.get(host.uid, host.metadata.generation) != host.metadata.generation

    def _must_connect(self, host: Host, ping: Ping) -> bool:
        seen = (host.status.status, host.status.boot_id, host.status.agent_version)
        known = self._connected.get(host.uid) == host.metadata.generation
        return not known or seen != ("Connected", ping.boot_id, ping.agent_version)

    async def _connect(self, host: Host, ctx: Context) -> None:
        status, boot = host.status, host.status.boot_id
        was = status.status
        if was != "Connected":
            status.status = "Connecting"
        try:
            await ctx.flows.run("host-connect", host, ctx)
        except FlowFailed as failure:
            failure.retry_after = ctx.tuning.ping_interval
            raise
        status.status = "Connected"
        self._connected[host.uid] = host.metadata.generation
        self._counted.pop(host.uid, None)
        if was != "Connected" or boot != status.boot_id:
            status.connected_at = utc(ctx.clock.now())
            ctx.events.normal(host, "Connected", f"{status.hypervisor} on {status.kernel}")
        wake_unscheduled(ctx)

    async def _count(self, host: Host, ctx: Context) -> float | None:
        """Show what is left of the capacity; seconds until it may be looked at again if not."""
        due = self._counted.get(host.uid, float("-inf")) + RECOUNT - ctx.clock.monotonic()
        if due > 0:
            return due
        self._counted[host.uid] = ctx.clock.monotonic()
        pools = [p for p in await ctx.ledger.pools(host_scope(host)) if p.scope == host_scope(host)]
        if pools and _show(host, pools[0]):
            wake_unscheduled(ctx)
        return None

    def _forget(self, host: Host, ctx: Context) -> None:
        self._pulse.forget(host.uid)
        self._connected.pop(host.uid, None)
        self._counted.pop(host.uid, None)
        self._room.pop(host.uid, None)
        forget_host(ctx, host.uid)


def _show(host: Host, pool: Pool) -> bool:
    """Whether there is more room than before."""
    before = host.status.vms, host.status.available_cpu
    host.status.vms = pool.used.get("vms", 0)
    host.status.available_cpu = max(0, pool.free("cpu"))
    host.status.available_memory = format_quantity(max(0, pool.free("memory")))
    return host.status.vms < before[0] or host.status.available_cpu > before[1]


def _room(host: Host) -> tuple[bool, int, int]:
    """More is more."""
    return host.status.state == "Enabled", host.status.available_cpu or 0, -host.status.vms


def _wake_drifted(host: Host, ctx: Context) -> None:
    """Wake the VMs that are not as their status says."""
    seen = ctx.observed.vms.get(host.uid, {})
    for vm in vms_on(host, ctx.store):
        known = ctx.store.entry(vm)  # nothing is parsed: all are looked at with each ping
        if known and _POWER_STATE.get(seen.get(known.uid, ""), "Stopped") != known.state:
            ctx.wake(vm)


State = Literal["Enabled", "Disabled", "PreMaintenance", "Maintenance"]


def _state(host: Host, ctx: Context) -> State:
    if host.spec.state != "Maintenance":
        cluster = ctx.store.get("Cluster", host.spec.cluster_ref.name)
        state: State = inherited(host.spec.state, cluster)[0]
        return state
    return "PreMaintenance" if vms_on(host, ctx.store) else "Maintenance"


def _outcome(host: Host, ctx: Context, again: float) -> Outcome:
    status = host.status
    if status.state == "PreMaintenance":
        names = ", ".join(vm.name for vm in vms_on(host, ctx.store)[:5])
        return Outcome(False, "Evacuating", f"VMs are being stopped: {names}", again)
    return Outcome(reason="Connected", message=status.state, requeue_after=again)
