"""L3Network: subnets on one L2 network do not overlap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Network

from controller.admission.neighbours import Neighbours, name_of, ref_of
from controller.apiserver.admission import Violation
from crds.v1alpha1.l3_network import L3NetworkSpec

KIND = "L3Network"


async def check(spec: L3NetworkSpec, around: Neighbours) -> AsyncIterator[Violation]:
    """Subnets on one L2 network do not overlap: its hosts could not tell them apart."""
    own = IPv4Network(spec.cidr)
    for other in await around.others("L3Network"):
        if ref_of(other, "l2NetworkRef") != spec.l2_network_ref.name:
            continue
        if own.overlaps(IPv4Network(other["spec"]["cidr"], strict=False)):
            yield Violation(
                f"{own} overlaps {other['spec']['cidr']} of L3 network "
                f"{name_of(other)} on the same L2 network",
                "spec.cidr",
            )
