"""How values merge: the part of a schema that server-side apply needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controller.apiserver.schema.structural import MISSING, Node


@dataclass(eq=False)
class Type:
    """The type of a value.

    kind: map, list, string, number, boolean, or "" where the schema does not say: there, objects
    merge by name and lists are replaced. atomic: has one owner as a whole. named: the fields that
    the schema names; element: of all others, or of a list's items (None: there are none). A list
    that is not atomic is a map by ``keys``, or a set if it has no keys; ``defaults`` are those of
    the keys.
    """

    kind: str = ""
    atomic: bool = False
    named: dict[str, Type] = field(default_factory=dict)
    element: Type | None = None
    keys: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)

    def child(self, key: str) -> Type:
        """The type of a field."""
        return self.named.get(key) or self.element or UNTYPED

    @property
    def item(self) -> Type:
        """The type of a list's items."""
        return self.element or UNTYPED


UNTYPED = Type()
UNTYPED.element = UNTYPED
_STRING = Type("string")
_SCALARS = {
    "string": _STRING,
    "integer": Type("number"),
    "number": Type("number"),
    "boolean": Type("boolean"),
}


def from_node(node: Node, metadata: Type | None = None) -> Type:
    """The type that a schema describes. ``metadata``: the type of embedded objects' metadata."""
    if node.int_or_string:
        return UNTYPED
    if node.type == "array":
        return _list(node, metadata)
    if node.type == "object" or node.properties or node.additional:
        return _map(node, metadata)
    return _SCALARS.get(node.type, UNTYPED)


def _map(node: Node, metadata: Type | None) -> Type:
    named = {key: from_node(child, metadata) for key, child in node.properties.items()}
    if node.embedded and metadata is not None:
        named.update(apiVersion=_STRING, kind=_STRING, metadata=metadata)
    element = from_node(node.additional, metadata) if node.additional else None
    if node.preserve and element is None:
        element = UNTYPED
    atomic = node.raw.get("x-kubernetes-map-type") == "atomic"
    return Type("map", atomic, named, element)


def _list(node: Node, metadata: Type | None) -> Type:
    items = from_node(node.items, metadata) if node.items else UNTYPED
    if node.list_type == "set":
        return Type("list", element=items)
    if node.list_type != "map":
        return Type("list", True, element=items)
    known = node.items.properties if node.items else {}
    defaults = {
        key: known[key].default
        for key in node.map_keys
        if key in known and known[key].default is not MISSING
    }
    return Type("list", element=items, keys=tuple(sorted(node.map_keys)), defaults=defaults)


def root(schema: Node, metadata: Node) -> Type:
    """The type of a whole object: its schema, and what every object has."""
    shared = from_node(metadata)
    found = from_node(schema, shared)
    named = {**found.named, "apiVersion": _STRING, "kind": _STRING, "metadata": shared}
    return Type("map", False, named, found.element)
