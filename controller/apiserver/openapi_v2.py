"""OpenAPI v2 as protobuf (gnostic's ``openapi.v2.Document``), which kubectl asks for.

kubectl uses it when it applies or diffs an object that exists. The document is small, so the
parts of it that kubectl reads are encoded by hand: definitions with their extensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import yaml

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
Wire = Mapping[str, Any]


def wanted(accept: str) -> bool:
    """Whether a client asks for protobuf."""
    return _ASKED in accept or MEDIA_TYPE in accept


def encode(document: Wire) -> bytes:
    """Numbers are those of gnostic's OpenAPIv2.proto: swagger 1, info 2, paths 8, definitions 9."""
    return b"".join(
        (
            _text(1, document["swagger"]),
            _bytes(2, _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])),
            _bytes(8, b""),
            _bytes(9, _named_schemas(document["definitions"])),
        )
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode()) if value else b""


def _named_schemas(schemas: Wire) -> bytes:
    """A map is a list of NamedSchema (name 1, value 2)."""
    return b"".join(
        _bytes(1, _text(1, name) + _bytes(2, _schema(schema))) for name, schema in schemas.items()
    )


def _schema(schema: Wire) -> bytes:
    """Schema: _ref 1, format 2, description 4, required 19, additional_properties 21, type 22,
    items 23, properties 25, vendor_extension 31."""
    parts = [
        _text(1, schema.get("$ref", "")),
        _text(2, schema.get("format", "")),
        _text(4, schema.get("description", "")),
        *(_text(19, name) for name in schema.get("required", ())),
    ]
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        parts.append(_bytes(21, _bytes(1, _schema(additional))))
    if schema.get("type"):
        parts.append(_bytes(22, _text(1, schema["type"])))
    if isinstance(schema.get("items"), Mapping):
        parts.append(_bytes(23, _bytes(1, _schema(schema["items"]))))
    if schema.get("properties"):
        parts.append(_bytes(25, _named_schemas(schema["properties"])))
    for key, value in schema.items():
        if key.startswith("x-"):
            parts.append(_bytes(31, _text(1, key) + _bytes(2, _any(value))))
    return b"".join(parts)


def _any(value: Any) -> bytes:
    """Any: value 1, yaml 2. Readers take the YAML."""
    plain = orjson.loads(orjson.dumps(value))
    return _text(2, yaml.safe_dump(plain, default_flow_style=True))
