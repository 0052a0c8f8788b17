"""The scale subresource of custom resources: autoscaling/v1 Scale, seen through declared paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.apiserver import errors, tables
from controller.apiserver.catalog import Column, Resource
from controller.apiserver.errors import FieldError
from controller.apiserver.schema.structural import compile_schema

Wire = dict[str, Any]
_MAX = 2**31 - 1
_INTEGER = {"type": "integer", "format": "int32"}
_SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "properties": {"replicas": _INTEGER}},
        "status": {
            "type": "object",
            "properties": {"replicas": _INTEGER, "selector": {"type": "string"}},
        },
    },
}

RESOURCE = Resource(
    group="autoscaling",
    version="v1",
    kind="Scale",
    plural="scales",
    singular="scale",
    namespaced=True,
    schema=compile_schema(_SCHEMA),
    list_kind="ScaleList",
    custom=False,
    columns=(
        Column("Name", "string", lambda wire: wire["metadata"]["name"], format="name"),
        Column("Desired", "integer", lambda wire: (wire.get("spec") or {}).get("replicas", 0)),
        Column("Available", "integer", lambda wire: (wire.get("status") or {}).get("replicas", 0)),
        Column("Age", "string", lambda wire: tables.age(wire["metadata"]["creationTimestamp"])),
    ),
)
"""How a Scale is decoded and shown."""

_SHOWN = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def of(resource: Resource, wire: Mapping[str, Any]) -> Wire:
    """The Scale of a custom resource.

    Raises ApiError (500, as Kubernetes) if the object has no number of replicas.
    """
    assert resource.scale is not None
    path = resource.scale["specReplicasPath"]
    wanted = _at(wire, path)
    if not _is_count(wanted):
        raise errors.internal(f"the spec replicas field {errors.render(path)} does not exist")
    found: Wire = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: wire["metadata"][key] for key in _SHOWN if key in wire["metadata"]},
        "spec": {"replicas": wanted} if wanted else {},
    }
    current = _at(wire, resource.scale["statusReplicasPath"])
    found["status"] = {"replicas": current if _is_count(current) else 0}
    selector = _at(wire, resource.scale.get("labelSelectorPath") or "")
    if isinstance(selector, str) and selector:
        found["status"]["selector"] = selector
    return found


def lenient(resource: Resource, wire: Mapping[str, Any]) -> Wire:
    """As ``of``; no replicas count as none. What a patch starts from."""
    assert resource.scale is not None
    if _is_count(_at(wire, resource.scale["specReplicasPath"])):
        return of(resource, wire)
    return of(resource, _with(wire, resource.scale["specReplicasPath"], 0))


def applied(resource: Resource, wire: Mapping[str, Any], scale: Mapping[str, Any]) -> Wire:
    """The custom resource with the number of replicas that ``scale`` asks for."""
    assert resource.scale is not None
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    found = _with(wire, resource.scale["specReplicasPath"], replicas)
    given = scale["metadata"]
    metadata = {**found["metadata"], "name": given.get("name") or found["metadata"]["name"]}
    metadata["resourceVersion"] = given.get("resourceVersion") or ""
    return {**found, "metadata": metadata}


def problems(resource: Resource, wire: Mapping[str, Any]) -> Iterator[FieldError]:
    """What in an object does not fit its scale declaration."""
    if resource.scale is None:
        return
    for key in ("specReplicasPath", "statusReplicasPath"):
        path = resource.scale[key]
        count = _at(wire, path)
        if count is None:
            continue
        if not isinstance(count, int) or isinstance(count, bool):
            yield errors.invalid(path, 0, f"{path} accessor error: the value is not of type int64")
        elif count < 0:
            yield errors.invalid(path, count, "should be a non-negative integer")
        elif count > _MAX:
            yield errors.invalid(path, count, f"should be less than or equal to {_MAX}")
    selector_path = resource.scale.get("labelSelectorPath")
    selector = _at(wire, selector_path) if selector_path else None
    if selector is not None and not isinstance(selector, str):
        detail = f"{selector_path} accessor error: the value is not of type string"
        yield errors.invalid(selector_path or "", "", detail)


def validate(declared: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    """What is wrong with ``subresources.scale`` of a definition."""
    for key, roots, allowed in (
        ("specReplicasPath", (".spec.",), ".spec"),
        ("statusReplicasPath", (".status.",), ".status"),
        ("labelSelectorPath", (".spec.", ".status."), "either .spec or .status"),
    ):
        value = declared.get(key) or ""
        where = f"{path}.{key}"
        if not value:
            if key != "labelSelectorPath":
                yield errors.required(where)
        elif not value.startswith("."):
            yield errors.invalid(where, value, "must be a simple json path starting with .")
        elif not value.startswith(roots):
            yield errors.invalid(where, value, f"should be a json path under {allowed}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _steps(path: str) -> list[str]:
    return path.removeprefix(".").split(".")


def _at(wire: Mapping[str, Any], path: str) -> Any:
    node: Any = wire
    for step in _steps(path) if path else ():
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if path else None


def _with(wire: Mapping[str, Any], path: str, value: Any) -> Wire:
    """A copy with another value at ``path``; what is beside the path is shared."""
    first, *rest = _steps(path)
    found = dict(wire)
    if not rest:
        found[first] = value
    else:
        inner = wire.get(first)
        found[first] = _with(inner if isinstance(inner, dict) else {}, ".".join(rest), value)
    return found
