"""The supervisor with real processes: children that die, do not listen, or lose their parent."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.up import state, supervisor
from controller.up.layout import Layout
from controller.up.process import Process
from controller.up.supervisor import Child, Supervisor
from tests.support.waiting import until

SLEEPER = (sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(60)")
DEAF = (
    sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('awake', flush=True); time.sleep(60)",
)  # fmt: skip
SUPERVISED = """
import asyncio, sys
from pathlib import Path
from controller.up.layout import Layout
from controller.up.state import CloudState
from controller.up.supervisor import Child, Supervisor

child = (
    "from controller.up.process import die_with_parent; die_with_parent();"
    "import time; time.sleep(60)"
)
layout = Layout(Path(sys.argv[1]))
state = CloudState(pid=1, started=0, api_port=1, agent_port=2, controller_port=3)
asyncio.run(Supervisor(layout, state, [Child("c", (sys.executable, "-c", child))]).run())
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "cloud")
    found.make()
    return found


@contextlib.asynccontextmanager
async def supervising(layout: Layout, *children: Child) -> AsyncIterator[Supervisor]:
    described = state.CloudState(pid=1, started=0, api_port=1, agent_port=2, controller_port=3)
    running = Supervisor(layout, described, children)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        running.stopping.set()
        await asyncio.wait_for(task, 20)


def child_of(layout: Layout, name: str) -> Process | None:
    found = state.load(layout)
    child = found.children.get(name) if found is not None else None
    return child.process if child is not None else None


async def test_a_killed_child_is_started_again(layout: Layout) -> None:
    async with supervising(layout, Child("a", SLEEPER)) as running:
        await until(
            lambda: "awake" in layout.log("a").read_text() if child_of(layout, "a") else False
        )
        first = child_of(layout, "a")
        assert first is not None
        first.signal(signal.SIGKILL)
        await until(lambda: child_of(layout, "a") not in (None, first))
        assert running.state.children["a"].restarts == 1
        assert running.state.children["a"].exit == "signal SIGKILL"
        second = child_of(layout, "a")
    assert second is not None
    assert not second.alive


async def test_a_child_waits_for_its_gate(layout: Layout) -> None:
    opened = asyncio.Event()

    async def gate() -> bool:
        return opened.is_set()

    async with supervising(layout, Child("first", SLEEPER), Child("gated", SLEEPER, gate)):
        await until(lambda: child_of(layout, "first") is not None)
        assert child_of(layout, "gated") is None
        opened.set()
        await until(lambda: child_of(layout, "gated") is not None)


async def test_stopping_ends_children_last_first_and_kills_the_deaf(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.3)
    async with supervising(layout, Child("a", SLEEPER), Child("deaf", DEAF)):
        await until(
            lambda: layout.log("deaf").exists() and "awake" in layout.log("deaf").read_text()
        )
        processes = [child_of(layout, name) for name in ("a", "deaf")]
    assert all(process is not None and not process.alive for process in processes)
    ended = state.load(layout)
    assert ended is not None
    assert ended.children["deaf"].exit == "signal SIGKILL"
    assert ended.children["a"].exit == "signal SIGTERM"


async def test_children_of_a_killed_supervisor_end(layout: Layout) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISED, str(layout.root), stderr=subprocess.DEVNULL
    )
    try:
        await until(lambda: child_of(layout, "c") is not None)
        child = child_of(layout, "c")
        assert child is not None
        # It ends by PDEATHSIG, or at once if it comes too late to be told: both must do.
    finally:
        process.kill()
        await process.wait()
    await until(lambda: not child.alive)
