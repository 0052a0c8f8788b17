"""Watching through kopf, by its event handler alone.

kopf would do much more: keep the last handled state in annotations, post events, install signal
handlers, end the process. All of that is switched off here. It ends on some errors and never
comes back by itself, so it is run anew with a growing pause; what it misses meanwhile, and the
deletions that it loses while no watch is open, the key comparison finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import kopf

from controller import metrics
from controller.client import Api
from controller.objects import resource_of
from controller.rights import OnKinds
from controller.watch.base import Change, Sink
from crds.base import Resource

log = logging.getLogger(__name__)

RIGHTS = (OnKinds(("list", "watch")),)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY = 60.0
"""Seconds after which a run counts as a success: the next pause is short again."""
WORKER_IDLE = 1.0
STOP_SECONDS = 10.0


class KopfSource:
    """Implements watch.base.Source. ``on_restart`` is called before each new run but the first.

    ``signals``: called once kopf runs, since it takes the process's signal handlers away.
    """

    def __init__(
        self,
        api: Api,
        models: Mapping[str, type[Resource]],
        *,
        on_restart: Callable[[], None] = lambda: None,
        signals: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._models = models
        self._on_restart = on_restart
        self._signals = signals
        self._task: asyncio.Task[None] | None = None

    async def start(self, sink: Sink) -> None:
        self._task = asyncio.create_task(self._supervise(sink), name="kopf")

    async def settled(self) -> None:
        """At once: the comparison fills the store."""

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _supervise(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            began = loop.time()
            try:
                await self._run_once(sink)
                log.warning("kopf ended; it is started again")
            except Exception as error:
                log.warning("kopf ended; it is started again", extra={"why": repr(error)})
            metrics.WATCH_RESTARTS.inc()
            deaths = 1 if loop.time() - began > STEADY else deaths + 1
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (deaths - 1))
            await asyncio.sleep(longest * (1 - random.random() / 4))  # noqa: S311 - jitter
            self._on_restart()

    async def _run_once(self, sink: Sink) -> None:
        """Until one of kopf's root tasks ends. Raises what it raised.

        kopf's own runner would, at its end, cancel every task in the loop that is younger than it
        is; ours are among them.
        """
        tasks = await kopf.spawn_tasks(
            registry=self._handlers(sink),
            settings=_settings(),
            standalone=True,
            clusterwide=True,
            identity=None,
        )
        _drop_signal_handlers()
        self._signals()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(tasks)
        for task in done:
            # Who cancels one of kopf's tasks must not end us with it.
            if not task.cancelled():
                task.result()

    def _handlers(self, sink: Sink) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def login(**_: Any) -> kopf.AiohttpSession:
            session = self._api.new_session(await self._api.authorization())
            return kopf.AiohttpSession(server=self._api.server, aiohttp_session=session)

        kopf.on.login(registry=registry, id="login")(login)
        for kind, model in self._models.items():
            resource = resource_of(model)
            watch = kopf.on.event(
                resource.group, resource.version, resource.plural, registry=registry, id=kind
            )
            watch(_handler(kind, sink))
        return registry


def _handler(kind: str, sink: Sink) -> Callable[..., Any]:
    async def handle(event: Mapping[str, Any], **_: Any) -> None:
        change = Change.GONE if event["type"] == "DELETED" else Change.PRESENT
        sink(change, kind, event["object"])

    return handle


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    # None: or kopf kills the process some minutes after it was stopped.
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.idle_timeout = WORKER_IDLE
    settings.networking.error_backoffs = _Backoffs()
    settings.networking.connect_timeout = 5.0
    settings.networking.request_timeout = 60.0
    settings.watching.connect_timeout = 5.0
    return settings


class _Backoffs(Iterable[float]):
    """Pauses that never end: the API server comes back some day, and kopf must still be there."""

    def __iter__(self) -> Iterator[float]:
        growing = (0.25, 0.5, 1.0, 2.0, 5.0)
        return itertools.chain(growing, itertools.repeat(10.0))


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no last handled state: nothing here asks what has changed."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Keeps no handler's progress: there is none."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def _drop_signal_handlers() -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.remove_signal_handler(number)


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel kopf's tasks and wait for them: some of them cancel and wait for others."""
    for task in tasks:
        task.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.gather(*tasks, return_exceptions=True)
