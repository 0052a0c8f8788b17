"""Built-in kinds as Go clients send them: protobuf in Kubernetes' envelope.

Only what is sent to the server is decoded, driven by the field numbers in ``builtins``; answers
are JSON, which these clients take as well.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from controller.apiserver import errors
from controller.apiserver.catalog import Resource

MAGIC = b"k8s\x00"
Schema = Mapping[str, Any]
Wire = dict[str, Any]

_PRECONDITIONS: Schema = {
    "type": "object",
    "properties": {
        "uid": {"type": "string", "x-number": 1},
        "resourceVersion": {"type": "string", "x-number": 2},
    },
}
_DELETE_OPTIONS: Schema = {
    "type": "object",
    "properties": {
        "gracePeriodSeconds": {"type": "integer", "x-number": 1},
        "preconditions": {**_PRECONDITIONS, "x-number": 2},
        "orphanDependents": {"type": "boolean", "x-number": 3},
        "propagationPolicy": {"type": "string", "x-number": 4},
        "dryRun": {"type": "array", "items": {"type": "string"}, "x-number": 5},
    },
}


class _Truncated(ValueError):
    pass


def to_json(resource: Resource, body: bytes) -> bytes:
    """The JSON of an object in the envelope. Raises ApiError (400)."""
    try:
        api_version, kind, raw = _envelope(body)
        wire = _message(raw, resource.schema.raw)
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        raise _bad(resource.kind) from None
    return orjson.dumps({"apiVersion": api_version, "kind": kind, **wire})


def delete_options(body: bytes) -> Wire:
    """metav1.DeleteOptions in the envelope. Raises ApiError (400)."""
    try:
        return _message(_envelope(body)[2], _DELETE_OPTIONS)
    except (ValueError, TypeError, IndexError):
        raise _bad("DeleteOptions") from None


def _bad(kind: str) -> errors.ApiError:
    return errors.bad_request(
        f"the object provided is unrecognized (must be of type {kind}): it is no protobuf that can "
        "be decoded"
    )


def _envelope(body: bytes) -> tuple[str, str, bytes]:
    """apiVersion, kind and the message of a runtime.Unknown."""
    if not body.startswith(MAGIC):
        raise ValueError("no envelope")
    api_version = kind = ""
    raw = b""
    for number, value in _fields(body[len(MAGIC) :]):
        if number == 1 and isinstance(value, bytes):
            for inner, text in _fields(value):
                if inner == 1 and isinstance(text, bytes):
                    api_version = text.decode()
                elif inner == 2 and isinstance(text, bytes):
                    kind = text.decode()
        elif number == 2 and isinstance(value, bytes):
            raw = value
    return api_version, kind, raw


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(raw, at)
            yield tag >> 3, value
        elif kind in (1, 2, 5):
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                size, at = _varint(raw, at)
            if at + size > len(raw):
                raise _Truncated
            yield tag >> 3, raw[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _message(raw: bytes, schema: Schema) -> Wire:
    by_number = {
        child["x-number"]: (name, child)
        for name, child in schema["properties"].items()
        if "x-number" in child
    }
    found: Wire = {}
    for number, value in _fields(raw):
        if number in by_number:
            name, child = by_number[number]
            _add(found, name, value, child)
    return {key: value for key, value in found.items() if value not in ("", None, {}, [])}


def _add(found: Wire, name: str, value: int | bytes, schema: Schema) -> None:
    if schema["type"] == "array":
        found.setdefault(name, []).append(_value(value, schema["items"]))
    elif "additionalProperties" in schema:
        key, item = _map_entry(value, schema["additionalProperties"])
        found.setdefault(name, {})[key] = item
    else:
        found[name] = _value(value, schema)


def _map_entry(value: int | bytes, schema: Schema) -> tuple[str, Any]:
    if not isinstance(value, bytes):
        raise TypeError("a map entry is a message")
    parts = dict(_fields(value))
    key = parts.get(1, b"")
    if not isinstance(key, bytes):
        raise TypeError("a map's key is a string")
    return key.decode(), _value(parts.get(2, b""), schema)


def _value(value: int | bytes, schema: Schema) -> Any:
    kind = schema["type"]
    if isinstance(value, int):
        return _scalar(value, kind)
    if "x-time" in schema:
        return _time(value, schema["x-time"])
    if schema.get("format") == "byte":
        return base64.b64encode(value).decode()
    if kind == "string":
        return value.decode()
    if kind == "object" and "properties" in schema:
        return _message(value, schema)
    return None  # managed fields and conditions: clients do not set them


def _scalar(value: int, kind: str) -> int | bool:
    if kind == "boolean":
        return bool(value)
    if kind != "integer":
        raise ValueError("a number in the place of something else")
    return value - (1 << 64) if value >> 63 else value


def _time(value: bytes, digits: int) -> str | None:
    parts = dict(_fields(value))
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int) or not (seconds or nanos):
        return None
    signed = seconds - (1 << 64) if seconds >> 63 else seconds
    moment = dt.datetime.fromtimestamp(signed, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{nanos // 1000:06d}Z" if digits else f"{moment}Z"
