"""Rows: what people see of an object."""

from __future__ import annotations

from typing import Any

from controller.up.view import row


def wire(**status: Any) -> dict[str, Any]:
    return {
        "kind": "Host",
        "metadata": {"name": "host-1", "generation": 2},
        "status": status,
    }


def condition(kind: str, status: str = "True", generation: int = 2, **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "observedGeneration": generation, **more}


def test_ready_for_this_generation() -> None:
    seen = row(wire(state="Enabled", status="Connected", conditions=[condition("Ready")]))
    assert (seen.ready, seen.state, seen.note) == (True, "Enabled, Connected", "")


def test_ready_for_an_older_generation_is_not_ready() -> None:
    assert not row(wire(conditions=[condition("Ready", generation=1)])).ready


def test_what_is_being_deleted_is_not_ready() -> None:
    deleting = wire(conditions=[condition("Ready")])
    deleting["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    seen = row(deleting)
    assert (seen.ready, seen.deleting, seen.state) == (False, True, "Deleting")


def test_note_prefers_the_message_then_the_step_then_the_reason() -> None:
    waiting = condition("Ready", "False", reason="Waiting", message="Image debian is not there")
    assert row(wire(conditions=[waiting])).note == "Image debian is not there"
    silent = condition("Ready", "False", reason="Creating")
    assert row(wire(conditions=[silent], workflow={"progress": "step 3 of 9"})).note == (
        "step 3 of 9"
    )
    assert row(wire(conditions=[silent])).note == "Creating"


def test_an_object_without_status() -> None:
    seen = row({"kind": "Zone", "metadata": {"name": "zone-1"}})
    assert (seen.ready, seen.stalled, seen.note) == (False, False, "not looked at yet")
    assert seen.title == "Zone/zone-1"
