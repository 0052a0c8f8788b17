"""Where the news of the API's objects come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

from controller.keys import Key

Raw = Mapping[str, Any]
"""An object as the API server sends it."""


class Change(Enum):
    """What a source says of an object. Nothing tells new from changed: nobody may depend on it."""

    PRESENT = "present"
    GONE = "gone"


def ghost(key: Key, uid: str) -> Raw:
    """As much of an object as its end needs."""
    return {"metadata": {"namespace": key.namespace, "name": key.name, "uid": uid}}


Sink = Callable[[Change, str, Raw], object]
"""Gets (change, kind, object). Must be quick and must not raise: it runs in the source's loop."""


class Source(Protocol):
    """Watches kinds. It may repeat, delay and even lose events, but must not reorder those of one
    object; the key comparison makes up for the lost ones."""

    async def start(self, sink: Sink) -> None:
        """Begin watching in the background; returns at once. What dies is started again."""

    async def settled(self) -> None:
        """Until everything that exists has reached the sink, unless another part sees to that."""

    async def stop(self) -> None:
        """Stop watching; nothing reaches the sink afterwards."""
