"""Lists: whole or in pages, as they are now or as they were at a version."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from controller.apiserver import decoding, errors
from controller.apiserver.catalog import Resource
from controller.apiserver.errors import ApiError
from controller.apiserver.selectors import EVERYTHING, Selection
from controller.apiserver.store import Entry, Forgotten, Store

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter."
)
_END = b"]}"
Key = tuple[str, str]
Wire = dict[str, Any]


@dataclass(frozen=True)
class ListOptions:
    """What a list is asked for. ``version``: None (the latest), 0 (any) or that version."""

    namespace: str = ""
    selection: Selection = EVERYTHING
    limit: int = 0
    token: str = ""
    version: int | None = None
    match: str = ""


@dataclass(frozen=True)
class Page:
    """A list's answer: its objects, the version they are of, and how to go on."""

    entries: list[Entry]
    version: int
    token: str = ""
    remaining: int | None = None


class _Snapshot(NamedTuple):
    """Keys and entries, in order, as they were at ``version``."""

    version: int
    keys: list[Key]
    entries: list[Entry]

    def only(self, name: str) -> _Snapshot:
        found = [pair for pair in zip(self.keys, self.entries, strict=True) if pair[0][1] == name]
        return _Snapshot(self.version, [key for key, _ in found], [entry for _, entry in found])


async def list_page(store: Store, resource: Resource, options: ListOptions) -> Page:
    """Raises ApiError: 410 where history does not reach back, 504 for a version to come."""
    version, after = _start(store, options)
    there = await _snapshot(store, resource, options.namespace, version, after)
    if (name := _single(resource, options)) is not None:
        there, options = there.only(name), replace(options, limit=0)
    try:
        if not options.selection.everything:
            return await _select(store, resource, there, options)
    except Forgotten:
        raise errors.expired(errors.LIST_TOO_SLOW) from None
    return _cut(there, options.limit)


async def bodies(store: Store, entries: list[Entry]) -> list[bytes]:
    """All objects of a page, as they are stored. Raises ApiError (410)."""
    try:
        return [body async for slice_ in store.bodies(entries) for body in slice_]
    except Forgotten:
        raise errors.expired(errors.LIST_TOO_SLOW) from None


def whole(resource: Resource, metadata: Wire, items: Sequence[bytes]) -> bytes:
    """A list's JSON."""
    return _head(resource, metadata) + b",".join(items) + _END


async def pieces(
    store: Store, resource: Resource, metadata: Wire, entries: Sequence[Entry]
) -> AsyncGenerator[bytes, None]:
    """As ``whole``, of objects that are read while it is sent. Raises Forgotten."""
    before = _head(resource, metadata)
    async for slice_ in store.bodies(entries):
        yield before + b",".join([decoding.present(resource, body) for body in slice_])
        before = b","
    yield _END


def _head(resource: Resource, metadata: Wire) -> bytes:
    """As far as the first item."""
    head = {
        "apiVersion": resource.api_version,
        "kind": resource.list_kind,
        "metadata": metadata,
    }
    return orjson.dumps(head)[:-1] + b',"items":['


def _cut(there: _Snapshot, limit: int) -> Page:
    version, keys, entries = there
    if not limit or len(entries) <= limit:
        return Page(entries, version)
    return Page(entries[:limit], version, _token(version, keys[limit - 1]), len(entries) - limit)


def _single(resource: Resource, options: ListOptions) -> str | None:
    """The name, if there can be but one object in the answer: no page then ends before it."""
    if options.token or (resource.namespaced and not options.namespace):
        return None
    return options.selection.fields.exact("metadata.name")


def _start(store: Store, options: ListOptions) -> tuple[int, Key | None]:
    if options.token:
        if options.version:
            raise errors.bad_request(
                "specifying resource version is not allowed when using continue"
            )
        version, after = parse_token(options.token)
        return version or store.version, after
    wanted = options.version or 0
    if wanted > store.version:
        raise errors.too_large_version(wanted, store.version)
    exact = options.match == "Exact" or (wanted > 0 and not options.match and options.limit > 0)
    return (wanted if exact and wanted else store.version), None


async def _snapshot(
    store: Store, resource: Resource, namespace: str, version: int, after: Key | None
) -> _Snapshot:
    shelf = store.shelf(resource.storage)
    if version == store.version:
        keys = shelf.keys(namespace, after)
        return _Snapshot(version, keys, shelf.entries(keys))
    try:
        undone = await store.undo(resource.storage, version)
    except KeyError:
        text = _TOO_OLD if after else "The resourceVersion for the provided list is too old."
        raise errors.expired(text) from None
    keys = shelf.keys(namespace, after)
    then: dict[Key, Entry] = dict(zip(keys, shelf.entries(keys), strict=True))
    for key, entry in undone.items():
        if entry is None:
            then.pop(key, None)
        elif (not namespace or key[0] == namespace) and (after is None or key > after):
            then[key] = entry
    ordered = sorted(then)
    return _Snapshot(version, ordered, [then[key] for key in ordered])


async def _select(store: Store, resource: Resource, there: _Snapshot, options: ListOptions) -> Page:
    version, keys, entries = there
    found: list[Entry] = []
    at = 0
    async for slice_ in store.bodies(entries):
        for body in slice_:
            at += 1
            if not options.selection.matches(decoding.present_wire(resource, orjson.loads(body))):
                continue
            found.append(entries[at - 1])
            if options.limit and len(found) == options.limit and at < len(entries):
                return Page(found, version, _token(version, keys[at - 1]))
    return Page(found, version)


def _token(version: int, key: Key) -> str:
    raw = orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": f"{key[0]}/{key[1]}\0"})
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def parse_token(token: str) -> tuple[int, Key]:
    """Version and last key. Raises ApiError (400)."""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        found = orjson.loads(raw)
        namespace, slash, name = found["start"].partition("/")
        version = found["rv"]
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        why = (
            "illegal base64 data at input byte 0"
            if isinstance(error, binascii.Error)
            else "incomplete"
        )
        raise _bad_token(why) from None
    if not slash or not name or not isinstance(version, int) or version < -1:
        raise _bad_token("incomplete")
    return max(version, 0), (namespace, name.rstrip("\0"))


def _bad_token(why: str) -> ApiError:
    return errors.bad_request(f"invalid continue token: continue key is not valid: {why}")
