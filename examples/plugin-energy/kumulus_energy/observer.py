"""An observer: counts what costs most power, starting and stopping."""

from __future__ import annotations

import logging

from prometheus_client import Counter

from controller.plugins.interface import Event

log = logging.getLogger(__name__)
CHANGES = Counter("kumulus_energy_changes", "VMs that began or ended to draw power.", ["to"])


class Meter:
    events = ("state.changed", "step.after")

    def __call__(self, event: Event) -> None:
        if event.kind != "VirtualMachine":
            return
        if event.name == "state.changed" and event.new in ("Running", "Stopped"):
            CHANGES.labels(event.new).inc()
            log.info("power", extra={"name_of_vm": event.object, "was": event.old, "is": event.new})
