"""What a watch sends: a stream of JSON lines, each an event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from controller.client import TOO_LARGE, Ahead, ApiUnavailable, Expired

LONGEST = 16 * 2**20
"""Bytes of one event. etcd takes objects of 1.5 MiB at most: what is longer is no event."""

Event = Mapping[str, Any]


class Lines:
    """Puts lines together again that came in pieces. One for each stream."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that ``piece`` completes. Raises ApiUnavailable for one without end."""
        *whole, rest = piece.split(b"\n")
        if whole:
            whole[0] = b"".join((*self._pieces, whole[0]))
            self._pieces, self._size = [], 0
            yield from (line for line in whole if line.strip())
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
        if self._size > LONGEST:
            raise ApiUnavailable("the API server sends a watch event without end")


def parse(line: bytes) -> Event:
    """An event that has an object with metadata.

    Raises Expired and ApiUnavailable for what the server reports as an error in the stream, and
    ApiUnavailable for what is no event.
    """
    try:
        event = orjson.loads(line)
        kind, obj = event["type"], event["object"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ApiUnavailable("the API server sends a watch event that is no JSON event") from None
    if kind == "ERROR":
        raise _reported(obj)
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        raise ApiUnavailable("the API server sends a watch event without an object")
    return {"type": kind, "object": obj}


def _reported(status: Any) -> Expired | ApiUnavailable:
    known = status if isinstance(status, dict) else {}
    message = f"the API server ends the watch: {known.get('message') or known.get('reason')}"
    if known.get("code") == 410 or known.get("reason") in ("Expired", "Gone"):
        return Expired(message)
    if TOO_LARGE in message:
        return Ahead(message)
    details = known.get("details")
    after = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return ApiUnavailable(message, retry_after=float(after) if after else None)
