"""The embedded Kubernetes-compatible API server, for one machine.

Three layers, each knowing only the one below it:

1. server: ``http`` (requests), ``negotiate``, ``discovery``, ``openapi``, ``tables``, ``streams``.
2. registry: ``registry`` (verbs), ``catalog`` (what is served), ``schema`` (what is valid),
   ``cel`` (rules, and what they may cost), ``patches``, ``collector`` (what follows from a
   deletion).
3. store: one append-only SQLite log whose row id is the resourceVersion, with the current state
   and the latest changes in memory.

``app.serve`` starts it.
"""
