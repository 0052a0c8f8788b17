"""From bytes to an object that fits its resource: parsed, pruned, defaulted."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from controller.apiserver import errors, meta
from controller.apiserver.catalog import Resource, split_api_version
from controller.apiserver.schema import checks, structural
from controller.apiserver.schema.structural import MISSING

Wire = dict[str, Any]
FieldValidation = Literal["Ignore", "Warn", "Strict"]
_TOP = frozenset({"apiVersion", "kind", "metadata"})


@dataclass
class Decoded:
    """An object and what is odd about the bytes it came from (unknown and duplicate fields)."""

    wire: Wire
    oddities: list[str] = field(default_factory=list)


def parse(raw: bytes, kind: str) -> Wire:
    """JSON that is an object. Raises ApiError (400)."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        shown = raw[:64].decode(errors="replace") or "<empty>"
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get "
            f"version/kind; json parse error: {_go_error(raw, error)} ({shown})"
        ) from None
    if not isinstance(found, dict):
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get "
            "version/kind; json parse error: json: cannot unmarshal the value into an object"
        )
    return found


def _go_error(raw: bytes, error: orjson.JSONDecodeError) -> str:
    return "unexpected end of JSON input" if error.pos >= len(raw) else str(error)


def duplicates(raw: bytes, parsed: Any) -> list[str]:
    """Paths of keys that stand twice in one object.

    A parsed object has lost them, so it has fewer quotes than its text: only then (or where the
    text has escapes that would hide it) is the text read again, slowly.
    """
    if b"\\" not in raw and raw.count(b'"') == orjson.dumps(parsed).count(b'"'):
        return []
    found: list[str] = []

    def hook(pairs: list[tuple[str, Any]]) -> _Pairs:
        return _Pairs(pairs)

    try:
        tree = json.loads(raw, object_pairs_hook=hook)
    except (ValueError, RecursionError):
        return []
    _find_duplicates(tree, "", found)
    return found


class _Pairs(list[tuple[str, Any]]):
    """An object as its text has it."""


def _find_duplicates(value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, _Pairs):
        seen = set()
        for key, item in value:
            where = f"{path}.{key}" if path else key
            if key in seen:
                found.append(f'duplicate field "{where}"')
            seen.add(key)
            _find_duplicates(item, where, found)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            _find_duplicates(item, f"{path}[{at}]", found)


def check_type(resource: Resource, wire: Wire) -> None:
    """apiVersion and kind must be the resource's; built-in kinds may leave them out."""
    if not resource.custom:
        wire.setdefault("kind", resource.kind)
        wire.setdefault("apiVersion", resource.api_version)
    for key, name in (("kind", "Kind"), ("apiVersion", "apiVersion")):
        if not isinstance(wire.get(key), str) or not wire[key]:
            shown = errors.render(wire)[:200]
            raise errors.bad_request(
                f"the object provided is unrecognized (must be of type {resource.kind}): Object "
                f"'{name}' is missing in '{shown}' ({shown})"
            )
    if wire["apiVersion"] != resource.api_version:
        raise errors.bad_request(
            f"the API version in the data ({wire['apiVersion']}) does not match the expected API "
            f"version ({resource.api_version})"
        )
    if wire["kind"] != resource.kind:
        if resource.custom:
            name = str((wire.get("metadata") or {}).get("name", ""))
            problem = errors.invalid("kind", wire["kind"], f"must be {resource.kind}")
            raise errors.invalid_object(resource.group, wire["kind"], name, [problem])
        raise errors.bad_request(
            f"{wire['kind']} in version {errors.render(resource.version)} cannot be handled as a "
            f"{resource.kind}"
        )


def check_patched_type(resource: Resource, wire: Wire) -> None:
    """As ``check_type``, of what a patch made: another version is not valid, rather than a mistake.

    Raises ApiError (400 or 422).
    """
    given, kind = wire.get("apiVersion"), wire.get("kind")
    named = isinstance(given, str) and given and kind == resource.kind
    if resource.custom and named and given != resource.api_version:
        name = str((wire.get("metadata") or {}).get("name", ""))
        problem = errors.invalid("apiVersion", given, f"must be {resource.api_version}")
        group = split_api_version(str(given))[0]
        raise errors.invalid_object(group, resource.kind, name, [problem])
    if resource.custom and not kind:
        shown = orjson.dumps(wire)
        raise errors.bad_patch(shown, f"Object 'Kind' is missing in '{shown.decode()}'")
    check_type(resource, wire)


