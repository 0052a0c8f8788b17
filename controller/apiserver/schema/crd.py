"""CustomResourceDefinitions: defaults, validation, and the resources that they declare."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from controller.apiserver import errors, jsonpath, meta, tables
from controller.apiserver.catalog import Column, Resource
from controller.apiserver.errors import FieldError
from controller.apiserver.schema import cel, checks
from controller.apiserver.schema.structural import compile_schema

Wire = dict[str, Any]
GROUP = "apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")


def fill_defaults(crd: Wire) -> None:
    """What Kubernetes fills in, in place."""
    spec = crd.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind") or ""
    if kind:
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})
    for version in spec.get("versions") or []:
        version.setdefault("served", False)
        version.setdefault("storage", False)


def validate(crd: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    """Everything wrong with a CustomResourceDefinition (its types have been checked)."""
    found = list(_validate_names(crd))
    found.extend(_validate_versions(crd["spec"]))
    if old is not None:
        found.extend(_validate_change(crd["spec"], old["spec"]))
    return found


def _validate_names(crd: Mapping[str, Any]) -> Iterator[FieldError]:
    spec, names = crd["spec"], crd["spec"].get("names") or {}
    name = crd["metadata"].get("name", "")
    group = spec.get("group") or ""
    if name != f"{names.get('plural', '')}.{group}":
        yield errors.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if not group:
        yield errors.required("spec.group")
    elif why := meta.name_error(group, "subdomain"):
        yield errors.invalid("spec.group", group, why)
    elif "." not in group:
        yield errors.invalid("spec.group", group, "should be a domain with at least one dot")
    scope = spec.get("scope")
    if not scope:
        yield errors.required("spec.scope")
    elif scope not in ("Cluster", "Namespaced"):
        yield errors.not_supported("spec.scope", scope, ("Cluster", "Namespaced"))
    for key in ("plural", "singular", "kind", "listKind"):
        yield from _validate_one_name(f"spec.names.{key}", names.get(key) or "")
    strategy = (spec.get("conversion") or {}).get("strategy")
    if strategy not in (None, "None"):
        yield errors.not_supported("spec.conversion.strategy", strategy, ("None",))


def _validate_one_name(path: str, value: str) -> Iterator[FieldError]:
    if not value:
        yield errors.required(path)
    elif not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", value.lower()):
        yield errors.invalid(path, value, meta.LABEL_TEXT)


def _validate_versions(spec: Mapping[str, Any]) -> Iterator[FieldError]:
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield errors.invalid(
            "spec.versions", spec.get("versions"),
            "must have exactly one version marked as storage version",
        )  # fmt: skip
    names = [version.get("name") or "" for version in versions]
    for at, version in enumerate(versions):
        path = f"spec.versions[{at}]"
        if names[at] in names[:at]:
            yield errors.duplicate(f"{path}.name", names[at])
        elif not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", names[at]):
            yield errors.invalid(f"{path}.name", names[at], meta.LABEL_TEXT)
        # Upstream names the schema "spec.validation" where only one is given, or all are equal.
        where = "spec.validation" if len(versions) == 1 else f"{path}.schema"
        yield from _validate_version(version, path, where)


def _validate_version(version: Mapping[str, Any], path: str, where: str) -> Iterator[FieldError]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if not isinstance(schema, dict):
        yield errors.required(f"{path}.schema.openAPIV3Schema", "schemas are required")
    else:
        yield from checks.validate_schema(schema, f"{where}.openAPIV3Schema")
    for at, column in enumerate(version.get("additionalPrinterColumns") or []):
        yield from _validate_column(column, f"{path}.additionalPrinterColumns[{at}]")
    for at, selectable in enumerate(version.get("selectableFields") or []):
        yield from _validate_path(selectable, f"{path}.selectableFields[{at}]")


def _validate_column(column: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    if not column.get("name"):
        yield errors.required(f"{path}.name")
    if column.get("type") not in _COLUMN_TYPES:
        yield errors.invalid(
            f"{path}.type", column.get("type", ""), "must be one of " + ",".join(_COLUMN_TYPES)
        )
    yield from _validate_path(column, path)


def _validate_path(holder: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    json_path = holder.get("jsonPath") or ""
    if not json_path:
        yield errors.required(f"{path}.jsonPath")
        return
    try:
        jsonpath.compile_path(json_path)
    except jsonpath.BadPath as error:
        yield errors.invalid(f"{path}.jsonPath", json_path, str(error))


def _validate_change(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[FieldError]:
    for path in ("group", "scope", "names.plural", "names.kind"):
        before, after = tables.text_at(old, path), tables.text_at(new, path)
        if before != after:
            yield errors.invalid(f"spec.{path}", after, "field is immutable")


def stored_versions(crd: Mapping[str, Any]) -> list[str]:
    """Versions in which objects may be stored: those so far and the present one."""
    before = list((crd.get("status") or {}).get("storedVersions") or [])
    versions = crd["spec"].get("versions") or []
    now = [v["name"] for v in versions if v.get("storage") and v.get("name")]
    return before + [name for name in now if name not in before]


def resources(crd: Mapping[str, Any]) -> list[Resource]:
    """The resources that a valid definition declares, one for each served version.

    Raises cel.BadRule where a rule does not compile (after a change of the CEL library, say).
    """
    versions = crd["spec"]["versions"]
    storage = next(version["name"] for version in versions if version.get("storage"))
    return [_resource(crd, version, storage) for version in versions if version.get("served")]


def _resource(crd: Mapping[str, Any], version: Mapping[str, Any], storage: str) -> Resource:
    spec, names = crd["spec"], crd["spec"]["names"]
    schema = compile_schema(version["schema"]["openAPIV3Schema"])
    subresources = version.get("subresources") or {}
    return Resource(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names["singular"],
        namespaced=spec["scope"] == "Namespaced",
        schema=schema,
        rules=cel.compile_rules(schema),
        list_kind=names["listKind"],
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        has_status="status" in subresources,
        columns=_columns(version),
        selectable=tuple(
            field["jsonPath"].removeprefix(".") for field in version.get("selectableFields") or ()
        ),
        storage=f"{spec['group']}/{names['plural']}",
        stored_as=f"{spec['group']}/{storage}",
        scale=subresources.get("scale"),
    )


_NAME = Column(
    "Name", "string", lambda wire: wire["metadata"]["name"], format="name",
    description="The name: unique in its namespace, never changes.",
)  # fmt: skip
_DEFAULT_COLUMNS = ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},)


def _columns(version: Mapping[str, Any]) -> tuple[Column, ...]:
    definitions = version.get("additionalPrinterColumns") or _DEFAULT_COLUMNS
    return (
        _NAME,
        *(
            tables.custom_column(item, jsonpath.compile_path(item["jsonPath"]))
            for item in definitions
        ),
    )


def condition(kind: str, status: str, reason: str, message: str) -> Wire:
    return {
        "type": kind,
        "status": status,
        "lastTransitionTime": meta.timestamp(),
        "reason": reason,
        "message": message,
    }


def set_condition(crd: Wire, new: Wire) -> None:
    """Replace the condition of this type; keeps its time if the status did not change."""
    conditions = crd.setdefault("status", {}).get("conditions") or []
    kept = [c for c in conditions if c["type"] != new["type"]]
    before = next((c for c in conditions if c["type"] == new["type"]), None)
    if before is not None and before["status"] == new["status"]:
        new["lastTransitionTime"] = before["lastTransitionTime"]
    crd["status"]["conditions"] = [*kept, new]


def unservable(crd: Mapping[str, Any]) -> str:
    """Why a valid definition cannot be served: a rule that does not compile; else empty."""
    try:
        resources(crd)
    except cel.BadRule as error:
        return str(error)
    return ""


def is_established(crd: Mapping[str, Any]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
