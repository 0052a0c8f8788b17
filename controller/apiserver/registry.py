"""The verbs on stored objects, the same for every resource."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.logs import bind
from controller.apiserver import admission, decoding, errors, meta, strategies
from controller.apiserver.admission import User
from controller.apiserver.catalog import Catalog, Resource
from controller.apiserver.decoding import FieldValidation
from controller.apiserver.errors import ApiError, FieldError
from controller.apiserver.fields import managed
from controller.apiserver.gates import Gates
from controller.apiserver.schema import cel, structural
from controller.apiserver.schema.structural import MISSING
from controller.apiserver.store import ChangeType, Entry, ObjectKey, Store, StoreFailure
from controller.apiserver.webhooks.dispatcher import Write

Wire = dict[str, Any]
Mutate = Callable[[Wire], Wire]

_log = logging.getLogger(__name__)
_RETRIES = 16
_ADMISSION_SECONDS = 10.0
_BLOCKING = frozenset(
    {
        "FieldValueRequired", "FieldValueTypeInvalid", "FieldValueTooLong", "FieldValueTooMany",
        "FieldValueNotSupported", "FieldValueNotFound",
    }
)  # fmt: skip
_UNCHECKED = FieldError(
    "FieldValueInvalid",
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)


@dataclass(frozen=True)
class WriteOptions:
    """How a write is meant."""

    user: User
    dry_run: bool = False
    validation: FieldValidation = "Warn"
    internal: bool = False
    """The server's own doing: no webhook can stand in its way."""
    warnings: list[str] = field(default_factory=list)
    """Grows: what the client is to be told beside the answer."""
    manager: str = "unknown"
    applied: bool = False
    """The object brings the managedFields that it is to have (server-side apply)."""


@dataclass(frozen=True)
class DeleteOptions:
    """metav1.DeleteOptions. ``propagation``: Background, Foreground, Orphan or None."""

    propagation: str | None = None
    uid: str | None = None
    resource_version: str | None = None


@dataclass
class Outcome:
    """A write's answer: the object's JSON in the version asked for."""

    body: bytes
    created: bool = False
    deleted: bool = False
    warnings: list[str] = field(default_factory=list)


class _Found(NamedTuple):
    """What a write starts from."""

    key: ObjectKey
    entry: Entry
    old: Wire


