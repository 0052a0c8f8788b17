"""Objects that have left the view: are they gone, or only somewhere else?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from controller.client import NotFound, Resource
from controller.errors import KumulusError
from controller.keys import Key
from controller.watch.base import Change, Raw, ghost
from controller.watch.store import ObjectStore

log = logging.getLogger(__name__)

READS_AT_ONCE = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0


class Reader(Protocol):
    """The part of client.Api that is needed here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]: ...


@dataclass
class Doubts:
    """Reads what is doubtful and says how it is; until then it stays in the store as it was."""

    api: Reader
    resource: Resource
    store: ObjectStore
    tell: Callable[[Change, Raw], None]
    owned: Callable[[str], bool]
    _open: dict[Key, set[str]] = field(default_factory=dict, init=False)
    _added: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def add(self, key: Key, uid: str) -> None:
        """The object ``key`` with this uid may be gone."""
        self._open.setdefault(key, set()).add(uid)
        self._added.set()

    async def run(self) -> None:
        """For ever."""
        failures = 0
        while True:
            await self._added.wait()
            self._added.clear()
            failures = 0 if await self._settle() else failures + 1
            if failures:
                self._added.set()
                await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10)))

    async def _settle(self) -> bool:
        """Look at all that is open; False if something stays so."""
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def one(key: Key) -> None:
            async with limit:
                try:
                    await self._look(key)
                except KumulusError as error:
                    log.warning("not known whether it is gone",
                                extra={"key": str(key), "why": error.message})  # fmt: skip

        await asyncio.gather(*(one(key) for key in list(self._open)))
        return not self._open

    async def _look(self, key: Key) -> None:
        asked = set(self._open[key])
        try:
            found: dict[str, Any] | None = await self.api.get(
                self.resource, key.namespace, key.name
            )
        except NotFound:
            found = None
        there = found["metadata"]["uid"] if found is not None else None
        for uid in asked - {there}:
            self.tell(Change.GONE, ghost(key, uid))
        if found is not None and self.owned(str(there)):
            self.tell(Change.PRESENT, found)
        elif found is not None and there in asked:
            self.store.forget(key)
        self._close(key, asked)

    def _close(self, key: Key, asked: set[str]) -> None:
        """What was added while the answer was under way stays open."""
        self._open[key] -= asked
        if not self._open[key]:
            del self._open[key]
