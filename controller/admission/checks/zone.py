"""Zone: there is one default."""

from __future__ import annotations

from collections.abc import AsyncIterator

from controller.admission.neighbours import Neighbours, name_of
from controller.apiserver.admission import Violation
from crds.v1alpha1.zone import ZoneSpec

KIND = "Zone"


async def check(spec: ZoneSpec, around: Neighbours) -> AsyncIterator[Violation]:
    """There is one default zone."""
    if not spec.default:
        return
    for other in await around.others("Zone"):
        if other["spec"].get("default"):
            name = name_of(other)
            yield Violation(
                f"zone {name} is the default already; set its spec.default to false first",
                "spec.default",
            )
            return
