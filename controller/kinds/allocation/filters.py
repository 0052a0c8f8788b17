"""What keeps a VM off a host, in the order in which it is looked at.

A filter says why a candidate does not fit, or None. To add one, write it and put it in FILTERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controller.kinds.allocation.model import Candidate, Request, place_disks
from crds.base import format_quantity

Filter = Callable[[Request, Candidate], str | None]


def networks_attached(request: Request, candidate: Candidate) -> str | None:
    missing = sorted(request.networks - candidate.networks)
    if missing:
        return f"L2 network {', '.join(missing)} is not attached to cluster {candidate.cluster}"
    return None


def designated(request: Request, candidate: Candidate) -> str | None:
    for kind, wanted, actual in (
        ("host", request.host, candidate.name),
        ("cluster", request.cluster, candidate.cluster),
        ("zone", request.zone, candidate.zone),
    ):
        if wanted not in (None, actual):
            return f"placement asks for {kind} {wanted}"
    return None


def available(request: Request, candidate: Candidate) -> str | None:
    if candidate.state != "Enabled":
        return candidate.state
    if candidate.status != "Connected":
        return candidate.status or "not connected yet"
    if not candidate.cluster_enabled:
        return f"cluster {candidate.cluster} is Disabled"
    if not candidate.zone_enabled:
        return f"zone {candidate.zone} is Disabled"
    return None


def architecture(request: Request, candidate: Candidate) -> str | None:
    if request.architecture in (None, candidate.architecture):
        return None
    return f"is {candidate.architecture}, the image {request.architecture}"


def image_reachable(request: Request, candidate: Candidate) -> str | None:
    if not request.image_zones or candidate.zone in request.image_zones:
        return None
    return f"the image's backup storage does not serve zone {candidate.zone}"


def capacity(request: Request, candidate: Candidate) -> str | None:
    missing = {k: v - candidate.free.get(k, 0) for k, v in request.amounts.items()}
    short = [_amount(k, v) for k, v in missing.items() if v > 0]
    return f"{' and '.join(short)} short" if short else None


def volumes_here(request: Request, candidate: Candidate) -> str | None:
    elsewhere = {v: h for v, h in request.volume_hosts.items() if h != candidate.name}
    if not elsewhere:
        return None
    volume, host = next(iter(elsewhere.items()))
    return f"volume {volume} is on host {host}"


def storage_room(request: Request, candidate: Candidate) -> str | None:
    plan = place_disks(request, candidate)
    return plan if isinstance(plan, str) else None


def not_excluded(request: Request, candidate: Candidate) -> str | None:
    return "it did not start there" if candidate.name in request.excluded else None


def selected(request: Request, candidate: Candidate) -> str | None:
    if request.selector is None:
        return None
    missing = request.selector.missing(candidate.labels, candidate.tags)
    return f"has no {missing}" if missing else None


FILTERS: tuple[Filter, ...] = (
    networks_attached,
    designated,
    available,
    architecture,
    image_reachable,
    capacity,
    volumes_here,
    storage_room,
    not_excluded,
    selected,
)


def fitting(
    request: Request, candidates: Iterable[Candidate]
) -> tuple[list[Candidate], dict[str, str]]:
    """Those that pass every filter, and for each of the others what keeps it out."""
    fit: list[Candidate] = []
    dropped: dict[str, str] = {}
    for candidate in candidates:
        why = next((why for f in FILTERS if (why := f(request, candidate))), None)
        if why is None:
            fit.append(candidate)
        else:
            dropped[candidate.name] = why
    return fit, dropped


def _amount(resource: str, short: int) -> str:
    if resource == "memory":
        return f"memory {format_quantity(short)}"
    return f"{short} vCPUs" if resource == "cpu" else f"{resource} {short}"
