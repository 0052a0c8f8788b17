"""The ring object in the API server: a ConfigMap, changed by compare-and-swap."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller.client import Exists, NotFound, Resource
from controller.errors import Conflict
from controller.rights import Right
from controller.sharding.ring import BadRing, Ring, dump, load

CONFIG_MAPS = Resource("", "v1", "configmaps", True)
NAME = "kumulus-ring"
CONTENT = "ring"
RIGHTS = (
    Right("", "configmaps", ("create",), home=True),
    Right("", "configmaps", ("get", "update", "watch"), names=(NAME,), home=True),
)


class RingApi(Protocol):
    """The part of client.Api that is needed here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]: ...
    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any]
    ) -> dict[str, Any]: ...
    async def replace(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]: ...
    def changes(
        self, resource: Resource, namespace: str, name: str
    ) -> AsyncGenerator[None, None]: ...


@dataclass(frozen=True)
class Stored:
    """A ring as it was read. ``uid``: of the object; a ring that was made anew has another."""

    ring: Ring
    uid: str
    version: str


@dataclass(frozen=True)
class RingObject:
    api: RingApi
    namespace: str

    async def read(self) -> Stored | None:
        """None: there is none. Raises BadRing, ApiUnavailable, ..."""
        try:
            return _stored(await self.api.get(CONFIG_MAPS, self.namespace, NAME))
        except NotFound:
            return None

    async def create(self, ring: Ring) -> Stored:
        """Raises Conflict if there is one."""
        try:
            made = await self.api.create(CONFIG_MAPS, self.namespace, self._body(ring, {}))
        except Exists as error:
            raise Conflict(error.message) from None
        return _stored(made)

    async def swap(self, old: Stored, new: Ring) -> Stored:
        """Put ``new`` in the place of ``old``. Raises Conflict if that is no longer the newest;
        NotFound if there is none any more."""
        meta = {"resourceVersion": old.version, "uid": old.uid}
        body = self._body(new, meta)
        return _stored(await self.api.replace(CONFIG_MAPS, self.namespace, NAME, body))

    def changes(self) -> AsyncGenerator[None, None]:
        """Ticks after each change, until the watch ends."""
        return self.api.changes(CONFIG_MAPS, self.namespace, NAME)

    def _body(self, ring: Ring, meta: Mapping[str, str]) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": self.namespace, **meta},
            "data": {CONTENT: dump(ring)},
        }


def _stored(raw: Mapping[str, Any]) -> Stored:
    meta = raw["metadata"]
    content = (raw.get("data") or {}).get(CONTENT)
    if content is None:
        raise BadRing(f"ConfigMap {NAME} has no {CONTENT!r}; delete it and it is made anew")
    return Stored(load(content), str(meta["uid"]), str(meta["resourceVersion"]))
