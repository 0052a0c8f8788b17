"""What a write is, and the rules that every write keeps: pure, the same for every resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from controller.apiserver import errors, meta, strategies
from controller.apiserver.admission import User
from controller.apiserver.catalog import Resource
from controller.apiserver.decoding import FieldValidation
from controller.apiserver.errors import ApiError, FieldError
from controller.apiserver.schema import cel, structural
from controller.apiserver.schema.structural import MISSING
from controller.apiserver.store import Entry, ObjectKey

Wire = dict[str, Any]
Mutate = Callable[[Wire], Wire]

_BLOCKING = frozenset(
    {
        "FieldValueRequired", "FieldValueTypeInvalid", "FieldValueTooLong", "FieldValueTooMany",
        "FieldValueNotSupported", "FieldValueNotFound",
    }
)  # fmt: skip
UNCHECKED = FieldError(
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
    """A write's answer: the object's JSON in the version asked for.

    ``metadata`` is that of what a delete was about.
    """

    body: bytes
    created: bool = False
    deleted: bool = False
    metadata: Wire = field(default_factory=dict)


class Found(NamedTuple):
    """What a write starts from."""

    key: ObjectKey
    entry: Entry
    old: Wire


def validate(resource: Resource, new: Wire, old: Wire | None) -> None:
    """Refuse with all that is wrong."""
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
            found.append(UNCHECKED)
        else:
            cel.judge(resource.rules, new, old if old is not None else MISSING, "", found)
    found.extend(strategies.validate(resource, new, old))
    if found:
        name = new["metadata"].get("name", "")
        raise errors.invalid_object(resource.group, resource.kind, name, found)


def match_namespace(metadata: Wire, namespace: str) -> None:
    given = metadata.get("namespace", "")
    if given and given != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def check_version(resource: Resource, new: Wire, old: Wire, conditional: bool) -> None:
    if not new["metadata"].get("name"):
        raise errors.bad_request(
            f"the name of the object ({old['metadata']['name']} based on URL) was undeterminable: "
            "name must be provided"
        )
    if new["metadata"]["name"] != old["metadata"]["name"]:
        raise errors.bad_request(
            f"the name of the object ({new['metadata']['name']}) does not match the name "
            f"on the URL ({old['metadata']['name']})"
        )
    given = new["metadata"].get("resourceVersion", "")
    name = old["metadata"]["name"]
    if given in ("", "0", None):
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


def prepare_update(
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


def bump_generation(resource: Resource, new: Wire, old: Wire) -> None:
    if not resource.generations:
        return
    ignored = {"metadata", "status"} if resource.has_status else {"metadata"}
    before = {key: value for key, value in old.items() if key not in ignored}
    after = {key: value for key, value in new.items() if key not in ignored}
    if not structural.same(before, after):
        metadata = new["metadata"] = dict(new["metadata"])
        metadata["generation"] = old["metadata"].get("generation", 0) + 1


def is_deleting(entry: Entry) -> bool:
    return bool(entry.object()["metadata"].get("deletionTimestamp"))


def is_finished(resource: Resource, wire: Mapping[str, Any]) -> bool:
    """A deletion that nothing holds back any more."""
    metadata = wire["metadata"]
    return (
        bool(metadata.get("deletionTimestamp"))
        and not metadata.get("finalizers")
        and not strategies.holds_back(resource, wire)
    )


def begin_deletion(resource: Resource, new: Wire, delete: DeleteOptions) -> None:
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


def check_preconditions(resource: Resource, old: Wire, delete: DeleteOptions) -> None:
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
