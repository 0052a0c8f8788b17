"""Keeps the children of an embedded cloud running, until it is told to stop.

A child that dies is started again after a back-off that grows while it keeps dying; it is told
to end by SIGTERM, in the reverse of the order of starting, and killed if it does not listen. When
the supervisor itself is killed, its children end too (``process.die_with_parent``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.up.layout import Layout
from controller.up.process import SUPERVISED, Process
from controller.up.state import ChildState, CloudState

log = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_MOST = 0.5, 30.0
STEADY_SECONDS = 30.0
"""A child that ran so long has recovered: its next back-off is short again."""
STOP_SECONDS = 10.0
GATE_SECONDS = 0.1
LOG_CHECK_SECONDS = 30.0
LOG_BYTES = 32 * 2**20

Gate = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Child:
    """A process to keep running. ``gate`` must answer True before it is started."""

    name: str
    command: Sequence[str]
    gate: Gate | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Supervisor:
    """Runs ``children``; every change is written to the layout's state file."""

    layout: Layout
    state: CloudState
    children: Sequence[Child]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        self.save()
        log.info("started", extra={"children": [child.name for child in self.children]})
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep(child)) for child in self.children]
            keepers.append(tasks.create_task(self._bound_logs()))
            await self.stopping.wait()
            await self._stop_all()
            for keeper in keepers:
                keeper.cancel()
        log.info("stopped")

    def save(self) -> None:
        self.state.save(self.layout.state)

    async def _keep(self, child: Child) -> None:
        deaths = 0
        while not self.stopping.is_set():
            await self._pass_gate(child)
            if self.stopping.is_set():
                return
            began = time.monotonic()
            code = await self._run_once(child)
            if self.stopping.is_set():
                return
            deaths = 0 if time.monotonic() - began > STEADY_SECONDS else deaths + 1
            pause = backoff(deaths)
            log.warning(
                "child died; starting it again",
                extra={"child": child.name, "exit": describe_exit(code), "in_seconds": pause},
            )
            await self._sleep(pause)

    async def _pass_gate(self, child: Child) -> None:
        while child.gate is not None and not self.stopping.is_set():
            if await child.gate():
                return
            await self._sleep(GATE_SECONDS)

    async def _run_once(self, child: Child) -> int:
        process = await self._spawn(child)
        self.processes[child.name] = process
        known = self.state.children.setdefault(child.name, ChildState(restarts=-1))
        identity = Process.of(process.pid)
        known.pid, known.restarts = process.pid, known.restarts + 1
        known.started = identity.started if identity is not None else 0
        self.save()
        code = await process.wait()
        known.pid, known.exit = None, describe_exit(code)
        self.save()
        return code

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        with self.layout.log(child.name).open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **child.environment, SUPERVISED: str(os.getpid())},
            )

    async def _stop_all(self) -> None:
        for child in reversed(self.children):
            process = self.processes.get(child.name)
            if process is not None and process.returncode is None:
                await stop(process)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _bound_logs(self) -> None:
        while True:
            for child in self.children:
                rotate(self.layout.log(child.name))
            await asyncio.sleep(LOG_CHECK_SECONDS)


async def stop(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL if it has not ended after STOP_SECONDS."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def backoff(deaths: int, spread: Callable[[], float] = random.random) -> float:
    """Seconds before the next start: doubling, bounded, with up to a quarter of jitter."""
    longest = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(deaths, 16))
    return round(longest * (1 - spread() / 4), 2)


def describe_exit(code: int) -> str:
    """``exit 1`` or ``signal SIGKILL``."""
    if code >= 0:
        return f"exit {code}"
    return f"signal {signal.Signals(-code).name}"


def rotate(path: Path, limit: int = LOG_BYTES) -> None:
    """Keep a log below about ``limit`` bytes: the old half goes to ``.1``.

    Its writer appends, so it goes on at the start of the emptied file.
    """
    if path.exists() and path.stat().st_size > limit:
        path.with_suffix(".log.1").write_bytes(path.read_bytes())
        os.truncate(path, 0)
