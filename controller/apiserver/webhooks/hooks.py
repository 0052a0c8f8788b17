"""The webhooks that are configured, in the order in which they are asked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.apiserver.store import Change, Store
from controller.apiserver.webhooks.kinds import MUTATING, VALIDATING
from controller.apiserver.webhooks.matching import HookRule


@dataclass(frozen=True, eq=False)
class Hook:
    """One webhook. ``seconds``: how long it may take. ``ca``: PEM, empty for the system's."""

    name: str
    url: str
    ca: bytes
    rules: tuple[HookRule, ...]
    seconds: float
    ignores_failure: bool
    exact: bool
    reinvoked: bool
    namespaces: Mapping[str, Any]
    objects: Mapping[str, Any]
    conditions: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, wire: Mapping[str, Any]) -> Hook:
        client = wire.get("clientConfig") or {}
        return cls(
            name=wire["name"],
            url=client.get("url") or "",
            ca=_decoded(client.get("caBundle") or ""),
            rules=tuple(HookRule.of(rule) for rule in wire.get("rules") or ()),
            seconds=float(wire.get("timeoutSeconds") or 10),
            ignores_failure=wire.get("failurePolicy") == "Ignore",
            exact=wire.get("matchPolicy") == "Exact",
            reinvoked=wire.get("reinvocationPolicy") == "IfNeeded",
            namespaces=wire.get("namespaceSelector") or {},
            objects=wire.get("objectSelector") or {},
            conditions=tuple(wire.get("matchConditions") or ()),
        )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):  # checked when it was stored
        return b""


class Hooks:
    """Read from the store when asked for, kept until a configuration changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, tuple[Hook, ...]] = {}
        store.listen(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.key.resource in (VALIDATING, MUTATING):
            self._kept.pop(change.key.resource, None)

    def mutating(self) -> Sequence[Hook]:
        return self._of(MUTATING)

    def validating(self) -> Sequence[Hook]:
        return self._of(VALIDATING)

    def _of(self, resource: str) -> tuple[Hook, ...]:
        found = self._kept.get(resource)
        if found is None:
            shelf = self._store.shelf(resource)  # in order of names
            objects = [entry.object() for entry in shelf.entries(shelf.keys())]
            found = tuple(Hook.of(h) for o in objects for h in o.get("webhooks") or ())
            self._kept[resource] = found
        return found
