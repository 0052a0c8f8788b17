"""Object metadata: what clients may set, what the server sets, and what is valid."""

from __future__ import annotations

import datetime as dt
import random
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from controller.apiserver import errors
from controller.apiserver.errors import FieldError
from controller.apiserver.selectors import label_key_error, label_value_error

Wire = dict[str, Any]

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_ANNOTATIONS_LIMIT = 256 * 1024
_STANDARD_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes"})
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_random = random.SystemRandom()
_dice = random.Random(_random.getrandbits(256))  # noqa: S311

_STRINGS = (
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion",
    "creationTimestamp", "deletionTimestamp",
)  # fmt: skip
_DELETION = ("deletionTimestamp", "deletionGracePeriodSeconds")
_INTEGERS = ("generation", "deletionGracePeriodSeconds")
_STRING_MAPS = ("labels", "annotations")
KNOWN = frozenset(
    (*_STRINGS, *_INTEGERS, *_STRING_MAPS, "finalizers", "ownerReferences", "managedFields")
)
_MANAGED_FIELDS = frozenset(
    {
        "manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource",
    }
)  # fmt: skip
_OWNER_FIELDS = {
    "apiVersion": str, "kind": str, "name": str, "uid": str,
    "controller": bool, "blockOwnerDeletion": bool,
}  # fmt: skip


def timestamp(now: dt.datetime | None = None) -> str:
    """metav1.Time: UTC, whole seconds."""
    return (now or dt.datetime.now(dt.UTC)).isoformat(timespec="seconds")[:19] + "Z"


def timestamp_of(seconds: float) -> str:
    """A time given in seconds since 1970."""
    return timestamp(dt.datetime.fromtimestamp(seconds, dt.UTC))


def new_uid() -> str:
    """A random UUID. It is no secret, so no system call is made for it."""
    return str(uuid.UUID(int=_dice.getrandbits(128), version=4))


def generated_name(base: str) -> str:
    """``generateName`` plus five random characters; long bases are cut as Kubernetes does."""
    return base[:58] + "".join(_random.choices(_ALPHABET, k=5))


# Decoding


class BadMetadata(ValueError):
    """A field of the wrong JSON type, which Kubernetes answers with 400."""


