"""Positions on the ring, and sets of them. Pure arithmetic.

An object lies where its uid hashes to: FNV-1a of 64 bits over the uid's UTF-8 bytes (Fowler, Noll
and Vo; draft-eastlake-fnv). It is the hash of Kubernetes' server-side sharding (KEP-5866), so a
set of positions can be said to an API server as a ``shardSelector``. It spreads UUIDs evenly; texts
that differ in their last characters only would lie side by side.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

SPACE = 2**64
"""Positions are 0 ≤ p < SPACE."""
_OFFSET, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, SPACE - 1

Range = tuple[int, int]
"""First position, and the one after the last: (0, SPACE) is the whole ring."""


@lru_cache(32_768)
def position(uid: str) -> int:
    """Where a uid lies."""
    value = _OFFSET
    for byte in uid.encode():
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


@dataclass(frozen=True)
class Arcs:
    """A set of positions: ranges in order that neither overlap nor touch. Make it with of()."""

    ranges: tuple[Range, ...] = ()
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", tuple(start for start, _ in self.ranges))

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> Arcs:
        """The union of any ranges. Raises ValueError for one that is not on the ring."""
        merged: list[Range] = []
        for start, end in sorted(ranges):
            if not 0 <= start <= end <= SPACE:
                raise ValueError(f"{start:#x}-{end:#x} is no range of the ring")
            if start == end:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return cls(tuple(merged))

    def __contains__(self, at: int) -> bool:
        index = bisect_right(self._starts, at) - 1
        return index >= 0 and at < self.ranges[index][1]

    def covers(self, uid: str) -> bool:
        return position(uid) in self

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __or__(self, other: Arcs) -> Arcs:
        return Arcs.of((*self.ranges, *other.ranges))

    def __and__(self, other: Arcs) -> Arcs:
        return Arcs.of(
            (max(a, c), min(b, d))
            for a, b in self.ranges
            for c, d in other.ranges
            if max(a, c) < min(b, d)
        )

    def __sub__(self, other: Arcs) -> Arcs:
        return self & Arcs(tuple(_gaps(other.ranges)))

    @property
    def size(self) -> int:
        """How many positions."""
        return sum(end - start for start, end in self.ranges)

    @property
    def share(self) -> float:
        """Of the ring: 0 to 1."""
        return self.size / SPACE

    def selector(self) -> str:
        """As ``shardSelector`` (KEP-5866) says it; "" for nothing, which a server takes for no
        selector at all: who has nothing must not ask."""
        return "||".join(
            f"shardRange(object.metadata.uid,'{start:#018x}','{end:#018x}')"
            for start, end in self.ranges
        )


NOTHING = Arcs()
EVERYTHING = Arcs(((0, SPACE),))


def _gaps(ranges: Iterable[Range]) -> Iterator[Range]:
    last = 0
    for start, end in ranges:
        if last < start:
            yield last, start
        last = end
    if last < SPACE:
        yield last, SPACE
