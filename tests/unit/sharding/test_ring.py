"""The ring object's content: every sequence of changes keeps one holder for each slot."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.sharding.ring import BadRing, Ring, dump, load
from controller.sharding.table import NOBODY, SLOTS, rebalance, slots_of

names = st.sampled_from([f"m{n}" for n in range(8)])


class Changes(RuleBasedStateMachine):
    """Any change in any order; each slot may pass only from who gave it up or was expelled."""

    @initialize(unsettled=st.sets(names, max_size=3))
    def begin(self, unsettled: set[str]) -> None:
        self.ring = Ring(7, unsettled=frozenset(unsettled))

    def change(self, new: Ring, may_lose: set[str]) -> None:
        old = self.ring
        assert new.generation == old.generation + 1
        for slot in range(SLOTS):
            if old.holders[slot] != new.holders[slot]:
                assert old.holders[slot] in may_lose | {NOBODY}
                assert new.holders[slot] in (new.wanted[slot], NOBODY)
        assert old.fence <= new.fence <= new.generation
        self.ring = load(dump(new))
        assert self.ring == new

    @rule(name=names)
    def join(self, name: str) -> None:
        again = name in self.ring.members or name in self.ring.unsettled
        self.change(self.ring.joined(name), set())
        assert again == (self.ring.fence == self.ring.generation)

    @rule(name=names)
    def leave(self, name: str) -> None:
        self.change(self.ring.without([name], forced=False), {name})

    @rule(gone=st.sets(names, min_size=1, max_size=3))
    def expel(self, gone: set[str]) -> None:
        self.change(self.ring.without(gone, forced=True), gone)
        assert self.ring.fence == self.ring.generation

    @rule(name=names, forced=st.booleans())
    def release(self, name: str, forced: bool) -> None:
        kept = self.ring.serving(name)
        self.change(self.ring.released(name, forced=forced), {name})
        assert not forced or self.ring.fence == self.ring.generation
        assert self.ring.serving(name) >= kept
        assert not self.ring.outgoing(name)

    @rule()
    @precondition(lambda self: not self.ring.unsettled and self.ring.members)
    def all_release(self) -> None:
        """Once everybody has given up what it must, everybody has what it is to have."""
        for name in self.ring.members:
            self.release(name, False)
        assert self.ring.holders == self.ring.wanted

    @invariant()
    def sane(self) -> None:
        ring = self.ring
        known = {*ring.members, NOBODY}
        assert set(ring.holders) <= known and set(ring.wanted) <= known
        assert not set(ring.members) & ring.unsettled
        served = [slot for name in ring.members for slot in ring.serving(name)]
        assert len(served) == len(set(served))
        if ring.members:
            assert rebalance(ring.wanted, ring.members) == ring.wanted
        if ring.unsettled:
            assert not served
        else:
            # A slot that nobody holds would never be served.
            assert not slots_of(ring.holders, NOBODY) or not ring.members
        for name in ring.members:
            assert not ring.awaited(name) & ring.serving(name)


Changes.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestChanges = Changes.TestCase


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", None, '{"generation": 1}', dump(Ring(1)).replace("-1", "3", 1),
     dump(Ring(1)).replace("-1,", "", 1)],
)  # fmt: skip
def test_what_cannot_be_read_says_what_to_do(text: str | None) -> None:
    with pytest.raises(BadRing, match="delete it and it is made anew"):
        load(text)
