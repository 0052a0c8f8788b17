"""The only writer of status: one minimal patch, none when nothing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from pydantic import ValidationError

from controller import metrics
from controller.client import NotFound
from controller.errors import Conflict
from controller.keys import Key
from controller.reconcile.actuator import Clock
from controller.rights import OnKinds
from controller.status.patch import compact, merge_patch
from controller.watch.store import key_of
from crds.base import BaseStatus, Condition, Resource

RIGHTS = (
    OnKinds(("get",)),
    OnKinds(("patch",), subresource="status", of=lambda registry: registry.actuators),
)
TRIES = 4


class Unparsed(Resource):
    """An object whose spec or status its model refuses: enough of it to say so in its status."""

    spec: Any = None
    status: BaseStatus = BaseStatus()

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        try:
            return cls.model_validate(raw)
        except ValidationError:
            return cls.model_validate({**raw, "status": {}})


class Sender(Protocol):
    async def patch_status(self, key: Key, patch: Mapping[str, Any]) -> dict[str, Any]: ...
    async def refresh(self, key: Key) -> dict[str, Any] | None: ...


@dataclass(frozen=True)
class Snapshot:
    """What an object's status said before it was worked on."""

    status: Mapping[str, Any]
    conditions: Sequence[Condition]

    @classmethod
    def of(cls, obj: Resource) -> Self:
        return cls(status_of(obj), tuple(obj.status.conditions))

    def condition(self, kind: str) -> Condition | None:
        return next((c for c in self.conditions if c.type == kind), None)


class StatusWriter:
    """Writes statuses through ``objects``."""

    def __init__(self, objects: Sender, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock

    async def write(self, before: Snapshot, obj: Resource) -> bool:
        """Write ``obj.status`` if it differs from ``before``; True if it was written.

        The patch names the resource version that ``obj`` was made from, so that nobody who has
        lost the object to another replica can overwrite the new owner's status. A conflict that
        only the spec or metadata caused is no reason to lose what was found out: the patch is
        sent again for the newer version. Raises Conflict if somebody else wrote the status;
        an object that is gone needs none.
        """
        new = status_of(obj)
        if not merge_patch(before.status, new):
            return False
        new["lastOperationTime"] = _now(self._clock)
        # The first status says all, zeros too.
        patch = merge_patch(before.status if before.conditions else {}, new)
        version = obj.metadata.resource_version
        for _ in range(TRIES):
            body = {"metadata": {"resourceVersion": version}, "status": patch}
            try:
                await self._objects.patch_status(key_of(obj), body)
            except NotFound:
                return False
            except Conflict:
                version = await self._newer(before, obj)
            else:
                metrics.STATUS_WRITES.labels(key_of(obj).kind).inc()
                return True
        raise Conflict("the object changes faster than its status can be written")

    async def _newer(self, before: Snapshot, obj: Resource) -> str:
        """The newest version of the object, if its status is still what it was ``before``."""
        raw = await self._objects.refresh(key_of(obj))
        if raw is None or raw["metadata"]["uid"] != obj.uid:
            raise Conflict("the object was deleted meanwhile")
        if merge_patch(before.status, _status_in(raw, obj)):
            raise Conflict("somebody else wrote the status; is another controller at work?")
        return str(raw["metadata"]["resourceVersion"])


def status_of(obj: Resource) -> dict[str, Any]:
    """The status as it goes over the wire, without what is empty."""
    return compact(obj.status.wire())


def _status_in(raw: Mapping[str, Any], like: Resource) -> dict[str, Any]:
    """The status in what the API sent, as status_of() puts it; the spec may be any by now."""
    try:
        return status_of(type(like).model_validate({**raw, "spec": like.spec}))
    except ValidationError:
        return status_of(Unparsed.of(raw))


def _now(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
