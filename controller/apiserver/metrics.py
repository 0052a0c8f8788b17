"""What the API server counts. Series are looked up once: that costs as much as counting."""

from __future__ import annotations

import functools

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "kumulus_apiserver_requests_total", "Requests answered.", ("verb", "resource", "code")
)
DURATION = Histogram(
    "kumulus_apiserver_request_duration_seconds",
    "Time to answer (watches excepted).",
    ("verb", "resource"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WATCHERS = Gauge("kumulus_apiserver_watchers", "Open watches.", ("resource",))


@functools.lru_cache(4096)
def requests(verb: str, resource: str, code: int) -> Counter:
    return REQUESTS.labels(verb, resource, str(code))


@functools.lru_cache(1024)
def duration(verb: str, resource: str) -> Histogram:
    return DURATION.labels(verb, resource)
