"""What follows from a deletion: dependents, the content of namespaces, the objects of a CRD.

One task looks again at whatever a change may concern. It reads the store's state, never the
change, so it may look too often but misses nothing; after a restart it looks at everything once.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import orjson

from controller.apiserver import decoding
from controller.apiserver.admission import User
from controller.apiserver.catalog import Catalog, Resource, split_api_version
from controller.apiserver.errors import ApiError
from controller.apiserver.registry import Registry
from controller.apiserver.schema import crd as crds
from controller.apiserver.store import Change, ChangeType, ObjectKey, Store
from controller.apiserver.store.bodies import SLICE
from controller.apiserver.strategies import DEFINITIONS
from controller.apiserver.writes import DeleteOptions, WriteOptions

Wire = dict[str, Any]

_log = logging.getLogger(__name__)
_OPTIONS = WriteOptions(
    User("system:garbage-collector", frozenset({"system:masters"})), manager="kumulus-apiserver"
)
_RETRY_SECONDS = 1.0
_OWNERS = b'"ownerReferences"'
_DELETING = b'"deletionTimestamp"'
_CONTAINERS = frozenset({"/namespaces", DEFINITIONS})
"""Of these, the ones that are being deleted wait for what is in them."""


class Collector:
    """Owns the index from owners to dependents and the queue of keys to look at.

    The queue is a set of keys, so it is never longer than there are objects.
    """

    def __init__(self, store: Store, catalog: Catalog, registry: Registry) -> None:
        self._store = store
        self._catalog = catalog
        self._registry = registry
        self._owned_by: dict[ObjectKey, frozenset[str]] = {}
        self._dependents: defaultdict[str, set[ObjectKey]] = defaultdict(set)
        self._deleting: set[ObjectKey] = set()
        self._queue: dict[ObjectKey, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Follow the changes. What is there already is indexed by the task, before it works."""
        for resource in _CONTAINERS:
            shelf = self._store.shelf(resource)
            for (namespace, name), entry in zip(
                shelf.keys(), shelf.entries(shelf.keys()), strict=True
            ):
                self._note_container(ObjectKey(resource, namespace, name), entry.body)
        self._store.listen(self._on_change)
        self._task = asyncio.create_task(self._run(), name="apiserver-collector")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # Following changes

    def _on_change(self, change: Change) -> None:
        key, body = change.key, change.entry.body
        had_owners = key in self._owned_by
        if change.type is ChangeType.DELETED:
            self._forget(key)
            self._deleting.discard(key)
            if self._dependents:
                self._enqueue_dependents(change.object["metadata"].get("uid", ""))
            if _OWNERS in body:
                self._enqueue_owners(change.object)
        else:
            self._note(key, body)
            if had_owners:
                self._enqueue_owners(change.old or {})
        self._enqueue_containers(key)

    def _note(self, key: ObjectKey, body: bytes) -> None:
        """Index an object, and look at it if there may be something to do."""
        self._index(key, body)
        if key.resource in _CONTAINERS:
            self._note_container(key, body)
        if _OWNERS in body or _DELETING in body:
            self._enqueue(key)

    def _note_container(self, key: ObjectKey, body: bytes) -> None:
        if _DELETING in body:
            self._deleting.add(key)

    def _index(self, key: ObjectKey, body: bytes) -> None:
        self._forget(key)
        if _OWNERS not in body:
            return
        owners = frozenset(owner["uid"] for owner in _owners(orjson.loads(body)))
        if owners:
            self._owned_by[key] = owners
            for uid in owners:
                self._dependents[uid].add(key)

    async def _index_all(self) -> None:
        """What was stored before the start. Changes meanwhile are indexed as they come."""
        for resource in self._store.resources():
            names = self._store.shelf(resource).keys()
            for start in range(0, len(names), SLICE):
                keys = [ObjectKey(resource, *each) for each in names[start : start + SLICE]]
                there = [(key, entry) for key in keys if (entry := self._store.get(key))]
                bodies = self._store.read([entry for _, entry in there])
                for (key, _), body in zip(there, bodies, strict=True):
                    self._note(key, body)
                await asyncio.sleep(0)

    def _forget(self, key: ObjectKey) -> None:
        for uid in self._owned_by.pop(key, ()):
            self._dependents[uid].discard(key)
            if not self._dependents[uid]:
                del self._dependents[uid]

    def _enqueue(self, key: ObjectKey) -> None:
        self._queue[key] = None
        self._wake.set()

    def _enqueue_dependents(self, uid: str) -> None:
        for key in self._dependents.get(uid, ()):
            self._enqueue(key)

    def _enqueue_owners(self, wire: Wire) -> None:
        """Owners that wait for this dependent to be gone."""
        for owner in _owners(wire):
            found = self._owner_key(owner, wire["metadata"].get("namespace", ""))
            if found is not None:
                self._enqueue(found[1])

    def _enqueue_containers(self, key: ObjectKey) -> None:
        """The namespace and the definition that may wait for this object to be gone."""
        if not self._deleting:
            return
        group, _, plural = key.resource.partition("/")
        for container in (
            ObjectKey("/namespaces", "", key.namespace),
            ObjectKey(DEFINITIONS, "", f"{plural}.{group}"),
        ):
            if container in self._deleting:
                self._enqueue(container)

    # Working

    async def _run(self) -> None:
        await self._index_patiently()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                key = next(iter(self._queue))
                del self._queue[key]
                await self._attend_safely(key)

    async def _index_patiently(self) -> None:
        """Nothing is collected before all dependents are known."""
        while True:
            try:
                return await self._index_all()
            except sqlite3.Error as error:
                _log.error("cannot read what is stored; will try again", extra={"error": error})
                await asyncio.sleep(_RETRY_SECONDS)

    async def _attend_safely(self, key: ObjectKey) -> None:
        try:
            await self._attend(key)
        except ApiError as error:
            _log.info("will try again", extra={"object": "/".join(key), "error": error.message})
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._enqueue, key)
        except Exception:
            _log.exception("cannot collect", extra={"object": "/".join(key)})
            asyncio.get_running_loop().call_later(30 * _RETRY_SECONDS, self._enqueue, key)

    async def _attend(self, key: ObjectKey) -> None:
        entry = self._store.get(key)
        resource = self._catalog.stored(key.resource)
        if entry is None or resource is None:
            return
        wire = decoding.present_wire(resource, entry.object())
        if wire["metadata"].get("deletionTimestamp"):
            await self._attend_deleting(resource, key, wire)
        else:
            await self._attend_owned(resource, key, wire)

    async def _attend_deleting(self, resource: Resource, key: ObjectKey, wire: Wire) -> None:
        finalizers = wire["metadata"].get("finalizers") or []
        if "orphan" in finalizers:
            await self._orphan_dependents(wire)
            await self._drop_finalizer(resource, key, "orphan")
        elif "foregroundDeletion" in finalizers and await self._dependents_gone(wire):
            await self._drop_finalizer(resource, key, "foregroundDeletion")
        elif key.resource == "/namespaces" and await self._empty_namespace(key.name):
            await self._finish_namespace(resource, key)
        elif crds.CLEANUP in finalizers and await self._empty_definition(wire):
            await self._drop_finalizer(resource, key, crds.CLEANUP)

    # Owner references

    async def _attend_owned(self, resource: Resource, key: ObjectKey, wire: Wire) -> None:
        """Delete what has lost all its owners; forget those that are lost."""
        owners = _owners(wire)
        states = [(owner, self._owner_state(owner, key.namespace)) for owner in owners]
        if not owners or any(state == "unknown" for _, state in states):
            return
        solid = [owner for owner, state in states if state == "solid"]
        absent = [owner["uid"] for owner, state in states if state == "absent"]
        if solid:
            if absent:
                await self._drop_owners(resource, key, absent)
            return
        waiting = any(state == "waiting" for _, state in states)
        uid = wire["metadata"]["uid"]
        foreground = waiting and bool(self._dependents.get(uid))
        await self._delete(resource, key, "Foreground" if foreground else "Background", uid)

    def _owner_key(self, owner: Wire, namespace: str) -> tuple[Resource, ObjectKey] | None:
        group, _ = split_api_version(owner.get("apiVersion", ""))
        resource = self._catalog.kind(group, owner.get("kind", ""))
        if resource is None or (resource.namespaced and not namespace):
            return None
        within = namespace if resource.namespaced else ""
        return resource, ObjectKey(resource.storage, within, owner.get("name", ""))

    def _owner_state(self, owner: Wire, namespace: str) -> str:
        """solid, waiting (deleted in the foreground), absent, or unknown (kind not served)."""
        found = self._owner_key(owner, namespace)
        if found is None:
            return "unknown"
        entry = self._store.get(found[1])
        if entry is None:
            return "absent"
        metadata = entry.object()["metadata"]
        if metadata["uid"] != owner.get("uid"):
            return "absent"
        foreground = "foregroundDeletion" in (metadata.get("finalizers") or [])
        return "waiting" if metadata.get("deletionTimestamp") and foreground else "solid"

    async def _drop_owners(self, resource: Resource, key: ObjectKey, uids: list[str]) -> None:
        def mutate(wire: Wire) -> Wire:
            kept = [owner for owner in _owners(wire) if owner["uid"] not in uids]
            _replace(wire["metadata"], "ownerReferences", kept)
            return wire

        await self._update(resource, key, mutate)

    async def _orphan_dependents(self, wire: Wire) -> None:
        uid = wire["metadata"]["uid"]
        for key, resource in self._dependents_of(uid):
            await self._drop_owners(resource, key, [uid])

    async def _dependents_gone(self, wire: Wire) -> bool:
        """Whether no dependent that blocks is left; begins to delete those that are."""
        uid = wire["metadata"]["uid"]
        blocked = False
        for key, resource in self._dependents_of(uid):
            entry = self._store.get(key)
            if entry is None:
                continue
            dependent = entry.object()
            blocked |= any(
                owner["uid"] == uid and owner.get("blockOwnerDeletion")
                for owner in _owners(dependent)
            )
            if not dependent["metadata"].get("deletionTimestamp"):
                await self._attend_owned(resource, key, dependent)
        return not blocked or not self._dependents.get(uid)

    def _dependents_of(self, uid: str) -> Iterator[tuple[ObjectKey, Resource]]:
        for key in list(self._dependents.get(uid, ())):
            resource = self._catalog.stored(key.resource)
            if resource is not None:
                yield key, resource

    # Containers

    async def _empty_namespace(self, namespace: str) -> bool:
        left = 0
        for storage in self._store.resources():
            resource = self._catalog.stored(storage)
            if resource is None or not resource.namespaced:
                continue
            left += await self._delete_all(resource, namespace)
        return left == 0

    async def _finish_namespace(self, resource: Resource, key: ObjectKey) -> None:
        def mutate(wire: Wire) -> Wire:
            wire["spec"] = {}
            return wire

        await self._update(resource, key, mutate, subresource="finalize")

    async def _empty_definition(self, crd: Wire) -> bool:
        storage = f"{crd['spec']['group']}/{crd['spec']['names']['plural']}"
        resource = self._catalog.stored(storage)
        return resource is None or await self._delete_all(resource, "") == 0

    async def _delete_all(self, resource: Resource, namespace: str) -> int:
        """Begin to delete everything; answers how many objects are still there."""
        shelf = self._store.shelf(resource.storage)
        for found in shelf.keys(namespace):
            key = ObjectKey(resource.storage, *found)
            entry = self._store.get(key)
            if entry is None:
                continue
            if not entry.object()["metadata"].get("deletionTimestamp"):
                await self._delete(resource, key, None, None)
        return len(shelf.keys(namespace))

    # Writes

    async def _delete(
        self, resource: Resource, key: ObjectKey, propagation: str | None, uid: str | None
    ) -> None:
        options = DeleteOptions(propagation, uid=uid)
        try:
            await self._registry.delete(resource, key.namespace, key.name, options, _OPTIONS)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def _drop_finalizer(self, resource: Resource, key: ObjectKey, finalizer: str) -> None:
        def mutate(wire: Wire) -> Wire:
            kept = [f for f in wire["metadata"].get("finalizers") or [] if f != finalizer]
            _replace(wire["metadata"], "finalizers", kept)
            return wire

        await self._update(resource, key, mutate)

    async def _update(
        self, resource: Resource, key: ObjectKey, mutate: Any, subresource: str = ""
    ) -> None:
        try:
            await self._registry.update(
                resource, key.namespace, key.name, mutate, _OPTIONS, subresource=subresource
            )
        except ApiError as error:
            if error.code != 404:
                raise


def _owners(wire: Wire) -> list[Wire]:
    found: list[Wire] = (wire.get("metadata") or {}).get("ownerReferences") or []
    return found


def _replace(metadata: Wire, key: str, value: list[Any]) -> None:
    if value:
        metadata[key] = value
    else:
        metadata.pop(key, None)
