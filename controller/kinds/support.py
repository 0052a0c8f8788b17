"""What several kinds share: names, calls to agents, and when to try again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

from agents.wire import Role, VmResult, Wire
from controller.agentlink.client import Endpoint
from controller.errors import (
    AgentFailed,
    AgentUnreachable,
    FlowFailed,
    Terminal,
    Transient,
    Waiting,
)
from controller.keys import Key
from controller.reconcile.actuator import Context
from controller.workflow.step import Scope
from crds.base import Resource
from crds.v1alpha1.backup_storage import BackupStorage
from crds.v1alpha1.host import Host

W = TypeVar("W", bound=Wire)
T = TypeVar("T")

RETRY_FAILED = 60.0
"""Seconds after which work that failed for good is tried again though nothing changed: what an
agent could not do may have been mended by hand. A change of the spec tries at once."""


PASSING = frozenset({"unreachable", "busy"})
"""Codes of failures that need not be the host's own: what it needed was not there just now."""

GIVE_UP = 60.0
"""Seconds that the agent of an object that is being deleted may be silent before what it has is
left behind."""


def key_of(obj: Resource) -> Key:
    return Key(type(obj).__name__, obj.metadata.namespace or "", obj.name)


def digest(*parts: str, length: int = 10) -> str:
    """Hex digits that depend on ``parts`` alone: for names of devices, which are short."""
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:length]


def jitter(seed: str, share: float = 0.1) -> float:
    """A factor around 1 that spreads equal intervals of many objects."""
    return 1 + share * (int(digest(seed, length=8), 16) / 2**31 - 1)


def exact_quantity(size: int) -> str:
    """``size`` bytes as a quantity that is read back as exactly that."""
    for suffix, unit in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if size and size % unit == 0:
            return f"{size // unit}{suffix}"
    return str(size)


def agent_endpoint(owner: Host | BackupStorage, default_port: int) -> Endpoint:
    role: Role = "host" if isinstance(owner, Host) else "store"
    port = owner.spec.agent_port or default_port
    return Endpoint(owner.name, role, owner.spec.management_ip, port)


def host_endpoint(host: Host, ctx: Context) -> Endpoint:
    return agent_endpoint(host, ctx.tuning.agent_port)


def store_endpoint(storage: BackupStorage, ctx: Context) -> Endpoint:
    return agent_endpoint(storage, ctx.tuning.agent_port)


def abandoned(agent: Host | BackupStorage | None) -> bool:
    """Is nobody left to ask: gone from the API, or being deleted while disconnected?"""
    return agent is None or (agent.deleting and agent.status.status == "Disconnected")


async def answers(agent: Host | BackupStorage, ctx: Context) -> bool:
    """May its agent be asked to clean up? False when it is being deleted and does not answer any
    more: what is there has to be left there.

    An object that is being deleted is not pinged any more, so that is found out here. Raises
    AgentUnreachable while it was deleted less than GIVE_UP seconds ago.
    """
    if not agent.deleting:
        return True
    endpoint = host_endpoint(agent, ctx) if isinstance(agent, Host) else store_endpoint(agent, ctx)
    try:
        await ctx.agents.ping(endpoint)
    except AgentUnreachable:
        since = agent.metadata.deletion_timestamp
        if abandoned(agent) or since is None or ctx.clock.now() - since.timestamp() > GIVE_UP:
            return False
        raise
    return True


async def on_host(
    scope: Scope[Any],
    host: Host,
    action: str,
    args: Wire,
    result: type[W],
    *,
    resource: str | None = None,
    part: str = "",
) -> W:
    """Run ``action`` on ``host`` as this step's operation. Raises as Agents.run does, but
    Transient for a failure that passes: the step has some retries for it.

    ``resource``: the uid of what is worked on, if not the step's own object.
    """
    ctx = scope.ctx
    try:
        return await ctx.agents.run(
            host_endpoint(host, ctx),
            action,
            resource or scope.obj.uid,
            args,
            result,
            operation=scope.operation(part),
            owner=key_of(scope.obj),
        )
    except AgentFailed as failure:
        if failure.code in PASSING:
            raise Transient(failure.message, reason=failure.reason) from failure
        raise


async def on_host_if_there(
    scope: Scope[Any], host: Host, action: str, args: Wire, *, part: str = ""
) -> None:
    """Run a VM's ``action`` that takes something away; a VM that is not there is fine."""
    try:
        await on_host(scope, host, action, args, VmResult, part=part)
    except AgentFailed as failure:
        if failure.code != "not-found":
            raise


async def together(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Make several calls at once, so that one that is pending does not keep the others waiting.

    Raises the worst error: what failed before what is only waiting.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [r for r in results if isinstance(r, BaseException)]
    for error in sorted(errors, key=lambda e: isinstance(e, Waiting)):
        raise error
    return [r for r in results if not isinstance(r, BaseException)]


def failed_before(obj: Resource, ctx: Context) -> Terminal | None:
    """The failure that stalls ``obj``, if it is too early to try again (RETRY_FAILED).

    Without it every wake-up (also by the object's own status) would run the failing work anew.
    """
    stalled = obj.condition("Stalled")
    if not stalls(obj) or stalled is None or stalled.last_transition_time is None:
        return None
    left = RETRY_FAILED - (ctx.clock.now() - stalled.last_transition_time.timestamp())
    if left <= 0:
        return None
    return Terminal(stalled.message, reason=stalled.reason, retry_after=left)


def stalls(obj: Resource) -> bool:
    """Is ``obj`` Stalled for the spec that it has now?"""
    stalled = obj.condition("Stalled")
    return (
        stalled is not None
        and stalled.status == "True"
        and stalled.observed_generation == obj.metadata.generation
    )


def wake_unscheduled(ctx: Context) -> None:
    """Have the VMs that found no host look again: there may be room now."""
    waiting, ctx.observed.unscheduled = ctx.observed.unscheduled, set()
    for key in waiting:
        ctx.wake(key)


async def clean_up(flow: str, obj: Resource, ctx: Context) -> None:
    """Run a flow that removes things: what fails is tried again with back-off, never given up."""
    try:
        await ctx.flows.run(flow, obj, ctx)
    except FlowFailed as failure:
        raise Transient(failure.message, reason=failure.reason) from failure
