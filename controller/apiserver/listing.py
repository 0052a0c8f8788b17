"""Lists: whole or in pages, as they are now or as they were at a version."""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass, replace

import orjson

from controller.apiserver import decoding, errors
from controller.apiserver.catalog import Resource
from controller.apiserver.errors import ApiError
from controller.apiserver.selectors import EVERYTHING, Selection
from controller.apiserver.store import Entry, Store

_SLICE = 500
"""Objects matched between two breaths of the event loop."""
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter."
)
Key = tuple[str, str]


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
    """A list's answer: stored objects, the version they are of, and how to go on."""

    entries: list[Entry]
    version: int
    token: str = ""
    remaining: int | None = None


async def list_page(store: Store, resource: Resource, options: ListOptions) -> Page:
    """Raises ApiError: 410 where history does not reach back, 504 for a version to come."""
    version, after = _start(store, options)
    keys, entries = await _snapshot(store, resource, options.namespace, version, after)
    if (name := _single(resource, options)) is not None:
        found = [entry for key, entry in zip(keys, entries, strict=True) if key[1] == name]
        return await _select(resource, found, keys, version, replace(options, limit=0))
    if not options.selection.everything:
        return await _select(resource, entries, keys, version, options)
    if not options.limit or len(entries) <= options.limit:
        return Page(entries, version)
    token = _token(version, keys[options.limit - 1])
    remaining = len(entries) - options.limit
    return Page(entries[: options.limit], version, token, remaining)


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
) -> tuple[list[Key], list[Entry]]:
    """Keys and entries, in order, as they were at ``version``."""
    shelf = store.shelf(resource.storage)
    if version == store.version:
        keys = shelf.keys(namespace, after)
        return keys, shelf.entries(keys)
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
    return ordered, [then[key] for key in ordered]


async def _select(
    resource: Resource, entries: list[Entry], keys: list[Key], version: int, options: ListOptions
) -> Page:
    found: list[Entry] = []
    for at, entry in enumerate(entries):
        if at % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)
        wire = decoding.present_wire(resource, entry.object())
        if not options.selection.matches(wire):
            continue
        found.append(entry)
        if options.limit and len(found) == options.limit and at + 1 < len(entries):
            return Page(found, version, _token(version, keys[at]))
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
