"""Where one plugin's code runs: a thread with an event loop of its own.

The controller's loop waits for what a room does, for a limited time, and never runs it. So

- what raises, is an error of the plugin;
- what waits for ever, is cancelled when its time is over;
- what blocks the thread (a loop without end, a call that sleeps), is noticed since the room's
  clock stops. The thread is told to end, left alone, and replaced; until a pause that doubles each
  time is over, the room refuses work at once instead of letting others wait for it;
- tasks that a call leaves behind are cancelled and counted;
- of the workers of queues that others need, no more than ``width`` wait for one plugin.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import inspect
import itertools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge

from controller.errors import KumulusError, Transient, Waiting

log = logging.getLogger(__name__)
T = TypeVar("T")

TICK, POLL = 0.05, 0.25
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
MOST_LOST = 8
"""Threads that could not be ended (they are within a C call); with so many no more are begun."""
OBSERVER_SECONDS = 30.0
CLOSE_SECONDS = 1.0
LAST_TURNS = 8
POSTED = 1024
"""Events that wait for a plugin's observers; what comes then is dropped."""

FAILURES = Counter(
    "kumulus_plugin_failures",
    "What plugins did wrong: raised, timeout, blocked, leaked, busy, dropped, broken.",
    ["plugin", "what"],
)
HEALTHY = Gauge("kumulus_plugin_healthy", "1 while a plugin's room takes work.", ["plugin"])
_look: contextvars.ContextVar[set[asyncio.Task[Any]] | None] = contextvars.ContextVar(
    "look", default=None
)


class PluginFailed(Transient):
    """A plugin did what it should not: tried again with back-off."""

    default_reason = "PluginFailed"


class PluginBusy(Waiting):
    """The plugin has more to do than it gets done: others' work goes before."""

    default_reason = "PluginBusy"


@dataclass(frozen=True)
class Limits:
    """``stall``: seconds that the thread may be blocked. ``width``: guests' calls at a time."""

    stall: float = 2.0
    width: int = 8


class _Evicted(SystemExit):
    """Raised within a thread that blocks, to end it. A SystemExit is what asyncio lets pass."""


@dataclass
class _Thread:
    """A running loop. ``ticks``: grows as long as it is not blocked."""

    name: str
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    ticks: int = 0
    thread: threading.Thread | None = None

    def start(self) -> None:
        self.loop.set_task_factory(_remember)  # type: ignore[arg-type] # it takes more
        self.loop.set_exception_handler(_left_over)
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.loop.call_soon(self._tick)
        for part in (self.loop.run_forever, self._cancel_all):
            try:
                part()
            except _Evicted:
                log.debug("a blocked thread has ended", extra={"thread": self.name})
        self.loop.close()

    def _cancel_all(self) -> None:
        """Tell the tasks that are left, and give them a few turns to end."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(LAST_TURNS):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def _tick(self) -> None:
        self.ticks += 1
        self.loop.call_later(TICK, self._tick)

    @property
    def alive(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def soon(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Have it called within the thread, if that is still there."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(call, *arguments)

    def stop(self) -> None:
        self.soon(self.loop.stop)

    def evict(self) -> None:
        """End it wherever it is. It works once Python code runs in it again."""
        self.stop()
        ident = self.thread.ident if self.thread is not None else None
        if ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(ident), ctypes.py_object(_Evicted)
            )


def _remember(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """A task factory that notes which call a task belongs to."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    mine = _look.get()
    if mine is not None:
        mine.add(task)
        task.add_done_callback(mine.discard)
    return task


