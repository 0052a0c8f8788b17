"""The ring object's content, and every change that may be made to it. Pure.

For each slot it says who is *wanted* to serve it and who *holds* it. Only the holder may work on
what lies there, and only if it is wanted, too. Who holds a slot changes in two ways:

- its holder gives it up, once it has drained it: ``released``, ``without`` itself;
- anybody takes it from a holder whose Lease is over: ``without`` that one.

Each change is one compare-and-swap of the whole object, so that they form one sequence, numbered
by the generation. What a replica may do follows from the last one that it knows and from its own
Lease. ``fence`` is the generation of the last change that took something from a member against
its will: commands of older generations may still be under way somewhere, and the agents are told
to refuse them before anybody serves what was taken.

A ring that was deleted is made anew. Those who may still act under the lost one are *unsettled*:
nobody holds anything until each of them has joined the new ring or its Lease is over.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from controller.errors import Transient
from controller.sharding.table import EMPTY, NOBODY, SLOTS, Table, rebalance, slots_of


class BadRing(Transient):
    """The ring object cannot be read."""

    default_reason = "BadRing"


@dataclass(frozen=True)
class Ring:
    """One state of the ring. ``members`` in order."""

    generation: int
    members: tuple[str, ...] = ()
    wanted: Table = EMPTY
    holders: Table = EMPTY
    unsettled: frozenset[str] = frozenset()
    fence: int = 0

    # -- reading

    def serving(self, member: str) -> frozenset[int]:
        """Slots that it may serve."""
        return slots_of(self.wanted, member) & slots_of(self.holders, member)

    def awaited(self, member: str) -> frozenset[int]:
        """Slots that it is to get and that somebody else still holds."""
        return slots_of(self.wanted, member) - slots_of(self.holders, member)

    def outgoing(self, member: str) -> frozenset[int]:
        """Slots that it holds and is to give up."""
        return slots_of(self.holders, member) - slots_of(self.wanted, member)

    # -- changing

    def joined(self, member: str) -> Ring:
        """With this member. One that is in it already has begun anew: what it did before must not
        count any more."""
        again = member in self.members or member in self.unsettled
        members = tuple(sorted({*self.members, member}))
        unsettled = self.unsettled - {member}
        return self._next(members, unsettled=unsettled, forced=again)

    def without(self, gone: Collection[str], *, forced: bool) -> Ring:
        """Without these, who have drained (``forced`` False) or whose Leases are over."""
        members = tuple(member for member in self.members if member not in gone)
        holders = tuple(NOBODY if holder in gone else holder for holder in self.holders)
        unsettled = self.unsettled - frozenset(gone)
        return replace(self, holders=holders)._next(members, unsettled=unsettled, forced=forced)

    def released(self, member: str, *, forced: bool) -> Ring:
        """``member`` has drained what it is to give up. ``forced``: something may arrive late."""
        given = self.outgoing(member)
        holders = tuple(
            NOBODY if slot in given else holder for slot, holder in enumerate(self.holders)
        )
        return replace(self, holders=holders)._next(
            self.members, unsettled=self.unsettled, forced=forced
        )

    def _next(self, members: tuple[str, ...], *, unsettled: frozenset[str], forced: bool) -> Ring:
        generation = self.generation + 1
        same = members == self.members
        wanted = self.wanted if same else rebalance(self.wanted, members)
        holders = self.holders
        if not unsettled:
            holders = tuple(
                wanted[slot] if holder == NOBODY else holder for slot, holder in enumerate(holders)
            )
        fence = generation if forced else self.fence
        return Ring(generation, members, wanted, holders, unsettled, fence)


class _Wire(BaseModel):
    """As it is kept: members by their numbers, -1 for nobody."""

    model_config = ConfigDict(extra="forbid")

    generation: int
    fence: int
    members: list[str]
    wanted: list[int]
    holders: list[int]
    unsettled: list[str] = []

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(not -1 <= n < len(self.members) for n in (*self.wanted, *self.holders)):
            raise ValueError("a slot belongs to a member that is not there")
        if (len(self.wanted), len(self.holders)) != (SLOTS, SLOTS):
            raise ValueError(f"it must have {SLOTS} slots")
        return self


def dump(ring: Ring) -> str:
    number = {member: index for index, member in enumerate(ring.members)} | {NOBODY: -1}
    wire = {
        "generation": ring.generation,
        "fence": ring.fence,
        "members": ring.members,
        "wanted": [number[name] for name in ring.wanted],
        "holders": [number[name] for name in ring.holders],
        "unsettled": sorted(ring.unsettled),
    }
    return orjson.dumps(wire).decode()


def load(text: Any) -> Ring:
    """Raises BadRing."""
    return _parsed(str(text))


# Mostly the same text as a second ago.
@functools.lru_cache(8)
def _parsed(text: str) -> Ring:
    try:
        wire = _Wire.model_validate_json(text)
    except ValidationError as error:
        why = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise BadRing(
            f"the ring object cannot be read ({why}); delete it and it is made anew"
        ) from None
    names = [*wire.members, NOBODY]
    return Ring(
        wire.generation,
        tuple(wire.members),
        tuple(names[n] for n in wire.wanted),
        tuple(names[n] for n in wire.holders),
        frozenset(wire.unsettled),
        wire.fence,
    )
