"""CustomResourceDefinitions: defaults, validation, and the resources that they declare."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller.apiserver import errors, jsonpath, meta, tables
from controller.apiserver.catalog import Column, Resource, version_rank
from controller.apiserver.errors import FieldError
from controller.apiserver.schema import cel, checks, versions
from controller.apiserver.schema.structural import compile_schema

Wire = dict[str, Any]
GROUP = "apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


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
    found.extend(versions.validate(crd["spec"]))
    declared = crd["spec"].get("versions") or []
    found.extend(_validate_schemas(declared))
    if not found:
        found.extend(_validate_paths(declared))
    found.extend(versions.stored(crd))
    if old is not None:
        found.extend(_validate_change(crd["spec"], old))
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


def _validate_schemas(versions: Sequence[Mapping[str, Any]]) -> Iterator[FieldError]:
    for at, version in enumerate(versions):
        # Upstream names the schema "spec.validation" where only one is given, or all are equal.
        path = f"spec.versions[{at}].schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            yield errors.required(f"{path}.openAPIV3Schema", "schemas are required")
        else:
            where = "spec.validation" if len(versions) == 1 else path
            yield from checks.validate_schema(schema, f"{where}.openAPIV3Schema")


def _validate_paths(versions: Sequence[Mapping[str, Any]]) -> Iterator[FieldError]:
    """Paths that are simple enough for Kubernetes but that our reader does not understand."""
    for at, version in enumerate(versions):
        for number, column in enumerate(version.get("additionalPrinterColumns") or []):
            try:
                jsonpath.compile_path(column.get("jsonPath") or "")
            except jsonpath.BadPath as error:
                path = f"spec.versions[{at}].additionalPrinterColumns[{number}].jsonPath"
                yield errors.invalid(path, column["jsonPath"], str(error))


def _validate_change(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[FieldError]:
    """As long as it has never been served, a definition may still ask for another kind."""
    fixed = ("scope", "names.kind") if is_established(old) else ()
    for path in ("group", "names.plural", *fixed):
        before, after = tables.text_at(old["spec"], path), tables.text_at(new, path)
        if before != after:
            yield errors.invalid(f"spec.{path}", after, "field is immutable")


def stored_versions(crd: Mapping[str, Any]) -> list[str]:
    """Versions in which objects may be stored: those so far and the present one."""
    before = list((crd.get("status") or {}).get("storedVersions") or [])
    declared = crd["spec"].get("versions") or []
    now = [v["name"] for v in declared if v.get("storage") and v.get("name")]
    return before + [name for name in now if name not in before]


def resources(crd: Mapping[str, Any]) -> list[Resource]:
    """The resources that a valid definition declares, one for each served version.

    Raises cel.BadRule where a rule does not compile (after a change of the CEL library, say).
    """
    declared = crd["spec"]["versions"]
    storage = next(version for version in declared if version.get("storage"))
    kept = compile_schema(storage["schema"]["openAPIV3Schema"])
    found = [_resource(crd, version, storage["name"]) for version in declared if version["served"]]
    return [replace(r, kept=None if r.version == storage["name"] else kept) for r in found]


def _deprecation(spec: Mapping[str, Any], version: Mapping[str, Any]) -> str:
    """What a client of a deprecated version is warned of; empty if it is not deprecated."""
    if not version.get("deprecated"):
        return ""
    if version.get("deprecationWarning"):
        return str(version["deprecationWarning"])
    group, kind = spec["group"], spec["names"]["kind"]
    text = f"{group}/{version['name']} {kind} is deprecated"
    fresh = [v["name"] for v in spec["versions"] if v.get("served") and not v.get("deprecated")]
    better = min(fresh, key=version_rank, default="")
    if better and version_rank(better) < version_rank(version["name"]):
        text += f"; use {group}/{better} {kind}"
    return text


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
        deprecation=_deprecation(spec, version),
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
