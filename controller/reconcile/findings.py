"""What one look at an object found, from an outcome or from an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from controller.errors import Exhausted, KumulusError, Terminal, Transient, Waiting
from controller.reconcile.actuator import Outcome

End = Literal[
    "ready", "pending", "waiting", "transient", "terminal", "internal", "invalid", "deleted"
]

CAPACITY_RETRY = 30.0
"""Seconds after which a full pool is asked again: others give back what they no longer need, and
no change of this object's spec is required for that."""
DELETION_RETRY = 30.0
"""Seconds after which a deletion that failed for good is tried again: it can be given up by
nobody, so what holds it up has to be mended outside."""


@dataclass(frozen=True)
class Finding:
    """``end`` names what happened; ``after``: seconds until the next look, None: when woken, or
    for ``transient`` and ``internal``: as the back-off says. ``capacity``: some pool is full."""

    end: End
    reason: str
    message: str = ""
    after: float | None = None
    capacity: bool = False

    @property
    def backs_off(self) -> bool:
        return self.end in ("transient", "internal")

    @property
    def stalled(self) -> bool:
        return self.end in ("terminal", "invalid")


INTERNAL = Finding(
    "internal",
    "InternalError",
    "the controller failed unexpectedly and will try again; its log has the details",
)


def of_outcome(outcome: Outcome) -> Finding:
    """A finding from what an actuator returned."""
    if outcome.ready:
        return Finding("ready", outcome.reason, outcome.message, outcome.requeue_after)
    return Finding("pending", outcome.reason, outcome.message, outcome.requeue_after)


def noting(outcome: Outcome, remarks: Sequence[str]) -> Outcome:
    """The outcome, with remarks for people after its message."""
    if not remarks:
        return outcome
    return replace(outcome, message="; ".join(text for text in (outcome.message, *remarks) if text))


def of_error(error: KumulusError, *, deleting: bool) -> Finding:
    """A finding from what an actuator raised. ``deleting``: it, or something that it has to let
    go of, is being deleted."""
    if isinstance(error, Waiting):
        return Finding("waiting", error.reason, error.message, error.retry_after)
    if isinstance(error, Terminal):
        after = _terminal_retry(error, deleting)
        full = isinstance(error, Exhausted)
        return Finding("terminal", error.reason, error.message, after, capacity=full)
    if isinstance(error, Transient):
        return Finding("transient", error.reason, error.message, error.retry_after)
    return Finding("transient", error.reason, error.message, error.retry_after)


def _terminal_retry(error: KumulusError, deleting: bool) -> float | None:
    if error.retry_after is not None:
        return error.retry_after
    if deleting:
        return DELETION_RETRY
    return CAPACITY_RETRY if isinstance(error, Exhausted) else None
