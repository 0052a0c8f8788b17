"""Who is to serve which slot of the ring. Pure arithmetic.

The ring is cut into ``SLOTS`` equal slots, and a slot is served whole by one member; when the
members change, slots change hands. (Strategy 3 of the Dynamo paper, DeCandia et al. 2007, section
6.2: equal-sized partitions, Q/S of them for each of S nodes; the bound on loads is that of
Mirrokni, Thorup and Zadimoghaddam 2016, at its tightest.) Why this and not virtual nodes:

- *Balance.* Each member has ⌊Q/N⌋ or ⌈Q/N⌉ slots. With Q = 160 none of 1 to 20 members is more
  than 10 % off its fair share (18 members: 8 or 9 slots for 8.9). A member with v random virtual
  nodes is off by about 1/√v: 15 % at three standard deviations takes 400 arcs each.
- *Few arcs.* Whatever happened before, a member with n slots has at most min(n, Q-n+1) arcs:
  never more than 80, which make 6.0 KB of ``shardSelector``, 7.6 KB URL-encoded. That holds by
  construction; nothing has to be compacted, which would move keys for no gain in balance. In
  practice neighbouring slots are preferred, so that there are far fewer.
- *Movement.* The table before is an input, so the least that balance needs is moved: from members
  that have more than their quota to those that have less. A leaving member's slots, and nothing
  else, change hands; a joining one gets ⌊Q/(N+1)⌋ or ⌈Q/(N+1)⌉ slots, and nothing else moves.
  A hash of the members alone would have to move more, as it cannot know what was before.

The price is that the table is state: it is in the ring object, changed by compare-and-swap.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from controller.sharding.arcs import SPACE, Arcs

SLOTS = 160
NOBODY = ""
EMPTY = (NOBODY,) * SLOTS
MOST_MEMBERS = SLOTS

Table = tuple[str, ...]
"""For each slot a member's name, or NOBODY."""


# A ring at rest is looked at every second; the same table has the same arcs.
@functools.lru_cache(64)
def arcs_of(slots: frozenset[int]) -> Arcs:
    return Arcs.of((SPACE * slot // SLOTS, SPACE * (slot + 1) // SLOTS) for slot in slots)


@functools.lru_cache(64)
def slots_of(table: Table, member: str) -> frozenset[int]:
    return frozenset(slot for slot, owner in enumerate(table) if owner == member)


def rebalance(table: Table, members: Collection[str]) -> Table:
    """The table for these members, moving as little as possible. Deterministic."""
    if not members:
        return EMPTY
    quota = quotas(table, members)
    owners = [owner if owner in quota else NOBODY for owner in table]
    spare = Counter(owners)  # how many slots each can give
    spare.subtract(quota)
    while wanting := [member for member in sorted(quota) if spare[member] < 0]:
        receiver = min(wanting, key=spare.__getitem__)
        # One receiver is served to the end, with slots side by side as far as they go.
        slot = SLOTS
        for _ in range(-spare[receiver]):
            slot = slot + 1 if _gives(owners, spare, slot + 1) else _best(owners, spare, receiver)
            spare[owners[slot]] -= 1
            owners[slot] = receiver
        spare[receiver] = 0
    return tuple(owners)


def quotas(table: Table, members: Collection[str]) -> Mapping[str, int]:
    """How many slots each is to have. The larger share goes to who has most now: that moves
    least."""
    low, more = divmod(SLOTS, len(members))
    loads = Counter(table)
    ordered = sorted(members, key=lambda member: (-loads[member], member))
    return {member: low + (index < more) for index, member in enumerate(ordered)}


def _gives(owners: Sequence[str], spare: Mapping[str, int], slot: int) -> bool:
    return slot < SLOTS and spare[owners[slot]] > 0


def _best(owners: Sequence[str], spare: Mapping[str, int], receiver: str) -> int:
    """The slot to take: one beside the receiver's own, at the edge of what its owner has."""

    def cost(slot: int) -> tuple[int, int]:
        beside = (owners[slot - 1] if slot else None, owners[slot + 1] if slot < last else None)
        torn = sum(owner == owners[slot] for owner in beside)
        return torn - sum(owner == receiver for owner in beside), slot

    last = len(owners) - 1
    return min((slot for slot in range(SLOTS) if _gives(owners, spare, slot)), key=cost)
