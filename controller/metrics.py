"""Prometheus metrics of the core: queues, reconciles, API requests, events, the store."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_FINE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

QUEUE_DEPTH = Gauge("kumulus_queue_depth", "Keys ready to be worked on.", ["kind"])
QUEUE_ACTIVE = Gauge("kumulus_queue_active", "Keys being worked on.", ["kind"])
QUEUE_DELAYED = Gauge("kumulus_queue_delayed", "Keys that wait for their time.", ["kind"])
QUEUE_AGE = Histogram(
    "kumulus_queue_age_seconds", "From ready to being worked on.", ["kind"], buckets=_FINE
)
QUEUE_RETRIES = Counter("kumulus_queue_retries", "Keys put back with back-off.", ["kind"])
RECONCILE_SECONDS = Histogram(
    "kumulus_reconcile_seconds", "Duration of one look at an object.", ["kind"], buckets=_FINE
)
RECONCILES = Counter(
    "kumulus_reconciles",
    "Looks at objects. Outcomes: ready, pending, waiting, transient, terminal, internal, "
    "invalid, deleted, skipped.",
    ["kind", "outcome"],
)
STATUS_WRITES = Counter("kumulus_status_writes", "Status patches sent.", ["kind"])
API_REQUESTS = Counter(
    "kumulus_api_requests", "Requests to the API server.", ["verb", "resource", "code"]
)
API_SECONDS = Histogram(
    "kumulus_api_request_seconds", "Duration of API requests.", ["verb"], buckets=_FINE
)
WATCH_EVENTS = Counter(
    "kumulus_watch_events", "Watch events by what became of them.", ["kind", "result"]
)
WATCH_RESTARTS = Counter("kumulus_watch_restarts", "Times that the watch source was restarted.")
WATCH_RELISTS = Counter(
    "kumulus_watch_relists", "Lists because the watch could not go on where it stood.", ["kind"]
)
FOREIGN_EVENTS = Counter(
    "kumulus_watch_foreign", "Objects of other replicas that were sent and dropped.", ["kind"]
)
LOST_EVENTS = Counter("kumulus_watch_lost_events", "Changes that no watch brought.", ["kind"])
OBJECTS = Gauge("kumulus_objects", "Objects in the local store.", ["kind"])
EVENTS_SENT = Counter("kumulus_events_sent", "Kubernetes Events written.", ["type"])
EVENTS_DROPPED = Counter("kumulus_events_dropped", "Kubernetes Events not written.", ["why"])
RING_GENERATION = Gauge("kumulus_ring_generation", "The ring's generation, as followed here.")
RING_MEMBERS = Gauge("kumulus_ring_members", "Members of the ring.")
RING_ARCS = Gauge("kumulus_ring_arcs", "Arcs of the ring that this replica serves.")
RING_SHARE = Gauge("kumulus_ring_share", "Of the ring that this replica serves: 0 to 1.")
RING_KEYS = Gauge("kumulus_ring_keys", "Objects that this replica owns.")
RING_LAPSES = Counter("kumulus_ring_lapses", "Times that this replica had to stop all work.")
RING_HANDOVER_SECONDS = Histogram(
    "kumulus_ring_handover_seconds",
    "gain: from the plan until served here. drain: until given up here. takeover: from a dead "
    "member's last sign of life until its arcs were given to others by this replica.",
    ["what"],
    buckets=_FINE,
)
