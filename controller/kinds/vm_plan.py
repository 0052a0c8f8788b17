"""What a VM needs next: pure decisions of the level-triggered state machine.

::

    "" ──vm-create──► Running ⇄ Paused        Running ──host silent──► Unknown ──► as observed
                      │    ▲                  Running ──guest off, crash──► vm-stop ──► vm-start
                   vm-stop vm-start
                      ▼    │
                      Stopped
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crds.v1alpha1.virtual_machine import State

Desired = Literal["Running", "Stopped", "Paused"]

STARTING = frozenset({"vm-create", "vm-start"})
HOST_STEPS = frozenset({"await-volumes", "prepare-network", "start", "post-start"})
"""Steps of the starting flows that another host may do better."""

DURING: dict[str, State] = {
    "vm-stop": "Stopping",
    "vm-reboot": "Rebooting",
    "vm-pause": "Pausing",
    "vm-resume": "Resuming",
}
"""The state while a flow runs. Starting flows set theirs once a host is found."""

AFTER_FAILURE: dict[str, State] = {
    "vm-create": "Error",
    "vm-create-stopped": "Error",
    "vm-start": "Stopped",
    "vm-stop": "Running",
    "vm-reboot": "Running",
    "vm-pause": "Running",
    "vm-resume": "Paused",
}
"""The state after a flow was rolled back, until the host reports what is really so."""


@dataclass(frozen=True)
class Situation:
    """All that the decision depends on.

    placed: it has a host. leave: that host is being deleted or goes into maintenance. abandoned:
    it will not answer any more. reboot: the user asked for one that was not done. The rest: what
    of its disks and NICs does not match the spec.
    """

    desired: Desired
    state: State
    created: bool
    placed: bool
    leave: bool = False
    abandoned: bool = False
    reboot: bool = False
    stale_nics: bool = False
    new_nics: bool = False
    stale_disks: bool = False
    new_disks: bool = False


def next_flow(s: Situation) -> str | None:
    """The flow that brings the VM one step nearer to its spec; None if nothing can be done."""
    if not s.created:
        return "vm-create-stopped" if s.desired == "Stopped" else "vm-create"
    return _where_it_runs(s) if s.placed else _while_stopped(s)


def _where_it_runs(s: Situation) -> str | None:
    if s.leave and (s.abandoned or s.state != "Unknown"):
        return "vm-stop"
    if s.state == "Unknown":
        return None
    if s.desired == "Stopped" or s.state in ("Stopped", "Crashed"):
        return "vm-stop"
    if s.state == "Paused":
        return "vm-resume" if s.desired == "Running" else None
    if s.desired == "Paused":
        return "vm-pause"
    return "vm-reboot" if s.reboot else _reshape(s, disks=True)


def _while_stopped(s: Situation) -> str | None:
    """NICs are changed before a start, so that the guest finds them at boot. A disk that cannot be
    made must not keep a guest from starting: it comes after."""
    stays = s.desired == "Stopped"
    return _reshape(s, disks=stays) or (None if stays else "vm-start")


def _reshape(s: Situation, *, disks: bool) -> str | None:
    if s.stale_nics:
        return "vm-detach-nics"
    if s.stale_disks:
        return "vm-detach-disks"
    if s.new_nics:
        return "vm-attach-nics"
    return "vm-attach-disks" if disks and s.new_disks else None


def observed_state(state: State, host_status: str, power: str | None) -> State:
    """What is true of a VM with a host, given what the host says.

    ``power``: the observed state, ``Absent`` if the host has no such domain, None if it was not
    asked yet.
    """
    if host_status == "Disconnected":
        return "Unknown"
    if power is None or power == "Unknown":
        return state
    seen: dict[str, State] = {"Running": "Running", "Paused": "Paused", "Crashed": "Crashed"}
    return seen.get(power, "Stopped")
