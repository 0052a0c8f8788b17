"""Whom a change of an object concerns: whose keys it wakes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from controller.keys import Key
from controller.reconcile.actuator import Actuator
from controller.watch.changed import Changed
from controller.watch.store import ObjectStore

log = logging.getLogger(__name__)

CROWD = 8
"""What more objects than this refer to is not woken by each one of them that changes."""
CROWD_DELAY = 0.25
"""Seconds in which the changes of a crowd are collected."""


class Wakeable(Protocol):
    """The part of queue.queue.Queues that is needed here."""

    def add(self, key: Key) -> None: ...
    def add_after(self, key: Key, delay: float) -> None: ...


class Waker:
    """A listener of the store. Wakes the object itself (unless its own status was written), those
    that refer to it, its owners, what the actuators' ``watches`` say, and the parents being
    deleted that wait for it."""

    def __init__(
        self, store: ObjectStore, queues: Wakeable, actuators: Mapping[str, Actuator[Any]]
    ) -> None:
        self._store = store
        self._queues = queues
        self._watchers: dict[str, list[Callable[..., Iterable[Key]]]] = {}
        for actuator in actuators.values():
            for kind, keys in type(actuator).watches.items():
                self._watchers.setdefault(kind, []).append(keys)

    def __call__(self, changed: Changed) -> None:
        if not changed.own or changed.new is None:
            self._queues.add(changed.key)
        if changed.loud:
            for key in (*self._store.dependents(changed.key), *changed.owners):
                self._queues.add(key)
        for key in self._watching(changed):
            self._wake_shared(key)
        far = changed.moved or changed.freed
        for target in changed.targets:
            # Who no longer uses something, or is protected no more, may have blocked the deletion
            # of what is above that.
            for key in self._store.line(target) if far else (target,):
                if self._store.deleting(key):
                    self._wake_shared(key)

    def _wake_shared(self, key: Key) -> None:
        if len(self._store.dependents(key)) > CROWD:
            self._queues.add_after(key, CROWD_DELAY)
        else:
            self._queues.add(key)

    def _watching(self, changed: Changed) -> Iterator[Key]:
        """What ``watches`` name."""
        for keys in self._watchers.get(changed.key.kind, ()) if changed.news else ():
            try:
                yield from dict.fromkeys(keys(changed, self._store))
            except Exception:
                log.exception("watches failed", extra={"key": str(changed.key)})
