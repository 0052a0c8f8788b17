"""The objects around one that is judged."""

from __future__ import annotations

from dataclasses import dataclass

from controller.apiserver.admission import Object, Request
from crds.base import GROUP
from crds.refs import ObjectRef


@dataclass(frozen=True)
class Neighbours:
    """The objects around the one that is judged, as they are on the wire."""

    request: Request

    async def get(self, kind: str, ref: ObjectRef | None, namespace: str = "") -> Object | None:
        """What a reference points to; None if it is absent or going."""
        if ref is None:
            return None
        found = await self.request.lookup.get(GROUP, kind, namespace, ref.name)
        return None if found is None or going(found) else found

    async def others(self, kind: str) -> list[Object]:
        """All other objects of a kind that stay."""
        found = await self.request.lookup.list(GROUP, kind)
        return [obj for obj in found if not going(obj) and not self._judged(obj)]

    def _judged(self, obj: Object) -> bool:
        metadata = obj["metadata"]
        return (metadata.get("namespace", ""), metadata["name"]) == (
            self.request.namespace,
            self.request.name,
        )


def going(obj: Object) -> bool:
    """Is it being deleted?"""
    return "deletionTimestamp" in obj["metadata"]


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def ref_of(obj: Object, field: str) -> str:
    """The name in a reference of a stored object's spec; "" if there is none."""
    return str(obj["spec"].get(field, {}).get("name", ""))
