"""What can go wrong, and what then happens.

::

    KumulusError
    ├── Waiting            a dependency is not there yet; its change wakes the key, no back-off
    │   ├── OperationPending   an agent is at work; its callback wakes the key
    │   └── Elsewhere          an object that is not held here; it is read before the next look
    ├── Transient          the outside failed; retry with exponential back-off and jitter
    │   ├── AgentUnreachable
    │   └── Conflict           somebody else changed the object; read it again
    └── Terminal           only a change of the spec can help: Stalled
        ├── AgentFailed        the agent did the work and it failed (a flow rolls back first)
        ├── Exhausted          a pool has no room (addresses, capacity)
        └── FlowFailed         a flow was rolled back

Every error carries a CamelCase ``reason`` for the condition and a ``message`` for people that
names the cause and the fix.
"""

from __future__ import annotations


class KumulusError(Exception):
    """Base. ``retry_after``: seconds after which to look again even if nothing wakes the key."""

    default_reason = "Error"

    def __init__(
        self, message: str, *, reason: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.retry_after = retry_after


class Waiting(KumulusError):
    default_reason = "WaitingForDependency"


class OperationPending(Waiting):
    default_reason = "OperationPending"


class Elsewhere(Waiting):
    default_reason = "Elsewhere"


class Transient(KumulusError):
    default_reason = "Retrying"


class AgentUnreachable(Transient):
    default_reason = "AgentUnreachable"


class Conflict(Transient):
    default_reason = "Conflict"


class Terminal(KumulusError):
    default_reason = "Failed"


class AgentFailed(Terminal):
    """The agent reports that an operation failed. ``code`` is a code of agents.wire.Error."""

    default_reason = "AgentFailed"

    def __init__(self, message: str, *, code: str, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.code = code


class Exhausted(Terminal):
    default_reason = "InsufficientCapacity"


class FlowFailed(Terminal):
    """A flow failed at ``step`` and everything it did is undone."""

    default_reason = "FlowFailed"

    def __init__(self, message: str, *, step: str, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.step = step