def coerce(metadata: Any, path: str, unknown: list[str]) -> Wire:
    """ObjectMeta as Kubernetes decodes it: nulls and unknown fields dropped.

    Raises BadMetadata on a wrong type; names of dropped fields are added to ``unknown``.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise BadMetadata(f"json: cannot unmarshal {_json_type(metadata)} into Go value of type "
                          "v1.ObjectMeta")  # fmt: skip
    found = {}
    for key, value in metadata.items():
        if key not in KNOWN:
            unknown.append(f"{path}.{key}")
        elif value is not None:
            found[key] = _coerce_field(key, value, f"{path}.{key}", unknown)
    return {key: value for key, value in found.items() if value not in ({}, [], "")}


def _coerce_field(key: str, value: Any, path: str, unknown: list[str]) -> Any:
    if key in _STRINGS:
        _expect(value, str, key, "string")
    elif key in _INTEGERS:
        _expect(value, int, key, "int64")
    elif key in _STRING_MAPS:
        _expect(value, dict, key, "map[string]string")
        for item in value.values():
            _expect(item, str, key, "string")
    elif key == "finalizers":
        _expect(value, list, key, "[]string")
        for item in value:
            _expect(item, str, key, "string")
    elif key == "ownerReferences":
        _expect(value, list, key, "[]v1.OwnerReference")
        return [_owner(item, f"{path}[{at}]", unknown) for at, item in enumerate(value)]
    elif key == "managedFields":
        _expect(value, list, key, "[]v1.ManagedFieldsEntry")
        for at, item in enumerate(value):
            _expect(item, dict, key, "v1.ManagedFieldsEntry")
            unknown.extend(f"{path}[{at}].{name}" for name in item if name not in _MANAGED_FIELDS)
    return value


def _owner(value: Any, path: str, unknown: list[str]) -> Wire:
    _expect(value, dict, "ownerReferences", "v1.OwnerReference")
    found = {}
    for key, item in value.items():
        wanted = _OWNER_FIELDS.get(key)
        if wanted is None:
            unknown.append(f"{path}.{key}")
        elif item is not None:
            _expect(item, wanted, f"ownerReferences.{key}", wanted.__name__)
            found[key] = item
    return found


def _expect(value: Any, type_: type, key: str, go_type: str) -> None:
    if not isinstance(value, type_) or (type_ is int and isinstance(value, bool)):
        raise BadMetadata(
            f"json: cannot unmarshal {_json_type(value)} into Go struct field ObjectMeta.{key} of "
            f"type {go_type}"
        )


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


# Validation


def name_error(name: str, style: str) -> str:
    """Why ``name`` is no name of this style (``subdomain`` or ``label``); empty if it is one."""
    if style == "path":  # RBAC kinds
        bad = name in (".", "..") or set("/%") & set(name)
        return "may not be '.' or '..' nor contain '/' or '%'" if bad else ""
    limit = 63 if style == "label" else 253
    if len(name) > limit:
        return f"must be no more than {limit} characters"
    pattern, text = (_LABEL, LABEL_TEXT) if style == "label" else (_SUBDOMAIN, SUBDOMAIN_TEXT)
    return "" if pattern.match(name) else text


def validate(metadata: Mapping[str, Any], style: str) -> Iterator[FieldError]:
    """What is wrong with complete metadata."""
    name = metadata.get("name", "")
    if not name:
        yield errors.required("metadata.name", "name or generateName is required")
    else:
        why = name_error(name, style)
        if why:
            yield errors.invalid("metadata.name", name, why)
    yield from _validate_labels(metadata.get("labels") or {})
    yield from _validate_annotations(metadata.get("annotations") or {})
    yield from _validate_owners(metadata.get("ownerReferences") or [])
    yield from _validate_finalizers(metadata.get("finalizers") or [])


def _validate_labels(labels: Mapping[str, str]) -> Iterator[FieldError]:
    for key, value in labels.items():
        if why := label_key_error(key):
            yield errors.invalid("metadata.labels", key, why)
        if why := label_value_error(value):
            yield errors.invalid("metadata.labels", value, why)


def _validate_annotations(annotations: Mapping[str, str]) -> Iterator[FieldError]:
    total = 0
    for key, value in annotations.items():
        total += len(key) + len(value)
        if why := label_key_error(key.lower()):
            yield errors.invalid("metadata.annotations", key, why)
    if total > _ANNOTATIONS_LIMIT:
        yield errors.too_long("metadata.annotations", _ANNOTATIONS_LIMIT)


def _validate_owners(owners: list[Mapping[str, Any]]) -> Iterator[FieldError]:
    path = "metadata.ownerReferences"
    controllers = []
    for owner in owners:
        if not owner.get("apiVersion"):
            yield errors.invalid(f"{path}.apiVersion", "", "version must not be empty")
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                yield errors.invalid(f"{path}.{key}", "", "must not be empty")
        if owner.get("controller"):
            controllers.append(owner.get("name", ""))
    if len(controllers) > 1:
        yield errors.invalid(
            path,
            owners,
            'Only one reference can have Controller set to true. Found "true" in references for '
            + " and ".join(controllers[:2]),
        )


def _validate_finalizers(finalizers: list[str]) -> Iterator[FieldError]:
    for finalizer in finalizers:
        why = label_key_error(finalizer)
        if why:
            yield errors.invalid("metadata.finalizers", finalizer, why)
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        yield errors.invalid(
            "metadata.finalizers",
            finalizers,
            "finalizer orphan and foregroundDeletion cannot be both set",
        )


def validate_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[FieldError]:
    """What an update may not change. ``new`` has the server's fields filled in already."""
    for key in ("name", "namespace", "uid"):
        if new.get(key, "") != old.get(key, ""):
            yield errors.invalid(f"metadata.{key}", new.get(key, ""), "field is immutable")
    for key in _DELETION:
        if new.get(key) != old.get(key):
            yield errors.invalid(f"metadata.{key}", new.get(key), "field is immutable")
    if old.get("deletionTimestamp"):
        added = [f for f in new.get("finalizers") or [] if f not in (old.get("finalizers") or [])]
        if added:
            listed = ", ".join(errors.render(f) for f in added)
            yield errors.forbidden_field(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted, found new "
                f"finalizers []string{{{listed}}}",
            )


# What the server sets


def stamp_new(metadata: Wire, namespace: str) -> None:
    """Fill in what a new object gets from the server."""
    for key in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        metadata.pop(key, None)
    if namespace:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = timestamp()


_KEPT = (
    "uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds",
    "selfLink",
)  # fmt: skip


def carry_over(new: Wire, old: Mapping[str, Any], namespace: str) -> None:
    """An update keeps what the server set.

    A differing uid and a deletion that a client made up are left for validation to find.
    """
    uid = new.get("uid") or old.get("uid")
    for key in _KEPT:
        if key in old:
            new[key] = old[key]
        elif key not in _DELETION:
            new.pop(key, None)
    new["uid"] = uid
    if namespace:
        new["namespace"] = namespace
