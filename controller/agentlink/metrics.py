"""What the link to the agents reports."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter(
    "kumulus_agent_calls_total",
    "Calls of agents: operations by action, and ping, facts, inventory, read-back",
    ["action", "outcome"],
)
"""Outcomes: accepted, succeeded, failed, pending, unknown, fenced, refused, unreachable."""
REQUEST_SECONDS = Histogram(
    "kumulus_agent_request_seconds", "Duration of HTTP requests to agents", ["request"]
)
OPERATION_SECONDS = Histogram(
    "kumulus_agent_operation_seconds",
    "From the first submission of an operation to its result",
    ["action"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
IN_FLIGHT = Gauge("kumulus_agent_requests_in_flight", "HTTP requests to agents without an answer")
BATCH = Histogram(
    "kumulus_agent_batch_operations", "Operations in one POST", buckets=(1, 2, 4, 8, 16, 32, 64)
)
CALLBACKS = Counter("kumulus_agent_callbacks_total", "Callbacks of agents", ["outcome"])
"""Outcomes: delivered, awaited, duplicate, unknown, stale, refused."""
