"""Watches: what each watcher sees of the changes of one resource."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from controller.apiserver import decoding, errors
from controller.apiserver.catalog import Resource
from controller.apiserver.errors import ApiError
from controller.apiserver.selectors import EVERYTHING, Selection
from controller.apiserver.store import Change, ChangeType, Entry, Forgotten, Store, Subscription

Wire = dict[str, Any]
Render = Callable[[Wire], Wire]
"""Turns an object into what the client asked for (a table, its metadata)."""

Outlet = Callable[[bytes], bool]
"""Sends a chunk at once; whether it can take more."""

BOOKMARK_SECONDS = 30.0
_TOO_SLOW = "too old resource version: the watcher was too slow"
_INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class WatchOptions:
    """What a watch is asked for.

    ``version``: None or 0: from now; else go on from there. ``initial``: what exists comes first,
    as ADDED; with ``initial_end`` a bookmark marks its end. ``seconds``: 0 for the server's choice.
    """

    namespace: str = ""
    selection: Selection = EVERYTHING
    version: int | None = None
    initial: bool = False
    initial_end: bool = False
    bookmarks: bool = False
    seconds: float = 0.0


class Watch:
    """One watch. Iterate over ``lines``: chunks of JSON lines, ready to be sent.

    With an ``outlet``, changes go there while ``lines`` waits for more; an empty chunk then says
    that the outlet is behind.
    """

    def __init__(
        self, store: Store, resource: Resource, options: WatchOptions, render: Render | None
    ) -> None:
        self._store = store
        self._resource = resource
        self._options = options
        self._render = render
        self.outlet: Outlet | None = None
        self._version = 0
        self._failure: Exception | None = None
        # Watchers that want the whole object share the line; so they need one name for it.
        self._shared = (resource.api_version, "") if render is None else None

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Ends after ``seconds``, when the server stops, or after an ERROR line (410)."""
        seconds = self._options.seconds or random.uniform(1800, 3600)  # noqa: S311
        deadline = time.monotonic() + seconds
        subscription: Subscription | None = None
        try:
            async for chunk, subscription in self._start():  # noqa: B007
                if chunk:
                    yield chunk
            if subscription is not None:
                async for chunk in self._follow(subscription, deadline):
                    yield chunk
        except Forgotten:
            yield self._error(errors.expired(_TOO_SLOW))
        finally:
            if subscription is not None:
                self._store.unsubscribe(self._resource.storage, subscription)

    async def _start(self) -> AsyncIterator[tuple[bytes, Subscription | None]]:
        options, store = self._options, self._store
        version = options.version
        if version is not None and version > store.version:
            yield self._error(errors.too_large_version(version, store.version)), None
            return
        if options.initial or not version:
            # No await between these: what exists and what follows must meet without a gap.
            subscription = store.subscribe(self._resource.storage)
            self._version = store.version
            shelf = store.shelf(self._resource.storage)
            entries = shelf.entries(shelf.keys(options.namespace)) if options.initial else []
            yield b"", subscription
            async for chunk in self._existing(entries):
                yield chunk, subscription
            return
        async for piece in self._resume(version):
            yield piece

    async def _resume(self, version: int) -> AsyncIterator[tuple[bytes, Subscription | None]]:
        self._version = version
        try:
            async for changes, subscription in self._store.resume(self._resource.storage, version):
                yield self._changes(changes), subscription
                if subscription is not None:
                    self._version = max(self._version, self._store.version)
        except KeyError:
            yield self._error(errors.too_old(version, self._store.floor)), None

    async def _existing(self, entries: list[Entry]) -> AsyncIterator[bytes]:
        async for slice_ in self._store.bodies(entries):
            yield b"".join(map(self._existing_line, slice_))
            await asyncio.sleep(0)
        if self._options.initial_end:
            yield self._bookmark(initial_end=True)

    def _existing_line(self, body: bytes) -> bytes:
        if self._render is None and self._options.selection.everything:
            return _line(b"ADDED", decoding.present(self._resource, body))
        wire = decoding.present_wire(self._resource, orjson.loads(body))
        return self._wire_line(b"ADDED", wire) if self._options.selection.matches(wire) else b""

    async def _follow(self, subscription: Subscription, deadline: float) -> AsyncIterator[bytes]:
        next_bookmark = time.monotonic() + BOOKMARK_SECONDS
        while not subscription.closed:
            now = time.monotonic()
            if now >= deadline:
                break
            behind = await self._wait(subscription, min(deadline, next_bookmark) - now)
            changes = subscription.take()
            if subscription.overflowed:
                yield self._error(errors.expired(_TOO_SLOW))
                return
            if changes:
                chunk = self._changes(changes)
                if chunk:
                    yield chunk
            elif behind:
                yield b""
            elif self._options.bookmarks and time.monotonic() >= next_bookmark:
                self._version = max(self._version, self._store.version)
                yield self._bookmark()
            if time.monotonic() >= next_bookmark:
                next_bookmark = time.monotonic() + BOOKMARK_SECONDS
        if self._options.bookmarks and not subscription.closed:
            yield self._bookmark()

    async def _wait(self, subscription: Subscription, seconds: float) -> bool:
        """Until there is something to do here. Whether that is to wait for the outlet."""
        outlet, behind = self.outlet, False

        def send(changes: list[Change]) -> None:
            nonlocal behind
            try:
                chunk = self._changes(changes)
                behind = bool(chunk) and outlet is not None and not outlet(chunk)
            except Exception as error:
                self._failure = error
            if behind or self._failure is not None:
                subscription.sink = None
                subscription.wake()

        subscription.sink = send if outlet is not None else None
        try:
            await subscription.wait(seconds)
        finally:
            subscription.sink = None
        if self._failure is not None:
            raise self._failure
        return behind

    # Lines

    def _changes(self, changes: list[Change]) -> bytes:
        found = []
        for change in changes:
            if change.version <= self._version:
                continue
            self._version = max(self._version, change.version)
            if self._options.namespace and change.key.namespace != self._options.namespace:
                continue
            found.append(self._change_line(change))
        return b"".join(found)

    def _change_line(self, change: Change) -> bytes:
        if self._options.selection.everything:
            if self._shared is not None:
                return self._shared_line(change)
            return self._wire_line(change.type.name.encode(), self._present(change.object))
        return self._selected_line(change)

    def _shared_line(self, change: Change) -> bytes:
        """What all watchers see that want the whole object: made once."""
        line = change.lines.get(self._shared)
        if line is None:
            body = decoding.present(self._resource, change.entry.body)
            line = change.lines[self._shared] = _line(change.type.name.encode(), body)
        return line

    def _selected_line(self, change: Change) -> bytes:
        """A change as seen through a selector: objects come into it and leave it."""
        matches = self._options.selection.matches
        new = self._present(change.object)
        old = self._present(change.old) if change.old is not None else None
        was = old is not None and matches(old)
        now = change.type is not ChangeType.DELETED and matches(new)
        if now:
            if was == (change.type is ChangeType.MODIFIED) and self._shared is not None:
                return self._shared_line(change)
            return self._wire_line(b"MODIFIED" if was else b"ADDED", new)
        if not was:
            return b""
        if change.type is ChangeType.DELETED:
            return self._wire_line(b"DELETED", new)
        assert old is not None
        metadata = {**old["metadata"], "resourceVersion": str(change.version)}
        return self._wire_line(b"DELETED", {**old, "metadata": metadata})

    def _present(self, wire: Wire) -> Wire:
        return decoding.present_wire(self._resource, dict(wire))

    def _wire_line(self, type_: bytes, wire: Wire) -> bytes:
        return _line(type_, orjson.dumps(self._render(wire) if self._render else wire))

    def _bookmark(self, *, initial_end: bool = False) -> bytes:
        metadata: Wire = {"resourceVersion": str(self._version)}
        if initial_end:
            metadata["annotations"] = {_INITIAL_END: "true"}
        wire: Wire = {
            "apiVersion": self._resource.api_version,
            "kind": self._resource.kind,
            "metadata": metadata,
        }
        return _line(b"BOOKMARK", orjson.dumps(self._render(wire) if self._render else wire))

    @staticmethod
    def _error(error: ApiError) -> bytes:
        return _line(b"ERROR", orjson.dumps(error.status()))


def _line(type_: bytes, body: bytes) -> bytes:
    return b'{"type":"' + type_ + b'","object":' + body + b"}\n"