class Registry:
    """Creates, changes and deletes. Everything that is refused raises ApiError."""

    def __init__(
        self, store: Store, catalog: Catalog, judge: admission.Admission | None = None,
        gates: Gates | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._catalog = catalog
        self._judge = judge
        self._gates = gates
        self._lookup = StoreLookup(store, catalog)

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
        _match_namespace(metadata, namespace)
        if namespace:
            metadata["namespace"] = namespace
        if metadata.pop("resourceVersion", None):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        wire = await self._before(resource, wire, None, "", options)
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
        if entry is not None and _is_deleting(entry):
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
        self._validate(resource, wire, None)
        strategies.complete(resource, wire, self._catalog)
        key = ObjectKey(resource.storage, namespace, metadata["name"])
        if self._store.head(key) is not None:
            return None
        if not options.applied:
            managed.created(resource, wire, options.manager)
        await self._admit(resource, wire, None, "", options)
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
        if b'"deletionTimestamp"' in entry.body and _is_deleting(entry):
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
        which version it was made from. ``conditional``: it must say so (a PUT of a custom
        resource).
        """
        key = ObjectKey(resource.storage, namespace, name)
        for _ in range(_RETRIES):
            entry = self._store.head(key)
            if entry is None:
                raise errors.not_found(resource.group, resource.plural, name)
            old = decoding.present_wire(resource, entry.object())
            new = mutate(decoding.present_wire(resource, entry.object()))
            _check_version(resource, new, old, conditional)
            new = await self._before(resource, new, old, subresource, options)
            outcome = await self._update_once(
                resource, _Found(key, entry, old), new, subresource, options
            )
            if outcome is not None:
                return outcome
        raise errors.conflict(resource.group, resource.plural, name)

    async def _update_once(
        self, resource: Resource, found: _Found, new: Wire, subresource: str,
        options: WriteOptions,
    ) -> Outcome | None:  # fmt: skip
        """None if the object changed meanwhile."""
        key, entry, old = found
        _match_namespace(new["metadata"], key.namespace)
        entries = new["metadata"].get(managed.FIELD)
        new = _prepare_update(resource, new, old, key.namespace, subresource)
        strategies.prepare(resource, new, old)
        _bump_generation(resource, new, old)
        self._validate(resource, new, old)
        strategies.complete(resource, new, self._catalog)
        if options.applied:
            managed.put(new, entries)
        else:
            who = managed.Manager(options.manager, "Update", resource.api_version, subresource)
            managed.updated(resource, new, old, entries, who)
        if structural.same(new, old):
            await self._after(resource, new, old, subresource, options)
            return Outcome(decoding.present(resource, entry.body))
        await self._admit(resource, new, old, subresource, options)
        if self._store.head(key) is not entry:
            return None
        gone = _is_finished(resource, new)
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
            _check_preconditions(resource, old, delete)
            outcome = await self._delete_once(resource, _Found(key, entry, old), delete, options)
            if outcome is not None:
                return outcome
        raise errors.conflict(resource.group, resource.plural, name)

    async def _delete_once(
        self, resource: Resource, found: _Found, delete: DeleteOptions, options: WriteOptions
    ) -> Outcome | None:
        key, entry, old = found
        new = decoding.present_wire(resource, entry.object())
        _begin_deletion(resource, new, delete)
        await self._before(resource, None, old, "", options)
        await self._admit(resource, None, old, "", options)
        if self._store.head(key) is not entry:
            return None
        gone = _is_finished(resource, new)
        if not gone and structural.same(new, old):
            return Outcome(decoding.present(resource, entry.body))
        if options.dry_run:
            return Outcome(decoding.encode(new), deleted=gone)
        if gone:
            new = old  # watchers see the last state it had, not the deletion's beginning
        type_ = ChangeType.DELETED if gone else ChangeType.MODIFIED
        written = await self._write(type_, key, decoding.store_wire(resource, new))
        return Outcome(decoding.present(resource, written.body), deleted=gone)

    # What the verbs share

    async def _write(self, type_: ChangeType, key: ObjectKey, stored: Wire) -> Entry:
        def build(version: int) -> bytes:
            stored["metadata"]["resourceVersion"] = str(version)
            return decoding.encode(stored)

        try:
            return await asyncio.shield(self._store.write(type_, key, build))
        except StoreFailure as error:
            raise errors.unavailable(str(error)) from None

    def _validate(self, resource: Resource, new: Wire, old: Wire | None) -> None:
        found: list[FieldError] = []
        if old is not None:
            found.extend(meta.validate_update(new["metadata"], old["metadata"]))
        if old is None or new["metadata"] != old["metadata"]:
            found.extend(meta.validate(new["metadata"], resource.name_style))
        bare = {k: v for k, v in new.items() if k != "metadata"}
        before = {k: v for k, v in old.items() if k != "metadata"} if old is not None else MISSING
        if resource.custom:  # built-in kinds were checked when they were decoded
            structural.validate(resource.schema, bare, before, "", found)
        if resource.rules is not None:
            if any(error.reason in _BLOCKING for error in found):
                found.append(_UNCHECKED)
            else:
                cel.judge(resource.rules, new, old if old is not None else MISSING, "", found)
        found.extend(strategies.validate(resource, new, old))
        if found:
            name = new["metadata"].get("name", "")
            raise errors.invalid_object(resource.group, resource.kind, name, found)

    async def _before(
        self, resource: Resource, new: Wire | None, old: Wire | None, subresource: str,
        options: WriteOptions,
    ) -> Wire:  # fmt: skip
        """The object (the old one, if it is deleted) as the mutating webhooks leave it."""
        if self._gates is not None:
            write = _write_of(resource, new, old, subresource, options)
            await self._gates.before(write, internal=options.internal)
            new = write.new
        return new or old or {}

    async def _after(
        self, resource: Resource, new: Wire | None, old: Wire | None, subresource: str,
        options: WriteOptions,
    ) -> None:  # fmt: skip
        if self._gates is not None:
            write = _write_of(resource, new, old, subresource, options)
            await self._gates.after(write, internal=options.internal)

    async def _admit(
        self, resource: Resource, new: Wire | None, old: Wire | None, subresource: str,
        options: WriteOptions,
    ) -> None:  # fmt: skip
        await self._after(resource, new, old, subresource, options)
        if self._judge is None or not resource.custom:
            return
        metadata = (new or old or {})["metadata"]
        operation: admission.Operation = (
            "CREATE" if old is None else "DELETE" if new is None else "UPDATE"
        )
        request = admission.Request(
            operation, resource.group, resource.version, resource.kind, resource.plural,
            metadata.get("namespace", ""), metadata["name"], new, old, options.user, self._lookup,
            subresource, options.dry_run,
        )  # fmt: skip
        violations = await self._ask(request)
        if violations:
            raise admission.refusal(request, violations)

    async def _ask(self, request: admission.Request) -> Sequence[admission.Violation]:
        assert self._judge is not None
        try:
            async with asyncio.timeout(_ADMISSION_SECONDS):
                return await self._judge(request)
        except TimeoutError:
            raise errors.internal("admission did not answer in time; try again") from None
        except Exception:
            with bind(kind=request.kind, namespace=request.namespace, name=request.name):
                _log.exception("admission failed")
            raise errors.internal("admission failed; the server's log has the reason") from None


def _write_of(
    resource: Resource, new: Wire | None, old: Wire | None, subresource: str,
    options: WriteOptions,
) -> Write:  # fmt: skip
    metadata = (old or new or {})["metadata"]
    return Write(
        resource, metadata.get("namespace", ""), metadata.get("name", ""), subresource,
        options.user, options.dry_run, new, old, options.warnings,
    )  # fmt: skip


def _match_namespace(metadata: Wire, namespace: str) -> None:
    given = metadata.get("namespace", "")
    if given and given != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _check_version(resource: Resource, new: Wire, old: Wire, conditional: bool) -> None:
    if new["metadata"].get("name") != old["metadata"]["name"]:
        raise errors.bad_request(
            f"the name of the object ({new['metadata'].get('name', '')}) does not match the name "
            f"on the URL ({old['metadata']['name']})"
        )
    given = new["metadata"].get("resourceVersion", "")
    name = old["metadata"]["name"]
    if not given:
        if conditional:
            problem = errors.invalid(
                "metadata.resourceVersion", 0, "must be specified for an update"
            )
            raise errors.invalid_object(resource.group, resource.plural, name, [problem])
    elif not given.isdigit():
        raise ApiError(500, "", f'strconv.ParseUint: parsing "{given}": invalid syntax')
    elif given != old["metadata"]["resourceVersion"]:
        raise errors.conflict(resource.group, resource.plural, name)
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]


def _prepare_update(
    resource: Resource, new: Wire, old: Wire, namespace: str, subresource: str
) -> Wire:
    if subresource == "status":
        found = {key: value for key, value in old.items() if key != "status"}
        if "status" in new:
            found["status"] = new["status"]
        return found
    if subresource == "finalize":
        return {**old, "spec": new.get("spec") or {}}
    meta.carry_over(new["metadata"], old["metadata"], namespace)
    if "finalize" in resource.extra_subresources:
        new["spec"] = old.get("spec") or {}
    if resource.has_status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    return new


def _bump_generation(resource: Resource, new: Wire, old: Wire) -> None:
    if not resource.generations:
        return
    ignored = {"metadata", "status"} if resource.has_status else {"metadata"}
    before = {key: value for key, value in old.items() if key not in ignored}
    after = {key: value for key, value in new.items() if key not in ignored}
    if not structural.same(before, after):
        metadata = new["metadata"] = dict(new["metadata"])
        metadata["generation"] = old["metadata"].get("generation", 0) + 1


def _is_deleting(entry: Entry) -> bool:
    return bool(entry.object()["metadata"].get("deletionTimestamp"))


def _is_finished(resource: Resource, wire: Mapping[str, Any]) -> bool:
    """A deletion that nothing holds back any more."""
    metadata = wire["metadata"]
    return (
        bool(metadata.get("deletionTimestamp"))
        and not metadata.get("finalizers")
        and not strategies.holds_back(resource, wire)
    )


def _begin_deletion(resource: Resource, new: Wire, delete: DeleteOptions) -> None:
    metadata = new["metadata"]
    strategies.before_delete(resource, new)
    finalizers = list(metadata.get("finalizers") or [])
    if delete.propagation is not None:
        finalizers = [f for f in finalizers if f not in ("orphan", "foregroundDeletion")]
        if delete.propagation == "Orphan":
            finalizers.append("orphan")
        elif delete.propagation == "Foreground":
            finalizers.append("foregroundDeletion")
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = meta.timestamp()
        if resource.custom:
            metadata["deletionGracePeriodSeconds"] = 0
            metadata["generation"] = metadata.get("generation", 0) + 1


def _check_preconditions(resource: Resource, old: Wire, delete: DeleteOptions) -> None:
    metadata = old["metadata"]
    name, uid, version = metadata["name"], metadata["uid"], metadata["resourceVersion"]
    if delete.uid is not None and delete.uid != uid:
        raise errors.conflict(
            resource.group, resource.kind, name,
            f"the UID in the precondition ({delete.uid}) does not match the UID in record ({uid}). "
            "The object might have been deleted and then recreated",
        )  # fmt: skip
    if delete.resource_version is not None and delete.resource_version != version:
        raise errors.conflict(
            resource.group, resource.kind, name,
            f"the ResourceVersion in the precondition ({delete.resource_version}) does not match "
            f"the ResourceVersion in record ({version}). The object might have been modified",
        )  # fmt: skip


class StoreLookup:
    """``admission.Lookup`` on the store."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog

    async def get(self, group: str, kind: str, namespace: str, name: str) -> Wire | None:
        resource = self._catalog.kind(group, kind)
        if resource is None:
            return None
        entry = self._store.get(ObjectKey(resource.storage, namespace, name))
        return decoding.present_wire(resource, entry.object()) if entry else None

    async def list(self, group: str, kind: str, namespace: str = "") -> list[Wire]:
        resource = self._catalog.kind(group, kind)
        if resource is None:
            return []
        shelf = self._store.shelf(resource.storage)
        entries = shelf.entries(shelf.keys(namespace))
        return [decoding.present_wire(resource, entry.object()) for entry in entries]
