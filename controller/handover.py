"""What the working parts do when the ring gives this replica objects, or takes them away."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from controller.keys import Key
from controller.queue.lane import Priority
from controller.queue.queue import Queues
from controller.reconcile.reconciler import Reconciler
from controller.sharding.arcs import NOTHING, Arcs
from controller.watch.store import ObjectStore

log = logging.getLogger(__name__)


class Memory(Protocol):
    """What remembers things of objects by their uids; workflow.runner.FlowEngine has it."""

    def forget(self, concerned: Callable[[str], bool]) -> None: ...


@dataclass
class HandOver:
    """Implements sharding.base.Follower. ``freshen``: bring what lies in these arcs up to date;
    ``release``: it is no longer needed."""

    store: ObjectStore
    queues: Queues
    reconcilers: Mapping[str, Reconciler]
    freshen: Callable[[Arcs], Awaitable[object]]
    release: Callable[[Arcs], None]
    memories: Iterable[Memory] = ()
    late: set[str] = field(default_factory=set)
    """Uids whose commands were given up while they were on their way."""
    _held: Arcs = field(default=NOTHING, init=False)

    async def gain(self, arcs: Arcs, generation: int) -> None:
        self._held |= arcs
        self.store.hold(self._held)
        await self.freshen(arcs)

    def serve(self, arcs: Arcs) -> None:
        for key in self.keys(arcs):
            self.queues.add(key, Priority.RESYNC)

    async def drain(self, arcs: Arcs, grace: float) -> bool:
        await self.queues.drain(lambda key: self._concerns(key, arcs), grace)
        for memory in (*self.memories, *self.reconcilers.values()):
            memory.forget(arcs.covers)
        late = set(filter(arcs.covers, self.late))
        self.late -= late
        self._held -= arcs
        self.store.hold(self._held)
        self.release(arcs)
        return not late

    def keys(self, arcs: Arcs) -> Iterator[Key]:
        """All objects that lie in ``arcs``."""
        for kind in self.reconcilers:
            for key in self.store.keys(kind):
                entry = self.store.entry(key)
                if entry is not None and entry.place in arcs:
                    yield key

    def admits(self, key: Key, owns: Callable[[str], bool]) -> bool:
        """The door of the queue. An object that is gone is let in: there is only to forget it."""
        entry = self.store.entry(key)
        reconciler = self.reconcilers.get(key.kind)
        watched = reconciler is not None and reconciler.observes
        return entry is None or watched or owns(entry.uid)

    def _concerns(self, key: Key, arcs: Arcs) -> bool:
        """Is it, or what is being worked on under its name, in ``arcs``? If nothing is known of
        it, it may be."""
        entry, working = self.store.entry(key), self.reconcilers[key.kind].working.get(key)
        uids = [uid for uid in (entry.uid if entry else None, working) if uid]
        return not uids or any(map(arcs.covers, uids))
