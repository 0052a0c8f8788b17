"""Key: the name of one object, what queues and stores are keyed by."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """kind, namespace ("" for cluster-scoped kinds) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)