def shape(resource: Resource, wire: Wire) -> list[str]:
    """Prune and default in place; answers the unknown fields. Raises ApiError (400)."""
    unknown: list[str] = []
    try:
        metadata = meta.coerce(wire.get("metadata"), "metadata", unknown)
    except meta.BadMetadata as error:
        raise _unhandled(resource, str(error)) from None
    wire.pop("metadata", None)
    top = {key: wire.pop(key) for key in ("apiVersion", "kind")}
    structural.prune(resource.schema, wire, "", unknown)
    structural.default(resource.schema, wire)
    rest = dict(wire)
    wire.clear()
    wire.update(top, metadata=metadata, **rest)
    if not resource.custom:
        _check_builtin(resource, wire)
    if resource.plural == "customresourcedefinitions" and not resource.custom:
        try:
            _prune_definition(wire, unknown)
        except checks.BadSchema as error:
            raise _unhandled(resource, str(error)) from None
    return [f'unknown field "{path}"' for path in sorted(unknown)]


def _prune_definition(wire: Wire, unknown: list[str]) -> None:
    versions = (wire.get("spec") or {}).get("versions") or []
    for at, version in enumerate(versions if isinstance(versions, list) else []):
        schema = version.get("schema") if isinstance(version, dict) else None
        path = f"spec.versions[{at}].schema.openAPIV3Schema"
        if isinstance(schema, dict):
            checks.prune_schema(schema.get("openAPIV3Schema"), path, unknown)


def _check_builtin(resource: Resource, wire: Mapping[str, Any]) -> None:
    """A built-in kind is decoded into a fixed type, so a wrong one is a bad request."""
    found: list[errors.FieldError] = []
    bare = {key: value for key, value in wire.items() if key not in _TOP}
    structural.validate(resource.schema, bare, MISSING, "", found)
    wrong = [e for e in found if e.reason == "FieldValueTypeInvalid"]
    if wrong:
        raise _unhandled(resource, f"json: cannot unmarshal: {wrong[0].body}")


def _unhandled(resource: Resource, why: str) -> errors.ApiError:
    return errors.bad_request(
        f"{resource.kind} in version {errors.render(resource.version)} cannot be handled as a "
        f"{resource.kind}: {why}"
    )


def decode(
    resource: Resource, raw: bytes, validation: FieldValidation, doubled: Sequence[str] = ()
) -> Decoded:
    """The object in a request's body; ``doubled`` is what its YAML said twice. Raises ApiError
    (400)."""
    wire = parse(raw, resource.kind)
    check_type(resource, wire)
    found = duplicates(raw, wire) if validation != "Ignore" else []
    if validation == "Strict" and doubled:
        found = ["yaml: unmarshal errors:\n  " + "\n  ".join(doubled), *found]
    elif validation != "Ignore":
        found = [*doubled, *found]
    decoded = Decoded(wire, [*found, *shape(resource, wire)])
    if validation == "Strict" and decoded.oddities:
        raise _unhandled(resource, "strict decoding error: " + ", ".join(decoded.oddities))
    if validation == "Ignore":
        decoded.oddities = []
    return decoded


def encode(wire: Wire) -> bytes:
    """As it is stored and sent; no larger than it must be in memory."""
    return bytes(memoryview(orjson.dumps(wire)))


def present(resource: Resource, body: bytes) -> bytes:
    """A stored object in the version of ``resource``."""
    if resource.shown is not None:
        return orjson.dumps(resource.shown(orjson.loads(body)))
    if resource.kept is not None:
        return orjson.dumps(present_wire(resource, orjson.loads(body)))
    prefix = b'{"apiVersion":"' + resource.api_version.encode() + b'",'
    if body.startswith(prefix):
        return body
    return prefix + body[body.index(b",") + 1 :]


def present_wire(resource: Resource, wire: Wire) -> Wire:
    """As ``present``, for a parsed object, which becomes the answer."""
    if resource.shown is not None:
        return resource.shown(wire)
    if resource.kept is not None:
        wire = _pruned(resource.schema, wire)
    wire["apiVersion"] = resource.api_version
    return wire


def store_wire(resource: Resource, wire: Wire) -> Wire:
    """The object in the version that it is stored in."""
    found = resource.taken(wire) if resource.taken is not None else dict(wire)
    if resource.kept is not None:
        found = _fitted(resource.kept, found)
    found["apiVersion"] = resource.stored_as
    return found


def _fitted(schema: structural.Node, wire: Wire) -> Wire:
    """What the version that is stored makes of the object: pruned and with its defaults."""
    found = _pruned(schema, wire)
    bare = {key: value for key, value in found.items() if key not in _TOP}
    structural.default(schema, bare)
    return {**found, **bare}


def _pruned(schema: structural.Node, wire: Wire) -> Wire:
    """A copy without what ``schema`` does not know."""
    bare = copy.deepcopy({key: value for key, value in wire.items() if key not in _TOP})
    structural.prune(schema, bare, "", [])
    top = {key: value for key, value in wire.items() if key in _TOP}
    return {"apiVersion": "", **top, **bare}
