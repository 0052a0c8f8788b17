"""JSON values as CEL rules see them: numbers, times and bytes by their schema, names escaped."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from controller.apiserver.schema.structural import Node

Adapter = Callable[[Any], Any]
_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for",
        "function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void",
        "while",
    )
)  # fmt: skip
_SYMBOLS = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_NAME = re.compile(r"[A-Za-z_.\-/][A-Za-z0-9_.\-/]*\Z")


def escape(name: str) -> str:
    """A field's name as CEL writes it; empty if CEL cannot name it."""
    if name in _RESERVED:
        return f"__{name}__"
    if not _NAME.match(name):
        return ""
    return re.sub(r"__|[./-]", lambda match: _SYMBOLS[match.group(0)], name)


def adapter_of(node: Node) -> Adapter | None:
    """What turns a JSON value into what rules see; None where they are the same.

    Integers in ``number`` fields become doubles, strings of the format ``byte`` bytes; names that
    CEL cannot write are escaped.
    """
    if node.type == "number" and not node.int_or_string:
        return lambda value: float(value) if isinstance(value, int) else value
    if node.type == "string" and not node.int_or_string:
        return _bytes if node.raw.get("format") == "byte" else None
    if node.items is not None:
        return _list_adapter(adapter_of(node.items))
    if node.additional is not None:
        return _map_adapter(adapter_of(node.additional))
    return _object_adapter(node)


def _bytes(value: Any) -> Any:
    try:
        return base64.b64decode(value) if isinstance(value, str) else value
    except (ValueError, binascii.Error):
        return value  # the schema refuses it; a rule cannot make it worse


def _list_adapter(inner: Adapter | None) -> Adapter | None:
    if inner is None:
        return None
    return lambda value: [inner(v) for v in value] if isinstance(value, list) else value


def _map_adapter(inner: Adapter | None) -> Adapter | None:
    if inner is None:
        return None
    return lambda v: {k: inner(x) for k, x in v.items()} if isinstance(v, dict) else v


def _object_adapter(node: Node) -> Adapter | None:
    adapters = {
        k: f for k, child in node.properties.items() if (f := adapter_of(child)) is not None
    }
    names = {k: escape(k) for k in node.properties if escape(k) not in ("", k)}
    if not adapters and not names:
        return None

    def adapt(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            names.get(k, k): adapters[k](item) if k in adapters else item
            for k, item in value.items()
        }

    return adapt
