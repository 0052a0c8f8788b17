"""The controller as a plugin's room reaches it: every call is made in the controller's loop.

A plugin gets the same Context as our kinds. What is asynchronous is awaited from afar; what is not
is done at once and waited for. Objects that the store shares are copied, so that nobody can change
what others read.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import fields
from typing import Any

from controller.reconcile.actuator import Context, Tuning
from crds.base import Resource

ANSWER_SECONDS = 30.0
"""For a call that costs no I/O: the controller's loop is busy, or gone."""


def bridged(ctx: Context, home: asyncio.AbstractEventLoop) -> Context:
    """``ctx`` for use in another thread. ``home``: the controller's loop."""
    far: list[Context] = []

    def back(value: Any) -> Any:
        """What is handed to the controller: it works with its own context, not with the bridge."""
        return ctx if far and value is far[0] else value

    parts = {part.name: getattr(ctx, part.name) for part in fields(ctx)}
    made: dict[str, Any] = {
        name: value if isinstance(value, Tuning | dict) else _far(value, home, back)
        for name, value in parts.items()
    }
    far.append(Context(**made))
    return far[0]


def _far(target: Any, home: asyncio.AbstractEventLoop, back: Callable[[Any], Any]) -> Any:
    return _call_of(target, home, back) if callable(target) else Bridge(target, home, back)


class Bridge:
    """Any part of a Context: its methods, called from another thread."""

    def __init__(
        self, target: Any, home: asyncio.AbstractEventLoop, back: Callable[[Any], Any]
    ) -> None:
        self._target, self._home, self._back = target, home, back

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return _call_of(value, self._home, self._back) if callable(value) else value


def _call_of(
    method: Callable[..., Any], home: asyncio.AbstractEventLoop, back: Callable[[Any], Any]
) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        async def wait(*arguments: Any, **named: Any) -> Any:
            here = [back(value) for value in arguments]
            call = method(*here, **{key: back(value) for key, value in named.items()})
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, home))

        return wait

    def ask(*arguments: Any, **named: Any) -> Any:
        future: Future[Any] = Future()

        def answer() -> None:
            try:
                future.set_result(_copied(method(*arguments, **named)))
            except Exception as error:
                future.set_exception(error)

        home.call_soon_threadsafe(answer)
        return future.result(ANSWER_SECONDS)

    return ask


def _copied(value: Any) -> Any:
    """A private copy of what the store shares; iterators become lists."""
    if isinstance(value, Resource):
        return value.model_copy(deep=True)
    if isinstance(value, tuple):
        return tuple(_copied(item) for item in value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return [_copied(item) for item in value]
    return value
