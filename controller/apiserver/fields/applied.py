"""Server-side apply of one configuration by one manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from controller.apiserver import meta
from controller.apiserver.catalog import Resource
from controller.apiserver.errors import ApiError, render
from controller.apiserver.fields import managed
from controller.apiserver.fields.managed import Entry, Manager, identity
from controller.apiserver.fields.merge import merge, remove, with_named
from controller.apiserver.fields.sets import Set, difference, intersection, paths, union
from controller.apiserver.fields.types import Type
from controller.apiserver.fields.values import compare, owned
from controller.apiserver.schema.structural import same

Wire = dict[str, Any]
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_IDENTITY: Set = {"f:metadata": {}}
"""Every configuration speaks of metadata, since it has a name; what is in there may be anyone's."""
_KUBECTL = "kubectl"
_BEFORE = "before-first-apply"
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def apply(
    resource: Resource, live: Wire | None, config: Wire, who: Manager, force: bool
) -> Wire:  # fmt: skip
    """The object after ``who`` applied ``config``; its metadata has the new managedFields.

    ``live`` is None if there is no object yet. Raises ApiError (409) if others own what the
    configuration changes, unless ``force``.
    """
    type_, subresource = managed.field_type(resource), who.subresource
    before = managed.visible(resource, live or {}, subresource)
    wanted = _bare(managed.visible(resource, config, subresource))
    entries: Sequence[Entry] = (live or {}).get("metadata", {}).get(managed.FIELD) or []
    if live is not None and not entries:
        first = Manager(_BEFORE, "Update", who.api_version, subresource)
        entries = managed.track(type_, managed.nothing(resource, subresource), before, [], first)
    others = [entry for entry in entries if identity(entry) != who.identity()]
    mine = next((entry for entry in entries if identity(entry) == who.identity()), None)
    fields = owned(type_, wanted)
    after = _pruned(
        type_, merge(type_, before, wanted), mine["fieldsV1"] if mine else {},
        [fields, _IDENTITY, *(entry["fieldsV1"] for entry in others)],
    )  # fmt: skip
    added, modified, removed = compare(type_, before, after)
    changed = union(added or {}, modified or {})
    if not force:
        allowed = _from_last_applied(type_, resource, live) if who.name == _KUBECTL else {}
        _refuse_conflicts(others, difference(changed, allowed))
    gone = union(changed, removed or {})
    found = [left for entry in others if (left := _without(entry, gone))["fieldsV1"]]
    if fields:
        claims_more = mine is None or mine["fieldsV1"] != fields
        # Another order of a set's items changes the object, though nobody's fields.
        acts = gone or not same(before, after)
        acts = acts or (claims_more and _speaks_past(type_, live or {}, config, wanted))
        time = meta.timestamp() if acts else (mine or {}).get("time")
        found.append(who.entry(fields, time))
    wire = _assembled(resource, live, config, after, subresource)
    if who.name == _KUBECTL:
        _sync_last_applied(wire, config)
    wire["metadata"][managed.FIELD] = managed.ordered(found)
    return wire


def _speaks_past(type_: Type, live: Wire, config: Wire, wanted: Wire) -> bool:
    """Whether ``config`` would change what this request cannot (the status, say).

    It has no effect, but upstream then treats the request as one that changes something.
    """
    for key, value in config.items():
        if key in wanted or key in ("apiVersion", "kind"):
            continue
        said, present = value, live.get(key)
        if key == "metadata":
            said = {k: v for k, v in (value or {}).items() if k not in managed.UNOWNED}
            present = present or {}
        if present is None or merge(type_.child(key), present, said) != present:
            return True
    return False


def _bare(config: Wire) -> Wire:
    """Without parts that say nothing once the server's own fields are left out."""
    return {key: value for key, value in config.items() if key != "metadata" or value}


def _without(entry: Entry, gone: Set) -> Entry:
    left = difference(entry["fieldsV1"], gone)
    return entry if left is entry["fieldsV1"] else {**entry, "fieldsV1": left}


