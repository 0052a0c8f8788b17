"""The real clock. Tests inject another."""

from __future__ import annotations

import time


class SystemClock:
    """Implements reconcile.actuator.Clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
