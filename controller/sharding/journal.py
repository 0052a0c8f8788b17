"""What a member says of itself: metrics, and a note on its Lease that ``kumulus ring`` shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from controller import metrics
from controller.sharding.arcs import NOTHING, Arcs
from controller.sharding.leases import NOTE
from controller.sharding.ring import Ring

COUNT_EVERY = 10.0
"""Seconds: counting keys means to look at each of them."""


class Note(BaseModel):
    """On the Lease. ``generation``: of the ring, as this member follows it. ``keys``: objects that
    it owns. Seconds of hand-overs: of the last one, and of the longest."""

    generation: int = 0
    arcs: int = 0
    keys: int = 0
    handovers: int = 0
    last: float = 0.0
    longest: float = 0.0
    lapses: int = 0


def read_note(lease: Mapping[str, Any]) -> Note:
    """An empty one if there is none that can be read."""
    text = (lease["metadata"].get("annotations") or {}).get(NOTE) or "{}"
    with contextlib.suppress(ValidationError):
        return Note.model_validate_json(text)
    return Note()


@dataclass
class Journal:
    """``keys``: how many objects lie in these arcs. ``monotonic``: seconds."""

    monotonic: Callable[[], float]
    keys: Callable[[Arcs], int] = lambda _: 0
    note: Note = field(default_factory=Note, init=False)
    _awaited: Arcs = field(default=NOTHING, init=False)
    _since: float = field(default=0.0, init=False)
    _counted: tuple[Arcs, float] = field(default=(NOTHING, float("-inf")), init=False)

    def written(self, ring: Ring, serving: Arcs) -> str:
        """The note as it is now, as JSON."""
        now = self.monotonic()
        if self._counted[0] != serving or now - self._counted[1] > COUNT_EVERY:
            self._counted = serving, now
            self.note.keys = self.keys(serving) if serving else 0
        self.note.generation, self.note.arcs = ring.generation, len(serving.ranges)
        metrics.RING_GENERATION.set(ring.generation)
        metrics.RING_MEMBERS.set(len(ring.members))
        metrics.RING_ARCS.set(self.note.arcs)
        metrics.RING_SHARE.set(serving.share)
        metrics.RING_KEYS.set(self.note.keys)
        return self.note.model_dump_json()

    def expect(self, awaited: Arcs) -> None:
        """These are to come, and another still holds them."""
        if awaited and not self._awaited:
            self._since = self.monotonic()
        self._awaited = awaited

    def gained(self, arcs: Arcs, began: float) -> None:
        """``began``: monotonic, when the ring said that they are ours."""
        seconds = self.monotonic() - min(began, self._since if arcs & self._awaited else began)
        self._awaited = NOTHING
        self._record("gain", seconds)

    def drained(self, seconds: float) -> None:
        self._record("drain", seconds)

    def took_over(self, silence: float) -> None:
        """``silence``: seconds since the dead member's last sign of life."""
        self._record("takeover", silence)

    def lapsed(self) -> None:
        metrics.RING_LAPSES.inc()
        metrics.RING_SHARE.set(0)
        self.note.lapses += 1

    def _record(self, what: str, seconds: float) -> None:
        metrics.RING_HANDOVER_SECONDS.labels(what).observe(seconds)
        self.note.handovers += 1
        self.note.last = round(seconds, 3)
        self.note.longest = max(self.note.longest, self.note.last)


def newest_generation(leases: Mapping[str, Mapping[str, Any]]) -> int:
    """That any member has followed; 0 if none has."""
    return max((read_note(lease).generation for lease in leases.values()), default=0)
