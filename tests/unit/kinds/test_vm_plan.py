"""The VM's decisions, exhaustively: every situation leads somewhere sensible."""

from __future__ import annotations

from itertools import product

import pytest

from controller.kinds.vm_plan import Situation, next_flow, observed_state

RUNS = Situation(desired="Running", state="Running", created=True, placed=True)
OFF = Situation(desired="Stopped", state="Stopped", created=True, placed=False)


@pytest.mark.parametrize(
    ("situation", "flow"),
    [
        (Situation("Running", "", created=False, placed=False), "vm-create"),
        (Situation("Paused", "Error", created=False, placed=False), "vm-create"),
        (Situation("Stopped", "", created=False, placed=False), "vm-create-stopped"),
        (RUNS, None),
        (OFF, None),
        (Situation("Running", "Stopped", True, False), "vm-start"),
        (Situation("Paused", "Stopped", True, False), "vm-start"),
        (Situation("Stopped", "Running", True, True), "vm-stop"),
        (Situation("Stopped", "Paused", True, True), "vm-stop"),
        (Situation("Running", "Stopped", True, True), "vm-stop"),
        (Situation("Running", "Crashed", True, True), "vm-stop"),
        (Situation("Paused", "Running", True, True), "vm-pause"),
        (Situation("Running", "Paused", True, True), "vm-resume"),
        (Situation("Paused", "Paused", True, True), None),
        (Situation("Running", "Running", True, True, reboot=True), "vm-reboot"),
        (Situation("Running", "Stopped", True, False, reboot=True), "vm-start"),
        (Situation("Running", "Running", True, True, leave=True), "vm-stop"),
        (Situation("Running", "Unknown", True, True, leave=True), None),
        (Situation("Running", "Unknown", True, True, leave=True, abandoned=True), "vm-stop"),
        (Situation("Stopped", "Unknown", True, True), None),
        (Situation("Running", "Running", True, True, new_nics=True), "vm-attach-nics"),
        (Situation("Running", "Running", True, True, stale_nics=True), "vm-detach-nics"),
        (Situation("Running", "Running", True, True, new_disks=True), "vm-attach-disks"),
        (Situation("Running", "Running", True, True, stale_disks=True), "vm-detach-disks"),
        (Situation("Running", "Stopped", True, False, new_nics=True), "vm-attach-nics"),
        (Situation("Running", "Stopped", True, False, new_disks=True), "vm-start"),
        (Situation("Stopped", "Stopped", True, False, new_disks=True), "vm-attach-disks"),
    ],
)
def test_what_comes_next(situation: Situation, flow: str | None) -> None:
    assert next_flow(situation) == flow


def test_a_silent_host_is_never_acted_on() -> None:
    """Whatever is wanted: a guest that may be running is left alone until its host answers."""
    for desired, *flags in product(("Running", "Stopped", "Paused"), *[(False, True)] * 6):
        leave, reboot, *shape = flags
        found = Situation(desired, "Unknown", True, True, leave, False, reboot, *shape)  # type: ignore[arg-type]
        assert next_flow(found) is None


def test_what_is_as_it_should_be_is_left_alone() -> None:
    for state in ("Running", "Paused"):
        assert next_flow(Situation(state, state, True, True)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "host", "power", "after"),
    [
        ("Running", "Connected", "Running", "Running"),
        ("Running", "Connected", "Stopped", "Stopped"),
        ("Running", "Connected", "Absent", "Stopped"),
        ("Running", "Connected", "Crashed", "Crashed"),
        ("Running", "Connected", "Paused", "Paused"),
        ("Running", "Connected", None, "Running"),
        ("Running", "Connected", "Unknown", "Running"),
        ("Running", "Connecting", None, "Running"),
        ("Running", "Disconnected", "Running", "Unknown"),
        ("Unknown", "Connected", "Running", "Running"),
        ("Unknown", "Connected", None, "Unknown"),
        ("Stopped", "Connected", "Running", "Running"),
    ],
)
def test_the_host_knows_best(state: str, host: str, power: str | None, after: str) -> None:
    assert observed_state(state, host, power) == after  # type: ignore[arg-type]
