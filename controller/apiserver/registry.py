"""The verbs on stored objects, the same for every resource."""

from __future__ import annotations

import asyncio

from controller.apiserver import admission, decoding, errors, meta, strategies, writes
from controller.apiserver.catalog import Catalog, Resource
from controller.apiserver.errors import ApiError
from controller.apiserver.fields import managed
from controller.apiserver.gates import Gates
from controller.apiserver.judging import Judging
from controller.apiserver.schema import structural
from controller.apiserver.store import ChangeType, Entry, ObjectKey, Store, StoreFailure
from controller.apiserver.writes import DeleteOptions, Found, Mutate, Outcome, Wire, WriteOptions

_RETRIES = 16


class Registry:
    """Creates, changes and deletes. Everything that is refused raises ApiError."""

    def __init__(
        self, store: Store, catalog: Catalog, judge: admission.Admission | None = None,
        gates: Gates | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._catalog = catalog
        self._judging = Judging(store, catalog, judge, gates)

    # Reading

    def get(self, resource: Resource, namespace: str, name: str) -> Entry:
        """The committed object, as stored."""
        entry = self._store.get(ObjectKey(resource.storage, namespace, name))
        if entry is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return entry

    # Creating

    async def create(
        self, resource: Resource, namespace: str, wire: Wire, options: WriteOptions
    ) -> Outcome:
        """``wire`` is decoded (``decoding.decode``) and becomes the registry's."""
        metadata = wire["metadata"]
        writes.match_namespace(metadata, namespace)
        if namespace:
            metadata["namespace"] = namespace
        if metadata.pop("resourceVersion", None):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        wire = await self._judging.before(resource, wire, None, "", options)
        metadata = wire["metadata"]
        for attempt in range(_RETRIES):
            if metadata.get("generateName") and (attempt or not metadata.get("name")):
                metadata["name"] = meta.generated_name(metadata["generateName"])
            outcome = await self._create_once(resource, namespace, wire, options)
            if outcome is not None:
                return outcome
            if not metadata.get("generateName"):
                break
        taken = errors.already_exists(resource.group, resource.plural, metadata["name"])
        entry = self._store.head(ObjectKey(resource.storage, namespace, metadata["name"]))
        if entry is not None and writes.is_deleting(entry):
            taken.message = f"object is being deleted: {taken.message}"
        raise taken

    async def _create_once(
        self, resource: Resource, namespace: str, wire: Wire, options: WriteOptions
    ) -> Outcome | None:
        """None if the name is taken."""
        metadata = wire["metadata"]
        meta.stamp_new(metadata, namespace)
        self._check_namespace(resource, namespace, metadata.get("name", ""))
        if resource.has_status and resource.custom:
            wire.pop("status", None)
        if resource.generations:
            metadata["generation"] = 1
        strategies.prepare(resource, wire, None)
        writes.validate(resource, wire, None)
        strategies.complete(resource, wire, self._catalog)
        key = ObjectKey(resource.storage, namespace, metadata["name"])
        if self._store.head(key) is not None:
            return None
        if not options.applied:
            managed.created(resource, wire, options.manager)
        await self._judging.admit(resource, wire, None, "", options)
        if self._store.head(key) is not None:
            return None
        self._check_namespace(resource, namespace, metadata["name"])
        if options.dry_run:
            return Outcome(decoding.encode(wire), created=True)
        stored = decoding.store_wire(resource, wire)
        entry = await self._write(ChangeType.ADDED, key, stored)
        return Outcome(decoding.present(resource, entry.body), created=True)

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if not resource.namespaced:
            return
        entry = self._store.head(ObjectKey("/namespaces", "", namespace))
        if entry is None:
            raise errors.not_found("", "namespaces", namespace)
        if b'"deletionTimestamp"' in entry.body and writes.is_deleting(entry):
            raise errors.forbidden(
                resource.group, resource.plural, name,
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated",
                [{"reason": "NamespaceTerminating",
                  "message": f"namespace {namespace} is being terminated",
                  "field": "metadata.namespace"}],
            )  # fmt: skip

    # Changing

    async def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        mutate: Mutate,
        options: WriteOptions,
        *,
        subresource: str = "",
        conditional: bool = False,
    ) -> Outcome:
        """Change an object: ``mutate`` gets it (in the resource's version) and answers the new one.

        ``mutate`` may be called again if somebody else was faster, unless the new object says
        which version it was made from. ``conditional``: it must say so (custom resources).
        """
        key = ObjectKey(resource.storage, namespace, name)
        for _ in range(_RETRIES):
            entry = self._store.head(key)
            if entry is None:
                raise errors.not_found(resource.group, resource.plural, name)
            old = decoding.present_wire(resource, entry.object())
            new = mutate(decoding.present_wire(resource, entry.object()))
            writes.check_version(resource, new, old, conditional)
            new = await self._judging.before(resource, new, old, subresource, options)
            outcome = await self._update_once(
                resource, Found(key, entry, old), new, subresource, options
            )
            if outcome is not None:
                return outcome
        raise errors.conflict(resource.group, resource.plural, name)

    async def _update_once(
        self, resource: Resource, found: Found, new: Wire, subresource: str,
        options: WriteOptions,
    ) -> Outcome | None:  # fmt: skip
        """None if the object changed meanwhile."""
        key, entry, old = found
        writes.match_namespace(new["metadata"], key.namespace)
        entries = new["metadata"].get(managed.FIELD)
        new = writes.prepare_update(resource, new, old, key.namespace, subresource)
        strategies.prepare(resource, new, old)
        writes.bump_generation(resource, new, old)
        writes.validate(resource, new, old)
        strategies.complete(resource, new, self._catalog)
        if options.applied:
            managed.put(new, entries)
        else:
            who = managed.Manager(options.manager, "Update", resource.api_version, subresource)
            managed.updated(resource, new, old, entries, who)
        if structural.same(new, old):
            await self._judging.after(resource, new, old, subresource, options)
            return Outcome(decoding.present(resource, entry.body))
        await self._judging.admit(resource, new, old, subresource, options)
        if self._store.head(key) is not entry:
            return None
        gone = writes.is_finished(resource, new)
        if options.dry_run:
            return Outcome(decoding.encode(new), deleted=gone)
        if gone:
            # Watchers see the last state that was stored; who let go of it, what that made of it.
            last = await self._write(
                ChangeType.DELETED, key, decoding.store_wire(resource, {**old})
            )
            metadata = {**new["metadata"], "resourceVersion": str(last.version)}
            return Outcome(decoding.encode({**new, "metadata": metadata}), deleted=True)
        written = await self._write(ChangeType.MODIFIED, key, decoding.store_wire(resource, new))
        return Outcome(decoding.present(resource, written.body))

    # Deleting

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        delete: DeleteOptions,
        options: WriteOptions,
    ) -> Outcome:
        """Begin a deletion; it ends at once if nothing (a finalizer) holds the object back."""
        key = ObjectKey(resource.storage, namespace, name)
        for _ in range(_RETRIES):
            entry = self._store.head(key)
            if entry is None:
                raise errors.not_found(resource.group, resource.plural, name)
            old = decoding.present_wire(resource, entry.object())
            writes.check_preconditions(resource, old, delete)
            outcome = await self._delete_once(resource, Found(key, entry, old), delete, options)
            if outcome is not None:
                return outcome
        raise errors.conflict(resource.group, resource.plural, name)

    async def _delete_once(
        self, resource: Resource, found: Found, delete: DeleteOptions, options: WriteOptions
    ) -> Outcome | None:
        key, entry, old = found
        new = {**old, "metadata": dict(old["metadata"])}
        if not resource.custom:  # more may be changed than metadata
            new = decoding.present_wire(resource, entry.object())
        writes.begin_deletion(resource, new, delete)
        await self._judging.before(resource, None, old, "", options)
        await self._judging.admit(resource, None, old, "", options)
        if self._store.head(key) is not entry:
            return None
        gone = writes.is_finished(resource, new)
        if not gone and structural.same(new, old):
            return Outcome(decoding.present(resource, entry.body))
        if options.dry_run:
            return Outcome(decoding.encode(new), deleted=gone, metadata=new["metadata"])
        if gone:
            new = old  # watchers see the last state it had, not the deletion's beginning
        type_ = ChangeType.DELETED if gone else ChangeType.MODIFIED
        written = await self._write(type_, key, decoding.store_wire(resource, new))
        body = decoding.present(resource, written.body)
        return Outcome(body, deleted=gone, metadata=new["metadata"])

    # What the verbs share

    async def _write(self, type_: ChangeType, key: ObjectKey, stored: Wire) -> Entry:
        def build(version: int) -> bytes:
            stored["metadata"]["resourceVersion"] = str(version)
            return decoding.encode(stored)

        try:
            return await asyncio.shield(self._store.write(type_, key, build))
        except StoreFailure as error:
            raise errors.unavailable(str(error)) from None