def _pruned(type_: Type, merged: Wire, last: Set, claims: Sequence[Set]) -> Wire:
    """``merged`` without what the manager applied last time and nobody claims any more."""
    if not last:
        return merged
    last = with_named(type_, last)
    everything = with_named(type_, owned(type_, merged))
    kept = with_named(type_, owned(type_, remove(type_, merged, last) or {}))
    for claim in claims:
        kept = union(kept, with_named(type_, claim))
    pruned = remove(type_, merged, difference(everything, kept)) or {}
    left = with_named(type_, owned(type_, pruned))
    return remove(type_, merged, intersection(difference(everything, left), last)) or {}


def _refuse_conflicts(others: Sequence[Entry], changed: Set) -> None:
    found = [
        (_named(entry), path)
        for entry in others
        for path in paths(intersection(entry["fieldsV1"], changed))
    ]
    if found:
        causes = [
            {"reason": "FieldManagerConflict", "message": f"conflict with {name}", "field": path}
            for name, path in found
        ]
        raise ApiError(409, "Conflict", _conflict_text(found), {"causes": causes})


def _conflict_text(found: Sequence[tuple[str, str]]) -> str:
    if len(found) == 1:
        return f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    lines = []
    for name in sorted({name for name, _ in found}):
        lines.append(f"conflicts with {name}:")
        lines.extend(f"- {path}" for other, path in found if other == name)
    return f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)


def _named(entry: Entry) -> str:
    name = render(entry.get("manager", ""))
    if entry.get("subresource"):
        name += f" with subresource {render(entry['subresource'])}"
    return f"{name} using {entry['apiVersion']}" if entry["operation"] == "Update" else name


def _assembled(
    resource: Resource, live: Wire | None, config: Wire, after: Wire, subresource: str
) -> Wire:
    """The whole object: what the server keeps, what the configuration says of its identity."""
    kept = dict((live or {}).get("metadata", {}))
    given = {k: v for k, v in (config.get("metadata") or {}).items() if v is not None}
    identifying = {
        key: given[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in given
    }
    if subresource:
        metadata = {**kept, **identifying}
    else:
        unowned = {key: kept[key] for key in kept if key in managed.UNOWNED}
        metadata = {**(after.get("metadata") or {}), **unowned, **identifying}
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    base = live or {}
    seen = managed.visible(resource, base, subresource)
    rest = {key: value for key, value in base.items() if key not in seen and key not in head}
    for key, value in after.items():
        # What is only there because upstream's types always have it is not to be stored.
        if key != "metadata" and (value != {} or key in base or key in config):
            rest[key] = value
    return {**head, **rest}


# Objects that kubectl applied on the client's side before


def _annotation(wire: Mapping[str, Any]) -> str:
    found = ((wire.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    return found if isinstance(found, str) else ""


def _from_last_applied(type_: Type, resource: Resource, live: Wire | None) -> Set:
    """What kubectl applied and is as it was: kubectl may take it without force."""
    try:
        last = orjson.loads(_annotation(live or {}))
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(last, dict):
        return {}
    said = _bare(managed.visible(resource, last, ""))
    present = managed.visible(resource, live or {}, "")
    found = owned(type_, said)
    for different in compare(type_, said, present):
        found = difference(found, different or {})
    return found


def _sync_last_applied(wire: Wire, config: Wire) -> None:
    """Keep the annotation true, in place, so that client-side apply may come back."""
    if not _annotation(wire):
        return
    metadata = {k: v for k, v in config["metadata"].items() if k != "annotations"}
    annotations = dict((config["metadata"].get("annotations") or {}).items())
    annotations.pop(LAST_APPLIED, None)
    if annotations:
        metadata["annotations"] = annotations
    text = render({**config, "metadata": metadata})
    for char, escaped in _ESCAPED.items():
        text = text.replace(char, escaped)
    present = wire["metadata"]["annotations"]
    wire["metadata"]["annotations"] = {**present, LAST_APPLIED: text + "\n"}
