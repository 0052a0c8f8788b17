"""What an agent process counts. No label names a host: one process may pose as thousands."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

OPERATIONS = Counter(
    "kumulus_agent_operations", "Operations that ended, by action and state.", ["action", "state"]
)
SECONDS = Histogram(
    "kumulus_agent_operation_seconds",
    "Time from the start of an operation's work to its end.",
    ["action"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200),
)
WAITED = Histogram(
    "kumulus_agent_operation_wait_seconds",
    "Time from an operation's arrival to the start of its work.",
    buckets=(0.01, 0.1, 1, 10, 60, 600),
)
QUEUED = Gauge("kumulus_agent_operations_queued", "Operations accepted and not started.")
RUNNING = Gauge("kumulus_agent_operations_running", "Operations at work.")
DUPLICATES = Counter(
    "kumulus_agent_duplicates", "Operations answered from the table instead of being run."
)
REFUSED = Counter("kumulus_agent_refused", "Batches refused, by the error's code.", ["code"])
CALLBACKS = Counter(
    "kumulus_agent_callbacks", "Attempts to deliver a callback, by outcome.", ["outcome"]
)
CALLBACKS_WAITING = Gauge("kumulus_agent_callbacks_waiting", "Callbacks not delivered yet.")
