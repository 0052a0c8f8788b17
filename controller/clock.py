"""The real clock (tests inject another), and its time as a date."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def utc(seconds: float) -> datetime:
    """``Clock.now()`` as objects have it. The API keeps whole seconds of it."""
    return datetime.fromtimestamp(seconds, UTC)


class SystemClock:
    """Implements reconcile.actuator.Clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
