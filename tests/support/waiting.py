"""Waiting, in real time, for what others are about to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

PAUSE = 0.01


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer of ``condition``, which may be a coroutine function. Raises
    TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(PAUSE)
