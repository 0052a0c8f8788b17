"""A host allocator: one host is filled before the next is used."""

from __future__ import annotations

from collections.abc import Sequence

from controller.kinds.allocation.model import Candidate, Request


def pack_tight(request: Request, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The host with the most VMs first; of equals the one with the least memory left."""
    return sorted(candidates, key=lambda c: (-c.vms, c.free.get("memory", 0), c.name))
