"""Other objects for the judge, from the controller's local store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson

from controller.apiserver.admission import Object
from controller.client import Resource
from controller.errors import KumulusError
from controller.keys import Key
from controller.rights import Right
from crds.base import GROUP

PARSED_AT_ONCE = 256
"""Objects of a list that are parsed before others get their turn: about 5 ms."""


NAMESPACE_SECONDS = 1.0
_NAMESPACES = Resource("", "v1", "namespaces", False)
RIGHTS = (Right("", _NAMESPACES.plural, ("get",), feature="admission"),)

Core = Callable[[str, str, str], Awaitable[Object | None]]
"""Reads an object of a core kind: kind, namespace, name."""


class NotSynced(Exception):
    """The store is not filled yet: what is not in it may exist all the same."""


class Cache(Protocol):
    """The part of watch.store.ObjectStore that is needed here."""

    def entry(self, key: Key) -> Any:
        """Its ``raw`` is the object as JSON; None if there is none."""

    def keys(self, kind: str, namespace: str | None = None) -> Sequence[Key]: ...


class LocalLookup:
    """An ``admission.Lookup`` for one review. The store is behind the API server by what the watch
    takes; ``asked`` has the kinds that were read, so that a refusal can be checked again.

    Core kinds are not in the store: ``core`` reads one from the API.
    """

    def __init__(
        self,
        cache: Cache,
        synced: Callable[[], bool],
        core: Core,
    ) -> None:
        self._cache = cache
        self._synced = synced
        self._core = core
        self.asked: set[str] = set()

    async def get(self, group: str, kind: str, namespace: str, name: str) -> Object | None:
        """Raises NotSynced."""
        if not group:
            return await self._core(kind, namespace, name)
        self._ask(kind)
        return self._object(Key(kind, namespace, name)) if group == GROUP else None

    async def list(self, group: str, kind: str, namespace: str = "") -> Sequence[Object]:
        """Raises NotSynced."""
        self._ask(kind)
        found: list[Object] = []
        keys = self._cache.keys(kind, namespace or None) if group == GROUP else ()
        for i, key in enumerate(keys, 1):
            obj = self._object(key)  # it may have gone while others had their turn
            if obj is not None:
                found.append(obj)
            if i % PARSED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return found

    def _ask(self, kind: str) -> None:
        if not self._synced():
            raise NotSynced
        self.asked.add(kind)

    def _object(self, key: Key) -> Object | None:
        entry = self._cache.entry(key)
        if entry is None:
            return None
        found: Object = orjson.loads(entry.raw)
        return found


class Reader(Protocol):
    """The part of client.Api that is needed here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]: ...


def namespaces(api: Reader) -> Core:
    """Reads namespaces, the only core kind that is asked for: is one being deleted? None, too, if
    the API server does not say in time."""

    async def read(kind: str, _: str, name: str) -> Object | None:
        try:
            async with asyncio.timeout(NAMESPACE_SECONDS):
                return await api.get(_NAMESPACES, "", name) if kind == "Namespace" else None
        except (KumulusError, TimeoutError):
            return None

    return read
