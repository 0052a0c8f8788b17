"""What an expression may cost: https://kubernetes.io/docs/reference/using-api/cel/#resource-constraints

Costs are counted while an expression runs, in units of the size of Kubernetes' (one for looking
something up or calling a plain function), and have its limits: a million for one expression, ten
million for an object. Loops are counted by the iteration (``checked`` puts the counting into the
compiled expression), functions of ours by the size of what they go through. What the CEL library
does in one step on a large value (comparing two lists, say) is not counted, so there is a limit
of time too: it is looked at whenever something is counted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

CALL_LIMIT = 1_000_000
OBJECT_LIMIT = 10_000_000
SECONDS = 1.0
"""CPU time of the thread, for one object."""
_CLOCK_EVERY = 512


class Exceeded(ValueError):
    """The call, or the object, has cost too much."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class Budget:
    """Of one object: all its rules draw on it."""

    def __init__(self, limit: int = OBJECT_LIMIT, seconds: float = SECONDS) -> None:
        self.left = limit
        self.exceeded = False
        self._call_left = 0
        self._deadline = time.thread_time() + seconds
        self._until_clock = 0

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """While one expression runs."""
        self.exceeded = False
        self._call_left = before = min(CALL_LIMIT, self.left)
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self.left -= before - self._call_left

    def spend(self, cost: int) -> None:
        """Raises Exceeded, and does so ever after in this call: the error may be swallowed by an
        ``||`` that is true anyway."""
        self._call_left -= cost
        self._until_clock -= cost
        if self._until_clock < 0:
            self._until_clock = _CLOCK_EVERY
            if time.thread_time() > self._deadline:
                self._call_left = min(self._call_left, -1)
        if self._call_left < 0:
            self.exceeded = True
            raise Exceeded

    def check(self) -> None:
        """Raises Exceeded if the call was over its budget, whatever it answered."""
        if self.exceeded:
            raise Exceeded


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


def spend(cost: int) -> bool:
    """Of the budget of the expression that runs; without one, nothing is counted."""
    budget = _current.get()
    if budget is not None:
        budget.spend(cost)
    return True
