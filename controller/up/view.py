"""An object as people see it: its state, whether it is ready, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One object. ``ready``: Ready=True for the spec as it is now; ``stalled``: only a change of
    the spec can help; ``deleting``: on its way out."""

    kind: str
    namespace: str
    name: str
    state: str
    ready: bool
    stalled: bool
    deleting: bool
    reason: str
    message: str
    step: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.kind, self.namespace, self.name)

    @property
    def title(self) -> str:
        """``VirtualMachine/default/web`` or ``Zone/zone-1``."""
        return "/".join(part for part in self.key if part)

    @property
    def note(self) -> str:
        """What is worth saying of it: the step it is at, or why it is not ready."""
        if self.ready:
            return ""
        return self.message or self.step or self.reason or "not looked at yet"


def row(wire: Mapping[str, Any]) -> Row:
    """The row of an object as the API serves it; ``kind`` must be set."""
    metadata, status = wire["metadata"], wire.get("status") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    deleting = "deletionTimestamp" in metadata
    return Row(
        kind=wire["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        state=_state(status, deleting),
        ready=not deleting and _is_true(ready, metadata),
        stalled=_is_true(conditions.get("Stalled", {}), metadata),
        deleting=deleting,
        reason=ready.get("reason", ""),
        message=ready.get("message", ""),
        step=(status.get("workflow") or {}).get("progress", ""),
    )


def _state(status: Mapping[str, Any], deleting: bool) -> str:
    """``Enabled, Connected`` for kinds that have a connection beside their state."""
    parts = (status.get("state", ""), status.get("status", ""))
    shown = ", ".join(part for part in parts if part)
    return "Deleting" if deleting and not shown else shown


def _is_true(condition: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    current = condition.get("observedGeneration", 0) == metadata.get("generation", 0)
    return condition.get("status") == "True" and current
