"""Exponential back-off with jitter, per key."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.keys import Key


@dataclass
class Backoff:
    """Seconds until a key's next try: first·2ⁿ up to ``most``, less up to half of it at random."""

    first: float = 0.1
    most: float = 60.0
    spread: Callable[[], float] = random.random
    failures: dict[Key, int] = field(default_factory=dict)

    def next(self, key: Key) -> float:
        """Count a failure of ``key``; how long to wait now."""
        count = self.failures.get(key, 0)
        self.failures[key] = count + 1
        longest = min(self.most, self.first * 2.0 ** min(count, 32))
        return longest * (1 - self.spread() / 2)

    def reset(self, key: Key) -> None:
        self.failures.pop(key, None)
