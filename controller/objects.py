"""Writes to objects of our kinds. What the API answers goes into the store at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from controller.client import Api, Exists, NotFound, Resource
from controller.keys import Key
from controller.sharding.guard import WRITE_SECONDS, to_its_end
from controller.watch.base import Change, Raw, ghost
from controller.watch.store import key_of
from crds.base import Resource as Model

T = TypeVar("T")


class Intake(Protocol):
    """The part of the store that takes news in."""

    def apply(self, change: Change, kind: str, raw: Raw, *, own: bool = False) -> bool: ...


class Objects:
    """Implements reconcile.actuator.Objects, and what the reconciler needs beyond it."""

    def __init__(
        self,
        api: Api,
        store: Intake,
        models: Mapping[str, type[Model]],
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        """``guard`` is called right before each write; it may raise Moved."""
        self._api = api
        self._guard = guard
        self._store = store
        self._models = models

    async def create(self, obj: Model) -> Any:
        key = key_of(obj)
        body = obj.wire()
        body.pop("status", None)
        body["kind"] = key.kind
        resource = resource_of(self._models[key.kind])
        try:
            raw = await self._write(self._api.create(resource, key.namespace, body))
        except Exists:
            raw = await self._api.get(resource, key.namespace, key.name)
        return self._taken(key, raw)

    async def patch(self, key: Key, patch: Mapping[str, Any]) -> Any:
        raw = await self._write(
            self._api.patch(self._resource(key), key.namespace, key.name, patch)
        )
        return self._taken(key, raw)

    async def delete(self, obj: Model) -> None:
        await self.delete_key(key_of(obj), obj.uid)

    async def delete_key(self, key: Key, uid: str) -> None:
        """Delete this very object; works for one that cannot be parsed, too."""
        raw = await self._write(self._api.delete(self._resource(key), key.namespace, key.name, uid))
        if raw is None:
            await self.refresh(key)
        elif raw.get("kind") == key.kind:
            self._store.apply(Change.PRESENT, key.kind, raw)
        else:
            self._store.apply(Change.GONE, key.kind, ghost(key, uid))

    async def patch_status(self, key: Key, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge patch of the status subresource. The key is not woken by its own status."""
        raw = await self._write(
            self._api.patch(self._resource(key), key.namespace, key.name, patch, "status")
        )
        self._store.apply(Change.PRESENT, key.kind, raw, own=True)
        return raw

    async def set_finalizers(self, obj: Model, finalizers: list[str]) -> Any:
        """Raises Conflict if the object has changed: the list is written as a whole."""
        key = key_of(obj)
        meta = {"finalizers": finalizers, "resourceVersion": obj.metadata.resource_version}
        raw = await self._write(
            self._api.patch(self._resource(key), key.namespace, key.name, {"metadata": meta})
        )
        self._store.apply(Change.PRESENT, key.kind, raw, own=True)
        return self._models[key.kind].model_validate(raw)

    async def refresh(self, key: Key) -> dict[str, Any] | None:
        """Read an object from the API into the store; None if it is not there."""
        try:
            raw = await self._api.get(self._resource(key), key.namespace, key.name)
        except NotFound:
            return None
        self._store.apply(Change.PRESENT, key.kind, raw)
        return raw

    async def read(self, key: Key) -> Any:
        """The object as the API has it now; the store is brought up to date, too."""
        raw = await self.refresh(key)
        return None if raw is None else self._models[key.kind].model_validate(raw)

    async def _write(self, request: Coroutine[Any, Any, T]) -> T:
        """A write that has begun ends, whoever is cancelled."""
        try:
            self._guard()
        except BaseException:
            request.close()
            raise
        return await to_its_end(request, WRITE_SECONDS)

    def _taken(self, key: Key, raw: dict[str, Any]) -> Any:
        self._store.apply(Change.PRESENT, key.kind, raw)
        return self._models[key.kind].model_validate(raw)

    def _resource(self, key: Key) -> Resource:
        return resource_of(self._models[key.kind])


def resource_of(model: type[Model]) -> Resource:
    """Where the API serves a kind."""
    group, _, version = str(model.model_fields["api_version"].default).rpartition("/")
    return Resource(group, version, model.INFO.plural, model.INFO.namespaced)
