"""Generated families of owners and dependents, and one deletion in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.integration.apiserver.differential.requests import wire

POLICIES = ("Background", "Foreground", "Orphan", "")
HOLD = "example.com/hold"
Edge = tuple[int, bool]
"""The owner's number, or -1 for one that is not there; and whether it waits for its dependent."""


@dataclass(frozen=True)
class Member:
    """One object. ``held``: by a finalizer of its own."""

    owners: tuple[Edge, ...] = ()
    held: bool = False


@dataclass(frozen=True)
class Family:
    """Objects, each owned by some before it; ``deleted`` is deleted as ``policy`` says. ``let_go``:
    then the finalizers are taken away."""

    members: tuple[Member, ...]
    deleted: int
    policy: str
    let_go: bool

    def name(self, family: int, member: int) -> str:
        return f"f{family}-{member}"

    def body(self, family: int, member: int, uids: dict[str, str]) -> dict[str, Any]:
        """``uids`` are those of the members before it."""
        found = self.members[member]
        references = [
            {
                "apiVersion": "conformance.kumulus.dev/v1", "kind": "Widget",
                "name": self.name(family, owner) if owner >= 0 else "never",
                "uid": uids.get(self.name(family, owner), "22222222-2222-2222-2222-222222222222"),
                "blockOwnerDeletion": blocks,
            }
            for owner, blocks in found.owners
        ]  # fmt: skip
        metadata = {
            **({"ownerReferences": references} if references else {}),
            **({"finalizers": [HOLD]} if found.held else {}),
        }
        return wire(metadata, {"size": 1}, None, self.name(family, member))


@st.composite
def _members(draw: st.DrawFn) -> tuple[Member, ...]:
    count = draw(st.integers(2, 4))
    found = [Member(held=draw(st.integers(0, 4)) == 0)]
    doomed: set[int] = set()
    for number in range(1, count):
        owners = draw(
            st.lists(
                st.tuples(st.sampled_from([*range(number), number - 1, -1]), st.booleans()),
                min_size=1, max_size=2, unique_by=lambda edge: edge[0],
            )
        )  # fmt: skip
        absent = [edge for edge in owners if edge[0] < 0]  # beside others, see _state
        owners = absent if draw(st.integers(0, 3)) == 0 else [e for e in owners if e[0] >= 0]
        # Whoever has no owner that is there goes: whether its dependents lose it as an owner before
        # another owner leaves them to themselves is chance.
        owners = [edge for edge in owners if edge[0] not in doomed] or owners[:1]
        if all(owner < 0 or owner in doomed for owner, _ in owners) and owners:
            doomed.add(number)
        found.append(Member(tuple(owners), held=draw(st.integers(0, 4)) == 0))
    return tuple(found)


FAMILIES = st.builds(
    Family, _members(), st.integers(0, 1), st.sampled_from(POLICIES), st.booleans()
)
EXTENDED = st.lists(FAMILIES, min_size=12, max_size=12)
"""Many at once, since the collectors take their time."""
