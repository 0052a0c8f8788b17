"""Pinging agents: when one is due, what a missed one means, and what its answer says of VMs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agents.wire import Ping
from controller.agentlink.client import Endpoint
from controller.errors import AgentUnreachable
from controller.kinds.support import jitter
from controller.reconcile.actuator import Context
from crds.v1alpha1.backup_storage import BackupStorage
from crds.v1alpha1.host import Host

MISSED_LIMIT = 3
"""Missed pings after which an agent counts as Disconnected."""


FIRST_RETRY = 1.0
"""Seconds after which an agent that is not connected is pinged again. They double with each miss
up to ``tuning.ping_interval``."""


@dataclass(frozen=True)
class _Beat:
    """The last ping. ``retry``: seconds until the next one if it was missed by an agent that is
    not connected, else None. ``cause``: why it was missed, or ""."""

    at: float
    retry: float | None = None
    cause: str = ""


class Heartbeat:
    """When each agent was pinged last. In memory only: a new controller pings at once."""

    def __init__(self) -> None:
        self._last: dict[str, _Beat] = {}

    def left(self, uid: str, ctx: Context) -> float:
        """Seconds until the next ping is due; 0 when it is."""
        last = self._last.get(uid)
        if last is None:
            return 0.0
        interval = ctx.tuning.ping_interval
        pause = min(interval, last.retry or interval) * jitter(uid)
        return max(0.0, last.at + pause - ctx.clock.monotonic())

    def silence(self, agent: Host | BackupStorage) -> str:
        """For people: why the agent does not count as connected."""
        last = self._last.get(agent.uid)
        if last is None or not last.cause:
            return f"the agent at {agent.spec.management_ip} is being connected"
        return f"{last.cause} ({agent.status.missed_pings} pings missed)"

    def forget(self, uid: str) -> None:
        self._last.pop(uid, None)

    async def beat(
        self, agent: Host | BackupStorage, endpoint: Endpoint, ctx: Context
    ) -> Ping | None:
        """Ping; None if it was missed. Keeps ``status.missed_pings``, which stops at the limit
        so that the status of a host that is down is not written for ever."""
        before, now = self._last.get(agent.uid), ctx.clock.monotonic()
        self._last[agent.uid] = _Beat(now)
        try:
            answer = await ctx.agents.ping(endpoint)
        except AgentUnreachable as error:
            _missed(agent, error.message, ctx)
            retry = None if agent.status.status == "Connected" else _next_retry(before)
            self._last[agent.uid] = _Beat(now, retry, error.message)
            return None
        agent.status.missed_pings = 0
        return answer

    async def look(self, uid: str, endpoint: Endpoint, ctx: Context) -> Ping | None:
        """As beat(), of an agent that another replica answers for: only to know."""
        before, now = self._last.get(uid), ctx.clock.monotonic()
        self._last[uid] = _Beat(now)
        try:
            return await ctx.agents.ping(endpoint)
        except AgentUnreachable as error:
            self._last[uid] = _Beat(now, _next_retry(before), error.message)
            return None


def _next_retry(before: _Beat | None) -> float:
    return FIRST_RETRY if before is None or before.retry is None else 2 * before.retry


def _missed(agent: Host | BackupStorage, cause: str, ctx: Context) -> None:
    status = agent.status
    status.missed_pings = min(status.missed_pings + 1, MISSED_LIMIT)
    if status.missed_pings < MISSED_LIMIT:
        status.status = status.status or "Connecting"
        return
    if status.status == "Connected":
        ctx.events.warning(agent, "Disconnected", f"{MISSED_LIMIT} pings were missed: {cause}")
    status.status = "Disconnected" if status.status != "Connecting" else "Connecting"


def note_power(ctx: Context, host_uid: str, vm_uid: str, power: str | None) -> None:
    """Record what an operation just did to a VM (None: its domain is gone): pings that were under
    way meanwhile know less."""
    noted = ctx.observed.noted.setdefault(host_uid, {})
    noted[vm_uid] = (ctx.clock.monotonic(), power)
    if host_uid in ctx.observed.vms:
        ctx.observed.vms[host_uid] = _overlay(ctx.observed.vms[host_uid], {vm_uid: power})


def record_ping(ctx: Context, host_uid: str, vms: Mapping[str, str], began: float) -> None:
    """Take over a ping's view of all VMs but those that changed since it ``began``."""
    noted = ctx.observed.noted.get(host_uid, {})
    newer = {vm: note for vm, note in noted.items() if note[0] >= began}
    ctx.observed.vms[host_uid] = _overlay(vms, {vm: power for vm, (_, power) in newer.items()})
    ctx.observed.noted[host_uid] = newer


def _overlay(vms: Mapping[str, str], newer: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**vms, **newer}
    return {vm: power for vm, power in merged.items() if power is not None}


def forget_host(ctx: Context, host_uid: str) -> None:
    ctx.observed.vms.pop(host_uid, None)
    ctx.observed.noted.pop(host_uid, None)
