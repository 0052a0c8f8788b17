"""Other objects for admission, from a list in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller.apiserver.admission import Lookup, Object, Operation, Request, User
from crds import kinds
from crds.base import API_VERSION, GROUP, VERSION

Wire = dict[str, Any]


class Objects:
    """A Lookup over ``objects``; ``reads`` counts what was asked for."""

    def __init__(self, *objects: Wire) -> None:
        self._objects = {
            (_group(obj), obj["kind"], namespace_of(obj), obj["metadata"]["name"]): obj
            for obj in objects
        }
        self.reads = 0

    async def get(self, group: str, kind: str, namespace: str, name: str) -> Object | None:
        self.reads += 1
        return self._objects.get((group, kind, namespace, name))

    async def list(self, group: str, kind: str, namespace: str = "") -> Sequence[Object]:
        self.reads += 1
        return [
            obj
            for (of, what, where, _), obj in self._objects.items()
            if (of, what) == (group, kind) and namespace in ("", where)
        ]


def namespace_of(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"].get("namespace", ""))


def _group(obj: Mapping[str, Any]) -> str:
    return str(obj["apiVersion"]).rpartition("/")[0]


def wire(kind: str, name: str, spec: Wire, *, namespace: str = "", **more: Any) -> Wire:
    """An object as the API server has it. ``going=True``: it is being deleted."""
    metadata: Wire = {"name": name, "uid": f"uid-{name}"}
    if namespace:
        metadata["namespace"] = namespace
    if more.pop("going", False):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    base = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    return base | more


def request(
    operation: Operation, obj: Wire, *around: Wire, old: Wire | None = None, **more: Any
) -> Request:
    """A write of ``obj`` in a cluster that has ``around``, and on UPDATE and DELETE itself."""
    model = kinds().get(obj["kind"])
    before = old if operation == "UPDATE" else obj if operation == "DELETE" else None
    lookup: Lookup = Objects(*around, *([before] if before else []))
    found = Request(
        operation=operation,
        group=GROUP,
        version=VERSION,
        kind=obj["kind"],
        resource=model.INFO.plural if model else obj["kind"].lower() + "s",
        namespace=namespace_of(obj),
        name=obj["metadata"]["name"],
        object=None if operation == "DELETE" else obj,
        old_object=before,
        user=User("test"),
        lookup=lookup,
    )
    return replace(found, **more)
