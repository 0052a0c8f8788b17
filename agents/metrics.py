"""What an agent process counts, as kumulus_agentd_…: kumulus_agent_… is the controllers' side.

No label names a host: one process may pose as thousands.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

OPERATIONS = Counter(
    "kumulus_agentd_operations", "Operations that ended, by action and state.", ["action", "state"]
)
SECONDS = Histogram(
    "kumulus_agentd_operation_seconds",
    "Time from the start of an operation's work to its end.",
    ["action"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200),
)
WAITED = Histogram(
    "kumulus_agentd_operation_wait_seconds",
    "Time from an operation's arrival to the start of its work.",
    buckets=(0.01, 0.1, 1, 10, 60, 600),
)
QUEUED = Gauge("kumulus_agentd_operations_queued", "Operations accepted and not started.")
RUNNING = Gauge("kumulus_agentd_operations_running", "Operations at work.")
DUPLICATES = Counter(
    "kumulus_agentd_duplicates", "Operations answered from the table instead of being run."
)
REFUSED = Counter("kumulus_agentd_refused", "Batches refused, by the error's code.", ["code"])
CALLBACKS = Counter(
    "kumulus_agentd_callbacks", "Attempts to deliver a callback, by outcome.", ["outcome"]
)
CALLBACKS_WAITING = Gauge("kumulus_agentd_callbacks_waiting", "Callbacks not delivered yet.")
