"""Ready, Reconciling and Stalled, as kstatus reads them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from controller.reconcile.findings import Finding
from crds.base import Condition

REASON_MAX, MESSAGE_MAX = 1024, 4096
OURS = ("Ready", "Reconciling", "Stalled")


def conditions_after(
    old: Sequence[Condition], finding: Finding, generation: int, now: float
) -> list[Condition]:
    """The conditions that say ``finding``; those of others are kept as they are.

    lastTransitionTime changes only when a condition's status does. ``now``: seconds since the
    epoch.
    """
    moment = datetime.fromtimestamp(int(now), UTC)
    before = {condition.type: condition for condition in old}
    ours = [_condition(kind, finding, generation, before.get(kind), moment) for kind in OURS]
    return [*ours, *(c for c in old if c.type not in OURS)]


def _condition(
    kind: str, finding: Finding, generation: int, old: Condition | None, moment: datetime
) -> Condition:
    status, reason, message = _said(kind, finding)
    flipped = old is None or old.status != status or old.last_transition_time is None
    return Condition(
        type=kind,
        status=status,
        reason=reason[:REASON_MAX],
        message=message[:MESSAGE_MAX],
        observed_generation=generation,
        last_transition_time=moment if flipped or old is None else old.last_transition_time,
    )


def _said(kind: str, finding: Finding) -> tuple[Literal["True", "False"], str, str]:
    ready = finding.end == "ready"
    if kind == "Ready":
        return ("True" if ready else "False"), finding.reason, finding.message
    applies = finding.stalled if kind == "Stalled" else not ready and not finding.stalled
    if applies:
        return "True", finding.reason, finding.message
    return "False", "Idle" if kind == "Reconciling" else "NotStalled", ""
