"""What is valid in the versions of a CustomResourceDefinition, their schemas apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from controller.apiserver import errors, scale
from controller.apiserver.errors import FieldError

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SELECTABLE_TYPES = ("string", "boolean", "integer")
_MAX_SELECTABLE = 8
_MAX_WARNING = 256
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_NAME_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or "
    "'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
# The part of JSONPath that printer columns may use: no filters by script, no unions, no slices.
_SIMPLE_PATH = re.compile(
    r"(\.(\\.|[^\s.\[\]\\{}()])+|\.?\*|\[\s*(-?\d+|\*|'[^']*'|\?\(@[^()]*\))\s*\]|\.(?=\[))+\Z"
)
Version = Mapping[str, Any]


def validate(spec: Mapping[str, Any]) -> Iterator[FieldError]:
    """Everything wrong with ``spec.versions`` but for the schemas."""
    versions = spec.get("versions") or []
    names = [version.get("name") or "" for version in versions]
    if sum(bool(version.get("storage")) for version in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        yield errors.invalid("spec.versions", versions, detail)
    elif len(set(names)) < len(names):
        yield errors.invalid("spec.versions", versions, "must contain unique version names")
    columns = _places(versions, "additionalPrinterColumns")
    selectable = _places(versions, "selectableFields")
    subresources = _places(versions, "subresources")
    for at, version in enumerate(versions):
        yield from _name(version, f"spec.versions[{at}]")
        yield from _warning(version, f"spec.versions[{at}].deprecationWarning")
        if columns[at]:
            yield from _columns(version, columns[at])
        if selectable[at]:
            yield from _selectable(version, selectable[at])
        declared = (version.get("subresources") or {}).get("scale")
        if subresources[at] and declared is not None:
            yield from scale.validate(declared, f"{subresources[at]}.scale")
    if spec.get("preserveUnknownFields"):
        yield errors.invalid(
            "spec.preserveUnknownFields", True,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in "
            "spec.versions[*].schema instead",
        )  # fmt: skip


def _places(versions: list[Version], key: str) -> list[str]:
    """Where Kubernetes says that ``key`` of each version is: once, if all versions agree."""
    if all(version.get(key) == versions[0].get(key) for version in versions):
        return [f"spec.{key}"] + [""] * (len(versions) - 1)
    return [f"spec.versions[{at}].{key}" for at in range(len(versions))]


def _name(version: Version, path: str) -> Iterator[FieldError]:
    name = version.get("name") or ""
    if len(name) > 63 or not _NAME.match(name):
        yield errors.invalid(f"{path}.name", name, _NAME_TEXT)


def _warning(version: Version, path: str) -> Iterator[FieldError]:
    text = version.get("deprecationWarning")
    if text is None:
        return
    if not version.get("deprecated"):
        yield errors.invalid(path, text, "can only be set for deprecated versions")
    if not text:
        yield errors.invalid(path, text, "must not be an empty string")
    if len(text.encode()) > _MAX_WARNING:
        detail = f"must be <= {_MAX_WARNING} bytes, got {len(text.encode())}"
        yield errors.invalid(path, text, detail)
    strange = next((at for at, char in enumerate(text) if not char.isprintable()), None)
    if strange is not None:
        yield errors.invalid(
            path, text,
            "must only contain printable UTF-8 characters; non-printable character found at index "
            f"{strange}",
        )  # fmt: skip


def _columns(version: Version, path: str) -> Iterator[FieldError]:
    for at, column in enumerate(version.get("additionalPrinterColumns") or []):
        where = f"{path}[{at}]"
        if not column.get("name"):
            yield errors.required(f"{where}.name")
        kind = column.get("type") or ""
        if not kind:
            yield errors.required(f"{where}.type", "must be one of " + ",".join(_COLUMN_TYPES))
        elif kind not in _COLUMN_TYPES:
            detail = "must be one of " + ",".join(_COLUMN_TYPES)
            yield errors.invalid(f"{where}.type", kind, detail)
        form = column.get("format")
        if form and form not in _COLUMN_FORMATS:
            detail = "must be one of " + ",".join(_COLUMN_FORMATS)
            yield errors.invalid(f"{where}.format", form, detail)
        json_path = column.get("jsonPath") or ""
        if not json_path:
            yield errors.required(f"{where}.JSONPath")
        elif not _SIMPLE_PATH.match(json_path):
            detail = "must be a simple json path starting with ."
            yield errors.invalid(f"{where}.JSONPath", json_path, detail)


def _selectable(version: Version, path: str) -> Iterator[FieldError]:
    fields = version.get("selectableFields") or []
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    seen: set[str] = set()
    for at, field in enumerate(fields):
        where, json_path = f"{path}[{at}].jsonPath", field.get("jsonPath") or ""
        if not json_path:
            yield errors.required(where)
        elif json_path in seen:
            yield errors.duplicate(where, json_path)
        elif why := _selectable_problem(schema, json_path):
            yield errors.invalid(where, json_path, why)
        seen.add(json_path)
    distinct = len(seen)
    if distinct > _MAX_SELECTABLE:
        yield errors.too_many(path, distinct, _MAX_SELECTABLE)


def _selectable_problem(schema: Any, json_path: str) -> str:
    if "[" in json_path:
        return "is an invalid path: array notation is not allowed"
    if not json_path.startswith("."):
        return f"is an invalid path: expected [ or . but got: {json_path.partition('.')[0]}"
    steps = json_path[1:].split(".")
    node = schema
    for step in steps:
        properties = node.get("properties") if isinstance(node, dict) else None
        node = properties.get(step) if isinstance(properties, dict) else None
        if not isinstance(node, dict):
            return "is an invalid path: does not refer to a valid field"
    if steps[0] in ("metadata", "apiVersion", "kind"):
        return "is an invalid path: does not refer to a valid field"
    if node.get("type") not in _SELECTABLE_TYPES:
        return (
            "must point to a field of type string, boolean or integer. Enum string fields and "
            "strings with formats are allowed."
        )
    return ""


def stored(crd: Mapping[str, Any]) -> Iterator[FieldError]:
    """What is wrong with ``status.storedVersions``: objects may be kept in versions that went."""
    names = [version.get("name") for version in crd["spec"].get("versions") or []]
    found = (crd.get("status") or {}).get("storedVersions") or []
    for at, name in enumerate(found):
        if name not in names:
            yield errors.invalid(
                f"status.storedVersions[{at}]", name,
                f"missing from spec.versions; {name} was previously a storage version, and must "
                "remain in spec.versions until a storage migration ensures no data remains "
                f"persisted in {name} and removes {name} from status.storedVersions",
            )  # fmt: skip
