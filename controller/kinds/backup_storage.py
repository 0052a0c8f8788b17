"""BackupStorage: a directory of images that an agent serves."""

from __future__ import annotations

from collections.abc import Iterable

from agents.wire import StorageArgs, StorageResult
from controller.agentlink.client import Endpoint
from controller.errors import AgentFailed
from controller.kinds.heartbeat import Heartbeat
from controller.kinds.support import key_of, store_endpoint, wake_unscheduled
from controller.reconcile.actuator import Actuator, Context, Outcome, Store
from controller.reconcile.holdings import Holding
from crds.base import format_quantity
from crds.refs import Reference
from crds.v1alpha1.backup_storage import BackupStorage


class BackupStorageActuator(Actuator[BackupStorage]):
    """Pings its agent as hosts are pinged. It is connected once the directory exists."""

    model = BackupStorage

    def __init__(self) -> None:
        self._pulse = Heartbeat()
        self._boots: dict[str, str] = {}  # uid → the agent's boot id at the last ping

    async def reconcile(self, obj: BackupStorage, ctx: Context) -> Outcome:
        obj.status.state = obj.spec.state
        if self._pulse.left(obj.uid, ctx) <= 0:
            answer = await self._pulse.beat(obj, store_endpoint(obj, ctx), ctx)
            if answer is not None:
                obj.status.agent_version = answer.agent_version
                self._boots[obj.uid] = answer.boot_id
        if obj.uid in self._boots and not obj.status.missed_pings:
            await self._ensure(obj, ctx)
        return _outcome(obj, self._pulse.silence(obj), max(self._pulse.left(obj.uid, ctx), 0.1))

    def agent(self, obj: BackupStorage, ctx: Context) -> Endpoint | None:
        return store_endpoint(obj, ctx)

    async def delete(self, obj: BackupStorage, ctx: Context) -> Outcome:
        """Its images are gone by now; the empty directory stays."""
        obj.status.state = "Deleting"
        self._pulse.forget(obj.uid)
        self._boots.pop(obj.uid, None)
        return Outcome()

    def holdings(self, obj: BackupStorage, store: Store) -> Iterable[Holding]:
        """Nothing of its own."""
        return ()

    def waits_for(self, obj: BackupStorage, reference: Reference) -> bool:
        return False

    async def _ensure(self, obj: BackupStorage, ctx: Context) -> None:
        """Once per boot of the agent: the operation's id says which."""
        if obj.status.status == "Connected":
            return
        obj.status.status = obj.status.status or "Connecting"
        try:
            room = await ctx.agents.run(
                store_endpoint(obj, ctx),
                "store.ensure",
                obj.uid,
                StorageArgs(path=obj.spec.path),
                StorageResult,
                operation=f"{obj.uid}.ensure.{self._boots[obj.uid]}",
                owner=key_of(obj),
            )
        except AgentFailed as failure:
            failure.retry_after = ctx.tuning.ping_interval
            raise
        _connected(obj, room, ctx)


def _connected(obj: BackupStorage, room: StorageResult, ctx: Context) -> None:
    reserved = obj.spec.reserved_capacity
    kept = ctx.tuning.reserved_storage if reserved is None else reserved
    obj.status.status = "Connected"
    obj.status.total_capacity = format_quantity(room.total)
    obj.status.available_capacity = format_quantity(max(0, room.available - kept))
    ctx.events.normal(obj, "Connected", f"{obj.status.available_capacity} are free")
    wake_unscheduled(ctx)


def _outcome(obj: BackupStorage, silence: str, again: float) -> Outcome:
    if obj.status.status == "Connected":
        return Outcome(reason="Connected", message=obj.spec.state, requeue_after=again)
    return Outcome(False, obj.status.status or "Connecting", silence, again)
