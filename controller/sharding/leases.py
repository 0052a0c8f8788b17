"""The members' Leases: renewing one's own, and telling when another's is over.

Clocks are compared nowhere. Who renews counts from the moment at which the request *began*; who
watches counts from the moment at which it had *received* the last new version, to the moment at
which it *asked* and still found that version. So the watcher's span begins later than the
renewer's, and ends before the answer: a member that stops itself after less than the Lease's
duration has stopped before anybody finds its Lease over, whatever their clocks say. Only the
clocks' speeds must agree, to within the margin between ``STOP_SHARE`` and 1.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

from controller.client import Exists, NotFound, Resource
from controller.errors import Terminal, Transient
from controller.reconcile.actuator import Clock
from controller.rights import Right

log = logging.getLogger(__name__)

LEASES = Resource("coordination.k8s.io", "v1", "leases", True)
NAMESPACES = Resource("", "v1", "namespaces", False)
LABEL, LABELLED = "kumulus.dev/ring", "member"
NOTE = "kumulus.dev/member"
"""Annotation: what the member says of itself, for people."""
RIGHTS = (
    Right(LEASES.group, "leases", ("create", "delete", "get", "list", "patch"), home=True),
    Right("", "namespaces", ("create",), feature="namespace"),
)
RENEW_SHARE, STOP_SHARE = 1 / 5, 2 / 3
"""Of the Lease's duration: how often it is renewed, and after which time without success its
holder stops working."""


class LeaseApi(Protocol):
    """The part of client.Api that is needed here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]: ...
    async def select(
        self, resource: Resource, namespace: str, labels: str
    ) -> list[dict[str, Any]]: ...
    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any]
    ) -> dict[str, Any]: ...
    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]: ...
    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str
    ) -> dict[str, Any] | None: ...


class Superseded(Terminal):
    """Another process has our name."""

    default_reason = "Superseded"


@dataclass(frozen=True)
class _Sight:
    """A Lease as it was seen first in its present version. Monotonic ``at``."""

    version: str
    at: float


@dataclass
class Leases:
    """``name``: of this member. ``duration``: seconds."""

    api: LeaseApi
    namespace: str
    name: str
    duration: float
    clock: Clock
    node: str = field(default_factory=platform.node)
    _nonce: str = field(default_factory=lambda: uuid4().hex[:8], init=False)
    _mine: bool = field(default=False, init=False)
    _uid: str = field(default="", init=False)
    _seen: dict[str, _Sight] = field(default_factory=dict, init=False)
    _found: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    @property
    def holder(self) -> str:
        """This process, as the Lease names it."""
        return f"{self.name}_{self.node}_{self._nonce}"

    async def renew(self, note: str = "") -> None:
        """Take or renew our Lease. Raises Transient; Superseded if another process uses our name.

        A former process of ours is gone for sure if it ran on this node: the data directory, which
        has the name, was locked. Else its Lease must be over first.
        """
        if not self._mine:
            await self._take()
        try:
            patch = {"metadata": {"annotations": {NOTE: note}}, "spec": {"renewTime": self._now()}}
            lease = await self.api.patch(LEASES, self.namespace, self.name, patch)
        except NotFound:
            self._mine = False
            raise
        found = str(lease["spec"].get("holderIdentity"))
        if found != self.holder:
            raise Superseded(
                f"another controller calls itself {self.name} ({found}); give each a data "
                f"directory of its own"
            )

    async def drop(self, name: str = "") -> None:
        """Delete our Lease, or that of a member that was expelled."""
        uid = self._uid if not name else _uid(self._found.get(name))
        if uid:
            await self.api.delete(LEASES, self.namespace, name or self.name, uid)
        self._mine = self._mine and bool(name)

    async def look(self, members: Collection[str]) -> tuple[frozenset[str], float]:
        """(those of ``members`` whose Leases are over, seconds until the next may be)."""
        asked = self.clock.monotonic()
        found = await self.api.select(LEASES, self.namespace, f"{LABEL}={LABELLED}")
        told = self.clock.monotonic()
        self._found = {lease["metadata"]["name"]: lease for lease in found}
        left = {name: self._left(name, asked, told) for name in members if name != self.name}
        kept = {*left, self.name}
        self._seen = {name: sight for name, sight in self._seen.items() if name in kept}
        over = frozenset(name for name, seconds in left.items() if seconds <= 0)
        return over, min((seconds for seconds in left.values() if seconds > 0), default=3600.0)

    def silence(self, name: str) -> float:
        """Seconds since the member's last sign of life, as seen from here."""
        seen = self._seen.get(name)
        return self.clock.monotonic() - seen.at if seen else 0.0

    @property
    def known(self) -> Mapping[str, Mapping[str, Any]]:
        """All members' Leases as they were looked at last, by name."""
        return self._found

    def _left(self, name: str, asked: float, told: float) -> float:
        """Seconds until the Lease is over if it is not renewed. One that is missing is treated
        like one that is not renewed: its member may not know it yet."""
        lease = self._found.get(name)
        version = str(lease["metadata"]["resourceVersion"]) if lease else ""
        seen = self._seen.get(name)
        if seen is None or seen.version != version:
            seen = self._seen[name] = _Sight(version, told)
        lasts = max(self.duration, _duration(lease))
        return lasts - (asked - seen.at)

    async def _take(self) -> None:
        try:
            lease = await self.api.get(LEASES, self.namespace, self.name)
        except NotFound:
            await self._make()
            return
        before = str((lease.get("spec") or {}).get("holderIdentity") or "")
        if (
            before.rpartition("_")[0] != self.holder.rpartition("_")[0]
            and not await self._is_over()
        ):
            raise Transient(
                f"waiting until the Lease of {before}, which has our name, is over",
                reason="LeaseHeld",
            )
        body = self._body()
        del body["metadata"]["namespace"]
        body["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        self._taken(await self.api.patch(LEASES, self.namespace, self.name, body))

    async def _is_over(self) -> bool:
        """Our own name's Lease, which another process may hold."""
        asked = self.clock.monotonic()
        lease = await self.api.get(LEASES, self.namespace, self.name)
        self._found[self.name] = lease
        return self._left(self.name, asked, self.clock.monotonic()) <= 0

    async def _make(self) -> None:
        try:
            self._taken(await self._create())
        except Exists as error:
            raise Transient(error.message) from None

    async def _create(self) -> dict[str, Any]:
        try:
            return await self.api.create(LEASES, self.namespace, self._body())
        except NotFound:
            # Not every controller may make its namespace: ask only when it is missing.
            await self._make_namespace()
            return await self.api.create(LEASES, self.namespace, self._body())

    def _taken(self, lease: Mapping[str, Any]) -> None:
        self._mine, self._uid = True, _uid(lease)

    async def _make_namespace(self) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        try:
            await self.api.create(NAMESPACES, "", body)
        except Exists:
            log.debug("the namespace was made by another")

    def _body(self) -> dict[str, Any]:
        now = self._now()
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {LABEL: LABELLED},
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": max(1, round(self.duration)),
                "acquireTime": now,
                "renewTime": now,
            },
        }

    def _now(self) -> str:
        """For people: nothing here reads it."""
        return datetime.fromtimestamp(self.clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _duration(lease: Mapping[str, Any] | None) -> float:
    return float(((lease or {}).get("spec") or {}).get("leaseDurationSeconds") or 0)


def _uid(lease: Mapping[str, Any] | None) -> str:
    return str((lease or {}).get("metadata", {}).get("uid", ""))