def _left_over(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody waited for. An evicted task's end is no news."""
    error = context.get("exception")
    if not isinstance(error, _Evicted):
        log.warning("left over in a plugin: %s", context.get("message"), exc_info=error)


class Room:
    """The room of one plugin. Use within one event loop; the thread starts with the first call."""

    def __init__(self, plugin: str, limits: Limits | None = None) -> None:
        self.plugin = plugin
        self.limits = limits or Limits()
        self.broken = ""
        """Why it takes no work for now; "" when it does."""
        self._thread: _Thread | None = None
        self._lost: list[_Thread] = []
        self._seen = (-1, 0, 0.0)
        """(ticks, how often we saw no new ones, when we looked)"""
        self._number = itertools.count(1)
        self._guests = 0
        self._posted = 0
        self._until, self._pause = 0.0, FIRST_PAUSE
        HEALTHY.labels(plugin).set(1)

    async def run(
        self, work: Callable[[], Awaitable[T]], limit: float, *, guest: bool = False
    ) -> T:
        """The result of ``work``, which is called in the room. ``guest``: it is called by a worker
        that others need. Raises KumulusErrors of the plugin as they are, PluginFailed for anything
        else; PluginBusy if there is no place for a guest."""
        thread = self._enter()
        if not guest:
            return await self._supervise(thread, work, limit)
        if self._guests >= self.limits.width:
            FAILURES.labels(self.plugin, "busy").inc()
            raise PluginBusy(
                f"plugin {self.plugin} has more to do than it gets done", retry_after=1
            )
        self._guests += 1
        try:
            return await self._supervise(thread, work, limit)
        finally:
            self._guests -= 1

    def post(self, work: Callable[[], Any]) -> None:
        """Have ``work`` done some time, in order, and forget it; returns at once."""
        try:
            thread = self._enter()
        except PluginFailed:
            FAILURES.labels(self.plugin, "dropped").inc()
            return
        self._check_clock(thread)
        if self._posted >= POSTED or self._thread is not thread:
            FAILURES.labels(self.plugin, "dropped").inc()
            return
        self._posted += 1
        thread.soon(self._do, work, asyncio.get_running_loop())

    def close(self) -> None:
        """End the thread; one that blocks is left to end with the process."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.thread is not None:
            thread.stop()
            thread.thread.join(CLOSE_SECONDS)

    # -- calls

    def _enter(self) -> _Thread:
        """The thread to work in. Raises PluginFailed while the room recovers."""
        now = time.monotonic()
        if now < self._until:
            left = self._until - now
            raise PluginFailed(f"{self.broken}; it is tried again", retry_after=left)
        self._lost = [thread for thread in self._lost if thread.alive]
        if len(self._lost) >= MOST_LOST:
            raise PluginFailed(
                f"{self.broken}; {MOST_LOST} of its threads cannot be ended; restart the "
                "controller",
                retry_after=LONGEST_PAUSE,
            )
        if self._thread is None:
            self._thread = _Thread(f"plugin {self.plugin} {next(self._number)}")
            self._thread.start()
        return self._thread

    async def _supervise(
        self, thread: _Thread, work: Callable[[], Awaitable[T]], limit: float
    ) -> T:
        future: Future[T] = Future()
        tasks: list[asyncio.Task[None]] = []
        context = contextvars.copy_context()

        def begin() -> None:
            call = self._call(work, future)
            tasks.append(thread.loop.create_task(call, context=context))

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        thread.soon(begin)
        waiter = asyncio.wrap_future(future)
        try:
            return await self._await(thread, waiter, limit)
        finally:
            if not waiter.done():
                waiter.cancel()
                thread.soon(cancel)

    async def _await(self, thread: _Thread, waiter: asyncio.Future[T], limit: float) -> T:
        end = time.monotonic() + limit
        while True:
            left = end - time.monotonic()
            done, _ = await asyncio.wait({waiter}, timeout=max(0.0, min(left, POLL)))
            if done:
                if self._thread is thread:
                    self._recovered()
                return waiter.result()
            self._check_clock(thread)
            if self._thread is not thread:
                raise PluginFailed(
                    self.broken, retry_after=max(0.0, self._until - time.monotonic())
                )
            if left <= 0:
                FAILURES.labels(self.plugin, "timeout").inc()
                raise PluginFailed(
                    f"plugin {self.plugin} did not end within {limit:g} s and was cut off; a step "
                    "or an actuator must raise Waiting instead of waiting"
                )

    def _check_clock(self, thread: _Thread) -> None:
        """Give up a thread that is blocked. What counts is how often its clock was seen to stand,
        not for how long: if all of this process was held up, nobody is to blame."""
        ticks, stood, when = self._seen
        now = time.monotonic()
        if self._thread is not thread or now - when < POLL / 2:
            return
        stood = stood + 1 if ticks == thread.ticks else 0
        self._seen = (thread.ticks, stood, now)
        if stood * POLL < self.limits.stall:
            return
        FAILURES.labels(self.plugin, "blocked").inc()
        HEALTHY.labels(self.plugin).set(0)
        self.broken = (
            f"plugin {self.plugin} blocked its thread for {self.limits.stall:g} s; it must await "
            "what takes time, or do it in a thread of its own"
        )
        log.error(self.broken, extra={"plugin": self.plugin, "pause": self._pause})
        self._until = time.monotonic() + self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        self._thread, self._posted, self._seen = None, 0, (-1, 0, 0.0)
        self._lost.append(thread)
        thread.evict()

    def _recovered(self) -> None:
        if self.broken:
            log.info("works again", extra={"plugin": self.plugin})
        self.broken, self._pause = "", FIRST_PAUSE
        HEALTHY.labels(self.plugin).set(1)

    # -- within the room

    async def _call(self, work: Callable[[], Awaitable[T]], future: Future[T]) -> None:
        mine: set[asyncio.Task[Any]] = set()
        _look.set(mine)
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = await work()
        except KumulusError as error:
            future.set_exception(error)
        except asyncio.CancelledError:
            future.set_exception(PluginFailed(f"plugin {self.plugin} was cut off"))
        except BaseException as error:
            FAILURES.labels(self.plugin, "raised").inc()
            log.exception("plugin failed", extra={"plugin": self.plugin})
            why = f"plugin {self.plugin}: {type(error).__name__}: {error}"
            future.set_exception(PluginFailed(f"{why}; the controller's log says where"))
            if isinstance(error, _Evicted):
                raise
        else:
            future.set_result(result)
        finally:
            self._tidy(mine)

    def _tidy(self, mine: set[asyncio.Task[Any]]) -> None:
        left = [task for task in mine if not task.done()]
        if left:
            FAILURES.labels(self.plugin, "leaked").inc(len(left))
            names = sorted({task.get_coro().__qualname__ for task in left})  # type: ignore[union-attr]
            log.warning("a plugin left tasks behind", extra={"plugin": self.plugin, "tasks": names})
        for task in left:
            task.cancel()

    def _do(self, work: Callable[[], Any], home: asyncio.AbstractEventLoop) -> None:
        """One posted piece of work; the next one comes after it, unless it is asynchronous."""
        try:
            answer = work()
            if inspect.isawaitable(answer):
                task = asyncio.get_running_loop().create_task(_finish(self.plugin, answer))
                task.add_done_callback(lambda _: _tell(home, self._posted_one))
                return
        except Exception:
            _failed(self.plugin)
        _tell(home, self._posted_one)

    def _posted_one(self) -> None:
        self._posted = max(0, self._posted - 1)


async def _finish(plugin: str, answer: Awaitable[Any]) -> None:
    try:
        async with asyncio.timeout(OBSERVER_SECONDS):
            await answer
    except Exception:
        _failed(plugin)


def _failed(plugin: str) -> None:
    FAILURES.labels(plugin, "raised").inc()
    log.exception("a plugin's observer failed", extra={"plugin": plugin})


def _tell(home: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the controller has ended
        home.call_soon_threadsafe(call)
