"""Server-side apply as a verb: its body, and the create or update that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from controller.apiserver import decoding, errors, yaml_bodies
from controller.apiserver.catalog import Resource
from controller.apiserver.decoding import FieldValidation
from controller.apiserver.errors import ApiError
from controller.apiserver.fields import applied, checks, managed
from controller.apiserver.fields.managed import Manager
from controller.apiserver.registry import Registry
from controller.apiserver.schema.structural import MISSING, Node, json_type
from controller.apiserver.writes import UNCHECKED, Outcome, WriteOptions

Wire = dict[str, Any]
_RACES = 5


class Target(NamedTuple):
    """What is applied to."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


# The body


def parse(body: bytes, validation: FieldValidation) -> tuple[Wire, list[str]]:
    """The configuration in a request's body, and warnings. Raises ApiError (400)."""
    try:
        found = orjson.loads(body)
        doubled = _yaml(body)[1] if decoding.duplicates(body, found) else []
    except orjson.JSONDecodeError:
        found, doubled = _yaml(body)
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise _undecodable(
            f"error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{json_type(found)} into Go value of type map[string]interface {{}}"
        )
    if doubled and validation == "Strict":
        raise errors.bad_request(
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  "
            + "\n  ".join(doubled)
        )
    return found, doubled if validation == "Warn" else []


def _undecodable(why: str) -> ApiError:
    return errors.bad_request(f"error decoding YAML: {why}")


def _yaml(body: bytes) -> tuple[Any, list[str]]:
    try:
        return yaml_bodies.read(body)
    except yaml_bodies.NotYaml as error:
        raise _undecodable(f"error converting YAML to JSON: {error}") from None


# The verb


async def apply(
    registry: Registry, target: Target, config: Wire, options: WriteOptions, force: bool
) -> Outcome:
    """Create or change the object so that it is as ``config`` says, and own what it says."""
    if target.subresource:  # nothing else is said of an object that is not there
        registry.get(target.resource, target.namespace, target.name)
    _check(target, config)
    for _ in range(_RACES):
        try:
            return await _change(registry, target, config, options, force)
        except ApiError as error:
            if not _is_about(error, target, 404) or target.subresource:
                raise
        try:
            return await _create(registry, target, config, options)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
    raise errors.conflict(target.resource.group, target.resource.plural, target.name)


def _is_about(error: ApiError, target: Target, code: int) -> bool:
    """Whether it is the object itself (not its namespace, say) that is missing."""
    return error.code == code and error.details.get("kind") == target.resource.plural


def _check(target: Target, config: Wire) -> None:
    """What is refused whatever the state of the object."""
    resource, name = target.resource, target.name
    group, version = config.get("apiVersion") or "", config.get("kind") or ""
    if (group, version) != (resource.api_version, resource.kind):
        shown = f"{group}, Kind={version}" if group else f"/, Kind={version}"
        raise errors.bad_request(f"invalid object type: {shown}")
    metadata = config.get("metadata")
    if metadata is None:
        metadata = config["metadata"] = {}
    if isinstance(metadata, dict) and "managedFields" in metadata:
        raise errors.bad_request("metadata.managedFields must be nil")
    problems = list(checks.problems(managed.field_type(resource), config))
    if problems:
        shown = problems[0] if len(problems) == 1 else "errors:\n  " + "\n  ".join(problems)
        given = metadata if isinstance(metadata, dict) else {}
        full = f"{given.get('namespace') or ''}/{given.get('name') or ''}"
        kind = resource.api_version if resource.group else f"/{resource.version}"
        raise ApiError(
            500, "",
            f"failed to create typed patch object ({full}; {kind}, Kind={resource.kind}): {shown}",
        )  # fmt: skip
    if not metadata.get("name"):
        raise errors.bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: name must be "
            "provided"
        )
    if metadata["name"] != name:
        raise errors.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({name})"
        )


async def _change(
    registry: Registry, target: Target, config: Wire, options: WriteOptions, force: bool
) -> Outcome:
    def mutate(live: Wire) -> Wire:
        return _merged(target, live, config, options, force)

    return await registry.update(
        target.resource, target.namespace, target.name, mutate, options,
        subresource=target.subresource,
    )  # fmt: skip


async def _create(
    registry: Registry, target: Target, config: Wire, options: WriteOptions
) -> Outcome:
    resource = target.resource
    if uid := config["metadata"].get("uid"):
        raise errors.conflict(
            resource.group, resource.plural, target.name,
            f"uid mismatch: the provided object specified uid {uid}, and no existing object was "
            "found",
        )  # fmt: skip
    wire = _merged(target, None, config, options, False)
    wire["metadata"].pop("resourceVersion", None)
    return await registry.create(resource, target.namespace, wire, options)


def _merged(
    target: Target, live: Wire | None, config: Wire, options: WriteOptions, force: bool
) -> Wire:
    resource = target.resource
    who = Manager(options.manager, "Apply", resource.api_version, target.subresource)
    # The result is pruned and defaulted in place: nothing of the configuration may be shared.
    own = orjson.loads(orjson.dumps(config))
    wire = applied.apply(resource, live, own, who, force)
    if resource.custom:
        _refuse_nulls(target, wire)
    decoding.shape(resource, wire)
    return wire


def _refuse_nulls(target: Target, wire: Mapping[str, Any]) -> None:
    """Unlike other writes, apply does not drop a null where there may be none."""
    found: list[errors.FieldError] = []
    bare = {key: value for key, value in wire.items() if key != "metadata"}
    _find_nulls(target.resource.schema, bare, "", found)
    if found:
        if target.resource.rules is not None:
            found.append(UNCHECKED)
        raise errors.invalid_object(
            target.resource.group, target.resource.kind, target.name, sorted(found, key=str)
        )


def _find_nulls(node: Node, value: Any, path: str, found: list[errors.FieldError]) -> None:
    if isinstance(value, list) and node.items is not None:
        for at, item in enumerate(value):
            _find_nulls(node.items, item, f"{path}[{at}]", found)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        child = node.properties.get(key, node.additional)
        where = f"{path}.{key}" if path else key
        if child is None:
            continue
        if item is not None:
            _find_nulls(child, item, where, found)
        elif child.type and not child.nullable and child.default is MISSING:
            text = f'{where} in body must be of type {child.type}: "null"'
            found.append(errors.type_invalid(where, "null", text))
