"""The built-in kinds: their columns and small differences (``builtin_schemas``: their fields)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.apiserver import builtin_schemas, tables
from controller.apiserver.catalog import Column, Resource
from controller.apiserver.schema.structural import compile_schema

Schema = dict[str, Any]
Wire = dict[str, Any]


def _count(*keys: str) -> Any:
    return lambda wire: sum(len(wire.get(key) or {}) for key in keys)


def _text(path: str) -> Any:
    return lambda wire: tables.text_at(wire, path)


_NAME = Column("Name", "string", _text("metadata.name"), format="name", description="The name.")
_AGE = Column(
    "Age", "string", lambda w: tables.age(w["metadata"].get("creationTimestamp")),
    description="Time since it was created.",
)  # fmt: skip


def _event_object(wire: Mapping[str, Any]) -> str:
    about = wire.get("involvedObject") or wire.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _last_seen(wire: Mapping[str, Any]) -> str:
    series = wire.get("series") or {}
    seen = (
        series.get("lastObservedTime") or wire.get("lastTimestamp")
        or wire.get("deprecatedLastTimestamp") or wire.get("eventTime")
        or wire.get("firstTimestamp") or wire.get("deprecatedFirstTimestamp")
    )  # fmt: skip
    return tables.age(seen)


_EVENT_COLUMNS = (
    Column("Last Seen", "string", _last_seen),
    Column("Type", "string", _text("type")),
    Column("Reason", "string", _text("reason")),
    Column("Object", "string", _event_object),
    Column("Message", "string", lambda w: (w.get("message") or w.get("note") or "").strip()),
    Column("Name", "string", _text("metadata.name"), priority=1, format="name"),
)
_REFERENCE_FIELDS = (
    "kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath",
)  # fmt: skip
_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}


def _renamed(wire: Wire, names: Mapping[str, str], api_version: str) -> Wire:
    found = {names.get(key, key): value for key, value in wire.items()}
    found["apiVersion"] = api_version
    return found


def _as_event(wire: Wire) -> Wire:
    return _renamed(wire, _RENAMED, "events.k8s.io/v1")


def _as_core_event(wire: Wire) -> Wire:
    return _renamed(wire, {new: old for old, new in _RENAMED.items()}, "v1")


def _builtin(
    group: str, kind: str, plural: str, schema: Schema, columns: tuple[Column, ...], **more: Any
) -> Resource:
    version = "v1"
    more.setdefault("storage", f"{group}/{plural}")
    more.setdefault("stored_as", f"{group}/{version}" if group else version)
    more.setdefault("generations", False)
    more.setdefault("namespaced", True)
    return Resource(
        group, version, kind, plural, kind.lower(),
        schema=compile_schema(schema), list_kind=f"{kind}List", custom=False, columns=columns,
        **more,
    )  # fmt: skip


def builtins() -> list[Resource]:
    """Every built-in resource."""
    event_fields = tuple(f"involvedObject.{name}" for name in _REFERENCE_FIELDS)
    return [
        _builtin(
            "", "Namespace", "namespaces", builtin_schemas.NAMESPACE,
            (_NAME, Column("Status", "string", _text("status.phase")), _AGE),
            namespaced=False, short_names=("ns",), has_status=True, name_style="label",
            extra_subresources=("finalize",), selectable=("status.phase",),
        ),
        _builtin(
            "", "ConfigMap", "configmaps", builtin_schemas.CONFIG_MAP,
            (_NAME, Column("Data", "string", _count("data", "binaryData")), _AGE),
            short_names=("cm",),
        ),
        _builtin(
            "", "Secret", "secrets", builtin_schemas.SECRET,
            (_NAME, Column("Type", "string", _text("type")),
             Column("Data", "string", _count("data")), _AGE),
            selectable=("type",),
        ),
        _builtin(
            "", "ServiceAccount", "serviceaccounts", builtin_schemas.SERVICE_ACCOUNT,
            (_NAME, Column("Secrets", "string", lambda w: len(w.get("secrets") or [])), _AGE),
            short_names=("sa",), extra_subresources=("token",),
        ),
        _builtin(
            "", "Event", "events", builtin_schemas.CORE_EVENT, _EVENT_COLUMNS, short_names=("ev",),
            selectable=(*event_fields, "reason", "reportingComponent", "source", "type"),
        ),
        _builtin(
            "events.k8s.io", "Event", "events", builtin_schemas.EVENT, _EVENT_COLUMNS,
            short_names=("ev",),
            storage="/events", stored_as="v1", shown=_as_event, taken=_as_core_event,
            selectable=(
                *(f"regarding.{name}" for name in _REFERENCE_FIELDS),
                "reason", "reportingController", "type",
            ),
        ),
        _builtin(
            "coordination.k8s.io", "Lease", "leases", builtin_schemas.LEASE,
            (_NAME, Column("Holder", "string", _text("spec.holderIdentity")), _AGE),
        ),
        _builtin(
            "apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions",
            builtin_schemas.CRD,
            (_NAME, Column("Created At", "date", _text("metadata.creationTimestamp"))),
            namespaced=False, short_names=("crd", "crds"), categories=("api-extensions",),
            has_status=True, generations=True,
        ),
    ]  # fmt: skip
