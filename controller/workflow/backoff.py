"""How long a step's failures are apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Seconds between a Transient failure of a step and its next run: ``first``, then ``factor``
    times as many after each further one, ``longest`` at most. ``jitter`` is the share of it by
    which chance may shorten or lengthen the pause, so that many objects which failed together do
    not come back together."""

    first: float
    longest: float = 60.0
    factor: float = 2.0
    jitter: float = 0.2

    def pause(self, failures: int, chance: float) -> float:
        """Seconds after so many ``failures`` (1 or more); ``chance`` is between 0 and 1."""
        grown = self.first
        for _ in range(failures - 1):
            if grown >= self.longest:
                break
            grown *= self.factor
        return min(grown, self.longest) * (1 + self.jitter * (2 * chance - 1))


DEFAULT = Backoff(first=0.1, longest=15.0)
"""Of steps that declare none, and of rollbacks."""
