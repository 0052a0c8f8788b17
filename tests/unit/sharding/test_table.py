"""The division of the ring: balance, movement and size, whatever happened before."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.sharding.arcs import EVERYTHING, NOTHING
from controller.sharding.table import (
    EMPTY,
    NOBODY,
    SLOTS,
    Table,
    arcs_of,
    rebalance,
    slots_of,
)

MOST = 20
names = st.sampled_from([f"replica-{n}" for n in range(MOST)])
histories = st.lists(st.tuples(names, st.booleans()), min_size=1, max_size=40)


def moved(before: Table, after: Table) -> set[int]:
    return {slot for slot in range(SLOTS) if before[slot] != after[slot]}


@settings(max_examples=60, deadline=None)
@given(histories)
def test_every_history(history: list[tuple[str, bool]]) -> None:
    """Joins and leaves at random: after each of them all that is promised holds."""
    table, members = EMPTY, set[str]()
    for name, joins in history:
        before, was = table, set(members)
        members = was | {name} if joins else was - {name}
        members = members or {name}
        table = rebalance(before, members)
        check_division(table, members)
        check_movement(before, was, table, members)


def check_division(table: Table, members: set[str]) -> None:
    fair = SLOTS / len(members)
    whole = NOTHING
    for member in members:
        arcs = arcs_of(slots_of(table, member))
        assert abs(arcs.share * SLOTS - fair) / fair <= 0.15
        assert len(arcs.selector()) <= 8_000
        assert len(urlencode({"shardSelector": arcs.selector()})) <= 8_000
        assert not whole & arcs
        whole |= arcs
    assert whole == EVERYTHING
    assert set(table) == members


def check_movement(before: Table, was: set[str], after: Table, now: set[str]) -> None:
    """The least: a leaver's slots, or what a joiner gets; nothing between survivors."""
    changed = moved(before, after)
    if was == now:
        assert not changed
    elif now < was:
        assert all(before[slot] not in now for slot in changed)
    elif was:
        assert all(after[slot] not in was for slot in changed)
        assert len(changed) <= SLOTS / len(now) + 1


@given(st.sets(names, min_size=1), st.sets(names, min_size=1), st.randoms())
@settings(max_examples=60, deadline=None)
def test_several_at_once_move_no_more_than_balance_needs(
    was: set[str], now: set[str], random: object
) -> None:
    before = rebalance(EMPTY, was)
    after = rebalance(before, now)
    check_division(after, now)
    loads = Counter(owner for owner in before if owner in now)
    orphans = SLOTS - loads.total()
    low, more = divmod(SLOTS, len(now))
    # However the larger shares are given out, so many must give some up.
    surplus = sum(max(0, load - low) for load in loads.values())
    larger = sum(load > low for load in loads.values())
    assert len(moved(before, after)) == orphans + max(0, surplus - min(more, larger))


def test_the_worst_that_can_be_fits_one_request() -> None:
    """Every other slot: no set of slots has more arcs."""
    arcs = arcs_of(frozenset(range(0, SLOTS, 2)))
    assert len(arcs.ranges) == SLOTS // 2
    assert len(arcs.selector()) <= 8_000
    assert len(urlencode({"shardSelector": arcs.selector()})) <= 8_000


def test_neighbours_are_preferred() -> None:
    table, most = EMPTY, 0
    for count in range(1, MOST + 1):
        table = rebalance(table, [f"replica-{n}" for n in range(count)])
        most = max(most, *(len(arcs_of(slots_of(table, name)).ranges) for name in set(table)))
    assert most <= 10


def test_nobody_is_left() -> None:
    assert rebalance(rebalance(EMPTY, ["a"]), []) == EMPTY
    assert set(EMPTY) == {NOBODY}
