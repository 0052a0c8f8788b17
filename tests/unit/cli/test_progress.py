"""Waiting until objects are ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from controller.up.progress import POLL_SECONDS, Lines, explain, wait_ready
from controller.up.view import Row

WAITING = Row("VirtualMachine", "default", "web", "Starting", False, False, False, "R", "is slow")
READY = replace(WAITING, state="Running", ready=True)
STALLED = replace(WAITING, stalled=True, message="no such offering")
ZONE = Row("Zone", "", "zone-1", "Enabled", True, False, False, "Ready", "")


@dataclass
class Clock:
    """Time that passes by sleeping alone."""

    now: float = 0.0
    shown: list[Sequence[Row]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def show(self, rows: Sequence[Row]) -> None:
        self.shown.append(rows)


def wait(
    clock: Clock, look: Callable[[], list[Row]], *wanted: Row, seconds: float = 10
) -> list[Row]:
    keys = {each.key for each in wanted}
    return wait_ready(look, keys, seconds, clock, clock=lambda: clock.now, sleep=clock.sleep)


def test_ends_when_everything_wanted_is_ready() -> None:
    clock = Clock()
    looks = iter([[WAITING, ZONE], [WAITING, ZONE], [READY, ZONE]])
    assert wait(clock, lambda: next(looks), READY, ZONE) == []
    assert clock.now == 2 * POLL_SECONDS
    assert len(clock.shown) == 3


def test_gives_up_after_the_time_and_says_what_is_missing() -> None:
    clock = Clock()
    assert wait(clock, lambda: [WAITING, ZONE], READY, ZONE, seconds=3) == [WAITING]
    assert 3 <= clock.now <= 3 + POLL_SECONDS


def test_what_does_not_exist_is_missing() -> None:
    (missing,) = wait(Clock(), lambda: [ZONE], ZONE, READY, seconds=1)
    assert (missing.key, missing.note) == (READY.key, "does not exist")


def test_does_not_wait_for_what_waiting_cannot_help() -> None:
    clock = Clock()
    assert wait(clock, lambda: [STALLED, ZONE], READY, ZONE) == [STALLED]
    assert clock.now == 0


def test_others_objects_do_not_count() -> None:
    other = replace(WAITING, name="other")
    assert wait(Clock(), lambda: [READY, other], READY) == []


def test_lines_tell_changes_only() -> None:
    written: list[str] = []
    lines = Lines(written.append)
    for rows in ([WAITING, ZONE], [WAITING, ZONE], [READY, ZONE]):
        lines.show(rows)
    assert written == [
        "waits  VirtualMachine/default/web  Starting  is slow",
        "ready  Zone/zone-1  Enabled",
        "ready  VirtualMachine/default/web  Running",
    ]


def test_explanation_starts_with_the_cause() -> None:
    waits = replace(WAITING, kind="Aaa")
    assert explain([waits, STALLED]).splitlines() == [
        "  VirtualMachine/default/web: no such offering",
        "  Aaa/default/web: is slow",
    ]
