"""Leaves an agent alone for a while after it did not answer, so that it holds no workers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


@dataclass
class _State:
    failures: int
    closed_until: float
    why: str


class Breaker:
    """By agent identity. Only agents in trouble are remembered.

    After a failure the agent is not called for FIRST_PAUSE seconds, doubling (with jitter) up to
    LONGEST_PAUSE. Then one call is let through; the others wait for what becomes of it.
    """

    def __init__(
        self, now: Callable[[], float], jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._now = now
        self._jitter = jitter
        self._troubled: dict[str, _State] = {}

    def enter(self, identity: str, probe_seconds: float) -> tuple[float, str] | None:
        """None: go ahead. Otherwise (seconds to wait, why). A caller that goes ahead tells
        ``success`` or ``failure``, or is forgotten after ``probe_seconds``."""
        state = self._troubled.get(identity)
        if state is None:
            return None
        left = state.closed_until - self._now()
        if left > 0:
            return left, state.why
        state.closed_until = self._now() + probe_seconds
        return None

    def success(self, identity: str) -> None:
        self._troubled.pop(identity, None)

    def failure(self, identity: str, why: str) -> None:
        state = self._troubled.get(identity)
        failures = state.failures + 1 if state else 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
        until = self._now() + self._jitter(pause / 2, pause)
        self._troubled[identity] = _State(failures, until, why)
