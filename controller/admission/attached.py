"""What a zone's clusters share: L2 networks and primary storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from controller.admission.neighbours import Neighbours, ref_of
from controller.apiserver.admission import Violation
from crds.refs import ObjectRef


class Attached(Protocol):
    zone_ref: ObjectRef
    cluster_refs: list[ObjectRef]


async def in_one_zone(spec: Attached, around: Neighbours) -> AsyncIterator[Violation]:
    """The clusters that it serves are in its own zone."""
    for i, ref in enumerate(spec.cluster_refs):
        cluster = await around.get("Cluster", ref)
        if cluster and (theirs := ref_of(cluster, "zoneRef")) != spec.zone_ref.name:
            yield Violation(
                f"cluster {ref.name} is in zone {theirs}, not in {spec.zone_ref.name}",
                f"spec.clusterRefs[{i}]",
            )
