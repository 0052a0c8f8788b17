"""Kubernetes Events: for people who ask what happened. They never hold up the work.

Equal ones are counted instead of repeated, an object that talks too much is rationed, and a full
queue drops the newest: an Event lost is no harm.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from controller import metrics
from controller.client import NotFound, Resource
from controller.errors import KumulusError
from controller.reconcile.actuator import Clock
from controller.rights import Right
from controller.watch.store import key_of
from crds.base import Resource as Model

log = logging.getLogger(__name__)

EVENTS = Resource("", "v1", "events", True)
RIGHTS = (Right(EVENTS.group, EVENTS.plural, ("create", "patch")),)
COMPONENT = "kumulus-controller"
QUEUE = 1000
REMEMBERED = 4096
SAME_SECONDS = 600.0
"""An equal Event within this time is counted on the first one."""
BURST, REFILL_SECONDS = 25, 300.0
"""Per object: so many at once, then one more each REFILL_SECONDS."""
MESSAGE_MAX = 1024

Kind = Literal["Normal", "Warning"]


class EventApi(Protocol):
    """The part of client.Api that is needed here."""

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any]
    ) -> dict[str, Any]: ...
    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]: ...


@dataclass
class _Sent:
    name: str
    count: int
    last: float


@dataclass(frozen=True)
class _Pending:
    identity: str
    namespace: str
    body: dict[str, Any]


class EventRecorder:
    """Implements reconcile.actuator.Events. run() sends what the other methods queue."""

    def __init__(self, api: EventApi, clock: Clock, instance: str) -> None:
        self._api = api
        self._clock = clock
        self._instance = instance
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue(QUEUE)
        self._sent: OrderedDict[str, _Sent] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def normal(self, obj: Model, reason: str, message: str) -> None:
        self._record(obj, "Normal", reason, message)

    def warning(self, obj: Model, reason: str, message: str) -> None:
        self._record(obj, "Warning", reason, message)

    async def run(self) -> None:
        """Send, one after the other, for ever."""
        while True:
            try:
                await self._send(await self._queue.get())
            except Exception:  # an Event is not worth the controller's life
                log.exception("event not written")

    async def drain(self, seconds: float) -> None:
        """Send what is queued, as far as ``seconds`` allow. For the end, when run() has ended."""
        try:
            async with asyncio.timeout(seconds):
                while not self._queue.empty():
                    await self._send(self._queue.get_nowait())
        except TimeoutError:
            metrics.EVENTS_DROPPED.labels("stopping").inc(self._queue.qsize())

    def _record(self, obj: Model, kind: Kind, reason: str, message: str) -> None:
        message = message[:MESSAGE_MAX]
        identity = "\0".join((obj.uid, kind, reason, message))
        if not self._allowed(obj.uid):
            metrics.EVENTS_DROPPED.labels("rationed").inc()
            return
        body = self._body(obj, kind, reason, message, identity)
        pending = _Pending(identity, body["metadata"]["namespace"], body)
        try:
            self._queue.put_nowait(pending)
        except asyncio.QueueFull:
            metrics.EVENTS_DROPPED.labels("queue full").inc()

    def _allowed(self, uid: str) -> bool:
        """A token bucket per object."""
        now = self._clock.monotonic()
        tokens, since = self._tokens.pop(uid, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - since) / REFILL_SECONDS)
        allowed = tokens >= 1
        self._tokens[uid] = (tokens - 1 if allowed else tokens, now)
        if len(self._tokens) > REMEMBERED:
            self._tokens.popitem(last=False)
        return allowed

    async def _send(self, pending: _Pending) -> None:
        now = self._clock.monotonic()
        sent = self._sent.pop(pending.identity, None)
        try:
            if (
                sent is None
                or now - sent.last > SAME_SECONDS
                or not await self._count(pending, sent)
            ):
                await self._api.create(EVENTS, pending.namespace, pending.body)
                sent = _Sent(pending.body["metadata"]["name"], 1, now)
        except KumulusError as error:
            metrics.EVENTS_DROPPED.labels("refused").inc()
            log.debug("event not written", extra={"why": error.message})
            return
        metrics.EVENTS_SENT.labels(pending.body["type"]).inc()
        sent.last = now
        self._sent[pending.identity] = sent
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

    async def _count(self, pending: _Pending, sent: _Sent) -> bool:
        """Add one to an Event that was written before; False if it is gone."""
        patch = {"count": sent.count + 1, "lastTimestamp": pending.body["lastTimestamp"]}
        try:
            await self._api.patch(EVENTS, pending.namespace, sent.name, patch)
        except NotFound:
            return False
        sent.count += 1
        return True

    def _body(
        self, obj: Model, kind: Kind, reason: str, message: str, identity: str
    ) -> dict[str, Any]:
        key = key_of(obj)
        moment = self._clock.now()
        stamp = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hashlib.sha256(f"{identity}\0{moment}".encode()).hexdigest()[:16]
        involved = {
            "apiVersion": obj.api_version,
            "kind": key.kind,
            "namespace": key.namespace or None,
            "name": key.name,
            "uid": obj.uid,
            "resourceVersion": obj.metadata.resource_version,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{key.name[:200]}.{digest}",
                "namespace": key.namespace or "default",
            },
            "involvedObject": {name: value for name, value in involved.items() if value},
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
        }
