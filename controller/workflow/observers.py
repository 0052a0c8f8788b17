"""Who watches flows: callables that are told of every step and cannot break the flow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter, Histogram

from crds.base import Resource

log = logging.getLogger(__name__)

When = Literal["before", "after", "rollback"]


@dataclass(frozen=True)
class StepEvent:
    """``before`` a step runs, ``after`` it succeeded, before its ``rollback`` runs."""

    flow: str
    step: str
    when: When
    obj: Resource


Observer = Callable[[StepEvent], None]
"""Called in the loop: must return at once. What it raises is logged, no more."""

STEPS = Counter(
    "kumulus_workflow_steps_total",
    "Passes through workflow steps by how they ended",
    ["flow", "step", "outcome"],
)
STEP_SECONDS = Histogram(
    "kumulus_workflow_step_seconds", "Duration of one pass through a step", ["flow", "step"]
)
_LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
STEP_LASTED = Histogram(
    "kumulus_workflow_step_lasted_seconds",
    "From a step's first run to its success, pauses included",
    ["flow", "step"],
    buckets=_LONG,
)
FLOW_SECONDS = Histogram(
    "kumulus_workflow_seconds",
    "Duration of whole flows, pauses included",
    ["flow", "outcome"],
    buckets=_LONG,
)


def tell(observers: Sequence[Observer], event: StepEvent) -> None:
    """Tell everyone; one that raises does not keep the others from hearing."""
    for observer in observers:
        try:
            observer(event)
        except Exception:
            log.exception("an observer of %s/%s failed", event.flow, event.step)
