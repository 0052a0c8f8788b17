"""How long a request may take (watches excepted): what it asks for, up to a minute."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping

from controller.apiserver import errors
from controller.apiserver.errors import ApiError

SECONDS = 60.0
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"[+-]?(({_PART.pattern})+|0)\Z")


@contextlib.asynccontextmanager
async def deadline(query: Mapping[str, str]) -> AsyncIterator[None]:
    """Raises ApiError: 504 when the time is over, 400 if ``timeout`` is no duration.

    A write that had reached the store by then may still be committed, as upstream.
    """
    try:
        async with asyncio.timeout(_wanted(query["timeout"]) if "timeout" in query else SECONDS):
            yield
    except TimeoutError:
        raise ApiError(
            504, "Timeout", "Timeout: request did not complete within the allotted timeout"
        ) from None


def _wanted(text: str) -> float:
    """Seconds; 0 or nothing said is the server's choice."""
    if not text:
        return SECONDS
    if not _DURATION.match(text):
        raise errors.bad_request(
            "invalid timeout specified in the request URL - time: invalid duration "
            f"{errors.render(text)}"
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return min(seconds, SECONDS) if seconds and not text.startswith("-") else SECONDS
