"""metadata.managedFields, kept at every write.

Each entry names a manager, an operation (Apply, or Update for every other write) and the set of
fields that it owns. A write takes the fields that it changes from all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.apiserver import meta
from controller.apiserver.builtin_schemas import OBJECT_META
from controller.apiserver.catalog import Resource
from controller.apiserver.fields.sets import BadSet, Set, decode, difference, union
from controller.apiserver.fields.types import Type, root
from controller.apiserver.fields.values import compare
from controller.apiserver.schema.structural import compile_schema

Wire = dict[str, Any]
Entry = dict[str, Any]
FIELD = "managedFields"
_MAX_UPDATERS = 10
_METADATA = compile_schema(OBJECT_META)
_ANCIENT = "ancient-changes"
UNOWNED = frozenset(
    {
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation",
        "managedFields", "resourceVersion",
    }
)  # fmt: skip
ALWAYS_THERE = ("spec", "status", "involvedObject", "source", "regarding", "deprecatedSource")
"""Parts of built-in kinds that upstream's Go types have even when empty, so nobody owns them."""


@dataclass(frozen=True)
class Manager:
    """Who writes. operation: Apply or Update."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    def identity(self) -> tuple[str, str, str, str]:
        """An applier is the same in all versions."""
        version = "" if self.operation == "Apply" else self.api_version
        return self.name, self.operation, version, self.subresource

    def entry(self, fields: Set, time: str | None) -> Entry:
        found: Entry = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
        }
        if time:
            found["time"] = time
        found.update(fieldsType="FieldsV1", fieldsV1=fields)
        if self.subresource:
            found["subresource"] = self.subresource
        return found


def field_type(resource: Resource) -> Type:
    """How the objects of a resource merge."""
    found: Type | None = resource.memo.get("field_type")
    if found is None:
        found = resource.memo["field_type"] = root(resource.schema, _METADATA)
    return found


def identity(entry: Entry) -> tuple[str, str, str, str]:
    """As Manager.identity."""
    operation = entry["operation"]
    version = "" if operation == "Apply" else entry["apiVersion"]
    return entry.get("manager", ""), operation, version, entry.get("subresource", "")


def ordered(entries: Sequence[Entry]) -> list[Entry]:
    """Appliers first, then by time, manager, version and subresource."""
    return sorted(
        entries,
        key=lambda e: (
            e["operation"], e.get("time", ""), e.get("manager", ""), e["apiVersion"],
            e.get("subresource", ""),
        ),
    )  # fmt: skip


def visible(resource: Resource, wire: Mapping[str, Any], subresource: str) -> Wire:
    """The part of an object that a write can change and own."""
    named = field_type(resource).named
    if subresource == "status":
        found = {"status": wire["status"]} if "status" in wire else {}
        return found if resource.custom or found else {"status": {}}
    hidden = {"apiVersion", "kind", "metadata", *(("status",) if resource.has_status else ())}
    if "finalize" in resource.extra_subresources and not subresource:
        hidden.add("spec")
    found = {key: value for key, value in wire.items() if key not in hidden}
    metadata = wire.get("metadata") or {}
    found["metadata"] = {k: v for k, v in metadata.items() if k not in UNOWNED}
    if not resource.custom:
        for key in ALWAYS_THERE:
            if key in named and key not in hidden:
                found.setdefault(key, {})
    return found


def nothing(resource: Resource, subresource: str = "") -> Wire:
    """What is visible of an object that is not there yet."""
    return visible(resource, {}, subresource)


# Every write but apply


def created(resource: Resource, wire: Wire, manager: str) -> None:
    """Set the managedFields of a new object, in place."""
    who = Manager(manager, "Update", resource.api_version)
    entries = track(
        field_type(resource), nothing(resource), visible(resource, wire, ""), [], who
    )  # fmt: skip
    put(wire, entries)


def updated(resource: Resource, new: Wire, old: Wire, given: Any, manager: Manager) -> None:
    """Set the managedFields of a changed object, in place; its metadata may be the old one's.

    ``given``: those that the client sent. Regular ones replace the old, ``[{}]`` removes them
    all, others count for nothing. An object without any is not tracked.
    """
    before = old["metadata"].get(FIELD) or []
    subresource = manager.subresource
    base = before if subresource else asked(given, before)
    if base:
        base = track(
            field_type(resource), visible(resource, old, subresource),
            visible(resource, new, subresource), base, manager,
        )  # fmt: skip
    if base is not new["metadata"].get(FIELD):
        put(new, base)


def put(wire: Wire, entries: Sequence[Entry] | None) -> None:
    """Give an object these managedFields; its metadata becomes its own."""
    metadata = {key: value for key, value in wire["metadata"].items() if key != FIELD}
    if entries:
        metadata[FIELD] = list(entries)
    wire["metadata"] = metadata


def track(
    type_: Type, old: Wire, new: Wire, entries: Sequence[Entry], who: Manager
) -> Sequence[Entry]:
    """``entries`` after ``who`` changed ``old`` to ``new``; themselves if nothing is different."""
    added, modified, removed = compare(type_, old, new)
    changed = union(added or {}, modified or {})
    gone = union(changed, removed or {})
    if not gone:
        return entries
    found: list[Entry] = []
    mine, time = changed, meta.timestamp() if changed else None
    for entry in entries:
        before: Set = entry["fieldsV1"]
        left = difference(before, gone)
        if identity(entry) == who.identity():
            mine = union(left, changed)
            time = time or entry.get("time")
        elif left is before:
            found.append(entry)
        elif left:
            found.append({**entry, "fieldsV1": left})
    if mine:
        found.append(who.entry(mine, time))
    return ordered(_capped(found))


def _capped(entries: list[Entry]) -> list[Entry]:
    """Bound the number of updaters: the oldest of a version are merged into one."""
    updaters = [entry for entry in entries if entry["operation"] == "Update"]
    excess = len(updaters) - _MAX_UPDATERS
    if excess <= 0:
        return entries
    updaters.sort(key=lambda e: (e.get("manager") != _ANCIENT, e.get("time", ""), identity(e)))
    buckets: dict[str, Entry] = {}
    merged: list[Entry] = []
    for entry in updaters:
        first = buckets.get(entry["apiVersion"])
        if excess <= 0 or first is None:
            buckets.setdefault(entry["apiVersion"], entry)
            continue
        fields = union(first["fieldsV1"], entry["fieldsV1"])
        bucket = Manager(_ANCIENT, "Update", entry["apiVersion"]).entry(fields, entry.get("time"))
        buckets[entry["apiVersion"]] = bucket
        merged += [first, entry]
        excess -= 1
    taken = {id(entry) for entry in merged}
    kept = [entry for entry in [*entries, *buckets.values()] if id(entry) not in taken]
    return list({id(entry): entry for entry in kept}.values())


# What clients say


def asked(given: Any, before: Sequence[Entry]) -> Sequence[Entry]:
    """The managedFields that an update starts from."""
    if given is before or given == before or not given:
        return before
    if given == [{}]:
        return []
    try:
        return ordered(_regular(given))
    except BadSet:
        return before


def _regular(given: list[Any]) -> list[Entry]:
    found: dict[tuple[str, str, str, str], Entry] = {}
    for entry in given:
        if not isinstance(entry, dict) or entry.get("operation") not in ("Apply", "Update"):
            raise BadSet("an entry has the operation Apply or Update")
        if entry.get("fieldsType") != "FieldsV1":
            raise BadSet("an entry has the fieldsType FieldsV1")
        texts = [entry.get(key, "") for key in ("manager", "apiVersion", "subresource", "time")]
        if not all(isinstance(text, str) for text in texts):
            raise BadSet("manager, apiVersion, subresource and time are strings")
        if "fieldsV1" not in entry:  # protobuf, of which it is not read
            raise BadSet("an entry has fieldsV1")
        fields = decode(entry["fieldsV1"])
        who = Manager(texts[0], entry["operation"], texts[1], texts[2])
        found.pop(who.identity(), None)
        if fields:
            found[who.identity()] = who.entry(fields, texts[3])
    return list(found.values())
