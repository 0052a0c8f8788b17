"""OpenAPI v3 (one document a group version) and v2 (one for all), made from the catalog."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from controller.apiserver.builtin_schemas import OBJECT_META
from controller.apiserver.catalog import Catalog, Resource

Wire = dict[str, Any]
Ref = Callable[[str], Wire]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_PRIVATE = ("x-number", "x-time")
_API_VERSION = {
    "type": "string",
    "description": "The version of the schema that this object is written in.",
}
_KIND = {"type": "string", "description": "The kind of object, in CamelCase."}
_COMMON = ("apiVersion", "kind", "metadata")
_PARAMETERS = (
    ("dryRun", "string", "All: do everything but store the result."),
    ("fieldManager", "string", "Who makes the change."),
    ("fieldValidation", "string", "Ignore, Warn or Strict: what to do about unknown fields."),
)
_LISTING = (
    ("allowWatchBookmarks", "boolean", "Send bookmarks: how far the watch has come."),
    ("continue", "string", "The token of the page before."),
    ("fieldSelector", "string", "Which objects, by their fields."),
    ("labelSelector", "string", "Which objects, by their labels."),
    ("limit", "integer", "How many objects a page has at most."),
    ("resourceVersion", "string", "The version to list at, or to watch from."),
    ("resourceVersionMatch", "string", "Exact or NotOlderThan: how the version is meant."),
    ("sendInitialEvents", "boolean", "Begin a watch with what exists."),
    ("shardSelector", "string", "Which objects, by ranges of a hash (KEP-5866)."),
    ("timeoutSeconds", "integer", "End after this time."),
    ("watch", "boolean", "Send changes as they happen."),
)
_SCALE = "io.k8s.api.autoscaling.v1.Scale"
_LIST_META_SCHEMA: Wire = {
    "type": "object",
    "description": "What every list has.",
    "properties": {
        "continue": {"type": "string", "description": "Ask with it for the next page."},
        "remainingItemCount": {"type": "integer", "format": "int64"},
        "resourceVersion": {"type": "string", "description": "Watch from here."},
        "selfLink": {"type": "string"},
    },
}


def _reversed_group(group: str) -> str:
    if not group:
        return "io.k8s.api.core"
    if group.endswith(".k8s.io"):
        return f"io.k8s.api.{group.partition('.')[0]}"
    return ".".join(reversed(group.split(".")))


def model_name(resource: Resource) -> str:
    """``com.example.v1.Widget``."""
    return f"{_reversed_group(resource.group)}.{resource.version}.{resource.kind}"


def _clean(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _clean(value) for key, value in schema.items() if key not in _PRIVATE}
    return [_clean(item) for item in schema] if isinstance(schema, list) else schema


def _without_combinations(schema: Any) -> Any:
    """v2 knows no anyOf, oneOf, not or nullable; a node with them says nothing of its type."""
    if isinstance(schema, list):
        return [_without_combinations(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {
        key: _without_combinations(value)
        for key, value in schema.items()
        if key not in ("anyOf", "oneOf", "not", "nullable")
    }
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
        found["format"] = "int-or-string"
    return found


def _kind_schema(resource: Resource, ref: Ref) -> Wire:
    raw = _clean(resource.schema.raw)
    own = {k: v for k, v in raw.get("properties", {}).items() if k not in _COMMON}
    properties = {
        "apiVersion": _API_VERSION,
        "kind": _KIND,
        "metadata": {**ref(_META), "description": "The object's metadata."},
        **own,
    }
    return {**raw, "type": "object", "properties": properties,
            "x-kubernetes-group-version-kind": [_gvk(resource, resource.kind)]}  # fmt: skip


def _gvk(resource: Resource, kind: str) -> Wire:
    return {"group": resource.group, "version": resource.version, "kind": kind}


def _list_schema(resource: Resource, ref: Ref) -> Wire:
    return {
        "type": "object",
        "description": f"A list of {resource.kind}.",
        "required": ["items"],
        "properties": {
            "apiVersion": _API_VERSION,
            "kind": _KIND,
            "items": {"type": "array", "items": ref(model_name(resource))},
            "metadata": ref(_LIST_META),
        },
        "x-kubernetes-group-version-kind": [_gvk(resource, resource.list_kind)],
    }


def _schemas(resources: list[Resource], ref: Ref) -> Wire:
    found: Wire = {_META: _clean(OBJECT_META), _LIST_META: _LIST_META_SCHEMA}
    for resource in resources:
        found[model_name(resource)] = _kind_schema(resource, ref)
        list_name = model_name(resource).removesuffix(resource.kind) + resource.list_kind
        found[list_name] = _list_schema(resource, ref)
    if any(resource.scale is not None for resource in resources):
        found[_SCALE] = _scale_schema(ref)
    return found


def _scale_schema(ref: Ref) -> Wire:
    replicas = {"type": "integer", "format": "int32"}
    status = {"replicas": replicas, "selector": {"type": "string"}}
    return {
        "type": "object",
        "description": "How many there are of something, and how many there should be.",
        "properties": {
            "apiVersion": _API_VERSION,
            "kind": _KIND,
            "metadata": {**ref(_META), "description": "The object's metadata."},
            "spec": {"type": "object", "properties": {"replicas": replicas}},
            "status": {"type": "object", "required": ["replicas"], "properties": status},
        },
        "x-kubernetes-group-version-kind": [
            {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        ],
    }


def _paths(resource: Resource, operation: Callable[..., Wire]) -> Wire:
    base = f"/apis/{resource.group}" if resource.group else "/api"
    base = f"{base}/{resource.version}"
    within = f"{base}/namespaces/{{namespace}}" if resource.namespaced else base
    collection = f"{within}/{resource.plural}"
    if resource.verbs == ("create",):
        return {collection: {"post": operation(resource, "post")}}
    found = {
        collection: {
            "get": operation(resource, "list"),
            "post": operation(resource, "post"),
            "delete": operation(resource, "deletecollection"),
        },
        f"{collection}/{{name}}": {
            verb: operation(resource, verb) for verb in ("get", "put", "delete", "patch")
        },
    }
    if resource.namespaced:
        found[f"{base}/{resource.plural}"] = {"get": operation(resource, "list", "AllNamespaces")}
    if resource.has_status:
        found[f"{collection}/{{name}}/status"] = {
            verb: operation(resource, verb, "Status") for verb in ("get", "put", "patch")
        }
    if resource.scale is not None:
        found[f"{collection}/{{name}}/scale"] = {
            verb: operation(resource, verb, "Scale") for verb in ("get", "put", "patch")
        }
    return {path: {**verbs, **_within(path)} for path, verbs in found.items()}


def _within(path: str) -> Wire:
    """What of a path the client fills in."""
    names = [name for name in ("name", "namespace") if f"{{{name}}}" in path]
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"},
         "description": f"The object's {name}." if name == "name" else "Its namespace."}
        for name in names
    ]  # fmt: skip
    return {"parameters": found} if found else {}


def _model(resource: Resource, verb: str, suffix: str) -> str:
    if suffix == "Scale":
        return _SCALE
    name = model_name(resource)
    return name.removesuffix(resource.kind) + resource.list_kind if verb == "list" else name


def _queries(verb: str) -> tuple[tuple[str, str, str], ...]:
    if verb in ("list", "deletecollection"):
        return _LISTING
    return _PARAMETERS if verb in ("post", "put", "patch") else ()


def _operation_id(resource: Resource, verb: str, suffix: str) -> str:
    words = {"get": "read", "put": "replace", "post": "create", "deletecollection":
             "deleteCollection"}  # fmt: skip
    group = "".join(part.title() for part in (resource.group or "core").split("."))
    return f"{words.get(verb, verb)}{group}{resource.version.title()}{resource.kind}{suffix}"


def _action(resource: Resource, verb: str, suffix: str) -> Wire:
    return {
        "operationId": _operation_id(resource, verb, suffix),
        "tags": [f"{resource.group or 'core'}_{resource.version}"],
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": _gvk(resource, resource.kind),
    }


def _v3_operation(resource: Resource, verb: str, suffix: str = "") -> Wire:
    found = _action(resource, verb, suffix)
    schema = {"$ref": f"#/components/schemas/{_model(resource, verb, suffix)}"}
    content = {"application/json": {"schema": schema}}
    found["responses"] = {"200": {"description": "OK", "content": content}}
    if queries := _queries(verb):
        found["parameters"] = [
            {"name": name, "in": "query", "description": text, "schema": {"type": type_}}
            for name, type_, text in queries
        ]
    if verb in ("post", "put", "patch"):
        media = (
            "application/merge-patch+json", "application/json-patch+json",
            "application/apply-patch+yaml",
        )  # fmt: skip
        found["requestBody"] = {
            "content": {name: {"schema": {"type": "object"}} for name in media}
            if verb == "patch" else content
        }  # fmt: skip
    return found


def _v2_operation(resource: Resource, verb: str, suffix: str = "") -> Wire:
    found = _action(resource, verb, suffix)
    schema = {"$ref": f"#/definitions/{_model(resource, verb, suffix)}"}
    found["consumes"] = ["*/*"]
    found["produces"] = ["application/json"]
    found["responses"] = {"200": {"description": "OK", "schema": schema}}
    if queries := _queries(verb):
        found["parameters"] = [
            {"name": name, "in": "query", "description": text, "type": type_, "uniqueItems": True}
            for name, type_, text in queries
        ]
    return found


def _v3_ref(name: str) -> Wire:
    return {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}


def _v2_ref(name: str) -> Wire:
    return {"$ref": f"#/definitions/{name}"}


def _info() -> Wire:
    return {"title": "Kumulus", "version": "v1"}


class OpenApi:
    """Documents, made when asked for and kept until the catalog changes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._generation = -1
        self._made: dict[str, Any] = {}

    def _kept(self, key: str, make: Callable[[], Any]) -> Any:
        if self._generation != self._catalog.generation:
            self._made.clear()
            self._generation = self._catalog.generation
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def index(self) -> bytes:
        """``/openapi/v3``: the documents, with a hash each so that clients may keep them."""
        paths = {}
        for group, versions in self._catalog.groups().items():
            for version in versions:
                name = f"apis/{group}/{version}" if group else f"api/{version}"
                digest = hashlib.sha256(self.document(group, version) or b"").hexdigest().upper()
                paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
        return orjson.dumps({"paths": paths})

    def document(self, group: str, version: str) -> bytes | None:
        """``/openapi/v3/apis/{group}/{version}``; None if it is not served."""
        resources = self._catalog.groups().get(group, {}).get(version)
        if resources is None:
            return None
        found: bytes = self._kept(f"{group}/{version}", lambda: _document(resources))
        return found

    def v2(self) -> Wire:
        """``/openapi/v2``, not to be changed."""
        found: Wire = self._kept("v2", lambda: _v2(list(self._catalog)))
        return found

    def v2_json(self) -> bytes:
        found: bytes = self._kept("v2.json", lambda: orjson.dumps(self.v2()))
        return found


def _document(resources: list[Resource]) -> bytes:
    paths: Wire = {}
    for resource in resources:
        paths.update(_paths(resource, _v3_operation))
    return orjson.dumps(
        {
            "openapi": "3.0.0",
            "info": _info(),
            "paths": paths,
            "components": {"schemas": _schemas(resources, _v3_ref)},
        }
    )


def _v2(resources: list[Resource]) -> Wire:
    paths: Wire = {}
    for resource in resources:
        paths.update(_paths(resource, _v2_operation))
    for verbs in paths.values():
        for parameter in verbs.get("parameters", ()):
            parameter.update(parameter.pop("schema"), uniqueItems=True)
    return {
        "swagger": "2.0",
        "info": _info(),
        "paths": paths,
        "definitions": _without_combinations(_schemas(resources, _v2_ref)),
    }
