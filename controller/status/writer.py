"""The only writer of status: one minimal patch, none when nothing changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from pydantic import ValidationError

from controller import metrics
from controller.client import NotFound
from controller.errors import Conflict
from controller.keys import Key
from controller.reconcile.actuator import Clock
from controller.status.patch import compact, merge_patch
from controller.watch.store import key_of
from crds.base import BaseStatus, Resource

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


class StatusWriter:
    """Writes statuses through ``objects``."""

    def __init__(self, objects: Sender, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock

    async def write(self, before: Resource, after: Resource) -> bool:
        """Write ``after.status`` if it differs from ``before.status``; True if it was written.

        The patch names the resource version that ``after`` was made from, so that nobody who has
        lost the object to another replica can overwrite the new owner's status. A conflict that
        only the spec or metadata caused is no reason to lose what was found out: the patch is
        sent again for the newer version. Raises Conflict if somebody else wrote the status;
        an object that is gone needs none.
        """
        old, new = status_of(before), status_of(after)
        if not merge_patch(old, new):
            return False
        new["lastOperationTime"] = _now(self._clock)
        if not before.status.conditions:
            old = {}  # the first status says all, zeros too
        patch = merge_patch(old, new)
        version = after.metadata.resource_version
        for _ in range(TRIES):
            body = {"metadata": {"resourceVersion": version}, "status": patch}
            try:
                await self._objects.patch_status(key_of(before), body)
            except NotFound:
                return False
            except Conflict:
                version = await self._newer(before)
            else:
                metrics.STATUS_WRITES.labels(key_of(before).kind).inc()
                return True
        raise Conflict("the object changes faster than its status can be written")

    async def _newer(self, before: Resource) -> str:
        """The newest version of the object, if its status is still what ``before`` had."""
        raw = await self._objects.refresh(key_of(before))
        if raw is None or raw["metadata"]["uid"] != before.uid:
            raise Conflict("the object was deleted meanwhile")
        if merge_patch(status_of(before), _status_in(raw, before)):
            raise Conflict("somebody else wrote the status; is another controller at work?")
        return str(raw["metadata"]["resourceVersion"])


def status_of(obj: Resource) -> dict[str, Any]:
    """The status as it goes over the wire, without what is empty."""
    return compact(obj.status.wire())


def _status_in(raw: Mapping[str, Any], before: Resource) -> dict[str, Any]:
    """The status in what the API sent, as status_of() puts it; the spec may be any by now."""
    try:
        return status_of(type(before).model_validate({**raw, "spec": before.spec}))
    except ValidationError:
        return status_of(Unparsed.of(raw))


def _now(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
