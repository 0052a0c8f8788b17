"""Only one controller at a time: whoever holds the Lease.

Its holder is named by an identity that a data directory keeps, so that a restarted controller
takes over from itself at once; another one waits until the Lease has not been renewed for its
whole duration, by the waiting one's own clock. Who cannot renew stops working well before that.
The Lease's generation grows with every change of hands, and is higher still when a lost Lease is
made anew: it is the fencing token that agents check.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from controller import metrics
from controller.client import Exists, NotFound, Resource
from controller.errors import KumulusError
from controller.reconcile.actuator import Clock
from controller.rights import Right
from controller.sharding.base import SingleMember

log = logging.getLogger(__name__)

LEASES = Resource("coordination.k8s.io", "v1", "leases", True)
NAMESPACES = Resource("", "v1", "namespaces", False)
NAME = "kumulus-controller"
RIGHTS = (
    Right(LEASES.group, LEASES.plural, ("create",), home=True),
    Right(LEASES.group, LEASES.plural, ("get", "update"), names=(NAME,), home=True),
    Right("", NAMESPACES.plural, ("create",), feature="namespace"),
)
GENERATION = "kumulus.dev/generation"
RENEW_SHARE, STOP_SHARE = 1 / 5, 2 / 3
"""Of the Lease's duration: how often it is renewed, and after which time without success its
holder stops working."""


class LeaseApi(Protocol):
    """The part of client.Api that is needed here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]: ...
    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any]
    ) -> dict[str, Any]: ...
    async def replace(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]: ...


@dataclass
class LeaseGuard:
    """Keeps ``member.leading`` true while the Lease is held. ``on_gain`` and ``on_loss`` are
    awaited after that changed."""

    api: LeaseApi
    member: SingleMember
    namespace: str
    identity: str
    duration: float
    clock: Clock
    on_gain: Callable[[], Awaitable[None]]
    on_loss: Callable[[], Awaitable[None]]
    _seen: tuple[str, float] = field(default=("", 0.0), init=False)
    _renewed: float = field(default=float("-inf"), init=False)
    _told: str = field(default="", init=False)

    async def run(self) -> None:
        """For ever; cancel it, then release()."""
        while True:
            await self._round()
            await asyncio.sleep(self.duration * RENEW_SHARE)

    async def release(self) -> None:
        """Stop leading, and let the next one have the Lease at once."""
        if not self.member.leading:
            return
        self._set_leading(False)
        try:
            async with asyncio.timeout(2.0):
                lease = await self.api.get(LEASES, self.namespace, NAME)
                if lease["spec"].get("holderIdentity") == self.identity:
                    lease["spec"] = {**lease["spec"], "holderIdentity": "", "renewTime": None}
                    await self.api.replace(LEASES, self.namespace, NAME, lease)
        except (KumulusError, TimeoutError) as error:
            log.info("lease not released; it will expire", extra={"why": str(error)})

    async def _round(self) -> None:
        began = self.clock.monotonic()
        try:
            # Not longer than this controller may go on without knowing.
            deadline = self._renewed + self.duration * STOP_SHARE if self.member.leading else began
            async with asyncio.timeout(max(self.duration * RENEW_SHARE, deadline - began)):
                held = await self._acquire()
        except (KumulusError, TimeoutError) as error:
            log.warning("lease not renewed", extra={"why": str(error) or "the API is too slow"})
            held = None
        except Exception:
            # An answer that makes no sense renews nothing; whether to stop is decided below.
            log.exception("lease not renewed")
            held = None
        if held:
            self._renewed = began
            if not self.member.leading:
                self._set_leading(True)
                await self.on_gain()
                log.info("this controller works now", extra={"generation": self.member.term})
        elif self.member.leading and (held is False or self._overdue()):
            self._set_leading(False)
            log.error("the lease is lost; work stops until it is back")
            await self.on_loss()

    def _overdue(self) -> bool:
        return self.clock.monotonic() >= self._renewed + self.duration * STOP_SHARE

    def _set_leading(self, leading: bool) -> None:
        self.member.leading = leading
        metrics.LEADING.set(leading)

    async def _acquire(self) -> bool:
        """Take or renew the Lease; False if another holds it. May raise KumulusError."""
        try:
            lease = await self.api.get(LEASES, self.namespace, NAME)
        except NotFound:
            return await self._make()
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        mine = holder == self.identity
        if holder and not mine and not self._expired(lease):
            self._tell_wait(holder)
            return False
        generation = int((lease["metadata"].get("annotations") or {}).get(GENERATION, 0))
        body = self._body(generation if mine else max(generation + 1, int(self.clock.now())), spec)
        body["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        await self.api.replace(LEASES, self.namespace, NAME, body)
        self.member.term = int(body["metadata"]["annotations"][GENERATION])
        return True

    async def _make(self) -> bool:
        generation = int(self.clock.now())
        body = self._body(generation, {})
        try:
            await self.api.create(LEASES, self.namespace, body)
        except Exists:
            return False
        except NotFound:
            # Not every controller may make its namespace: ask only when it is missing.
            await self._make_namespace()
            await self.api.create(LEASES, self.namespace, body)
        self.member.term = generation
        return True

    async def _make_namespace(self) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        try:
            await self.api.create(NAMESPACES, "", body)
        except Exists:
            log.debug("the namespace was made by another")

    def _expired(self, lease: Mapping[str, Any]) -> bool:
        """Has it stayed the same for its whole duration, as seen from here? Clocks may differ."""
        version, now = str(lease["metadata"]["resourceVersion"]), self.clock.monotonic()
        if version != self._seen[0]:
            self._seen = (version, now)
        lasts = float(lease["spec"].get("leaseDurationSeconds") or self.duration)
        return now - self._seen[1] > lasts

    def _tell_wait(self, holder: str) -> None:
        if holder != self._told:
            self._told = holder
            log.warning(
                "another controller is at work; waiting until it stops",
                extra={"holder": holder, "lease": f"{self.namespace}/{NAME}"},
            )

    def _body(self, generation: int, old: Mapping[str, Any]) -> dict[str, Any]:
        mine = old.get("holderIdentity") == self.identity
        now = _micro(self.clock.now())
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": NAME,
                "namespace": self.namespace,
                "annotations": {GENERATION: str(generation)},
            },
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": max(1, round(self.duration)),
                "acquireTime": old.get("acquireTime", now) if mine else now,
                "renewTime": now,
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if mine else 1),
            },
        }


def _micro(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
