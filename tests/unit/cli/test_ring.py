"""``kumulus ring``: what people see of the ring."""

from __future__ import annotations

from typing import Any

from controller.cli.ring import arcs, lines, table
from controller.sharding.journal import Note
from controller.sharding.leases import NOTE
from controller.sharding.ring import Ring


def lease(name: str, note: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": {NOTE: note}}, "spec": {}}


def test_members_their_arcs_and_what_is_on_its_way() -> None:
    ring = Ring(4).joined("a").joined("b")  # a has not given anything up yet
    note = Note(generation=6, keys=12, handovers=3, last=0.25, longest=1.5).model_dump_json()
    a, b = lines(ring, {"a": lease("a", note), "b": lease("b", "not JSON")})
    assert (a.name, a.note.keys, a.serves.share) == ("a", 12, 0.5)
    assert arcs(a) == ["8000-end", "-0000-8000"]
    assert arcs(b) == ["+0000-8000"] and b.note == Note()
    shown = table([a, b])
    cells = [[str(cell) for cell in column.cells] for column in shown.columns]
    assert [row[0] for row in cells] == ["a", "50.0%", "1", "12", "6", "3", "0.25s", "1.50s"]


def test_a_member_without_a_lease_is_shown() -> None:
    (only,) = lines(Ring(1).joined("a"), {})
    assert arcs(only) == ["0000-end"] and only.note.generation == 0
