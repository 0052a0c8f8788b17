"""How a running cloud is found: a lock that its supervisor holds, and a file that describes it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pydantic import BaseModel

from controller.up.layout import Layout
from controller.up.process import Process


class ChildState(BaseModel):
    pid: int | None = None
    started: int = 0
    restarts: int = 0
    exit: str = ""

    @property
    def process(self) -> Process | None:
        return Process(self.pid, self.started) if self.pid is not None else None


class CloudState(BaseModel):
    """What the supervisor says of itself. ``started`` as in Process."""

    pid: int
    started: int
    api_port: int
    agent_port: int
    controller_port: int
    children: dict[str, ChildState] = {}

    @property
    def process(self) -> Process:
        return Process(self.pid, self.started)

    def save(self, path: Path) -> None:
        """Atomically: a reader sees the old or the new state."""
        scratch = path.with_suffix(".new")
        scratch.write_text(self.model_dump_json(indent=1))
        scratch.replace(path)


def load(layout: Layout) -> CloudState | None:
    """The last state that was written, whether or not that cloud still runs."""
    try:
        return CloudState.model_validate_json(layout.state.read_text())
    except (FileNotFoundError, ValueError):
        return None


def running(layout: Layout) -> CloudState | None:
    """The state of the cloud that runs on this data directory; None if none does."""
    if not _held(layout.lock):
        return None
    state = load(layout)
    return state if state is not None and state.process.alive else None


def hold(layout: Layout) -> int | None:
    """Take the lock for the life of this process; None if another process has it."""
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def leftovers(layout: Layout) -> list[Process]:
    """Children of a supervisor that is gone, still on their way out."""
    state = load(layout)
    if state is None or state.process.alive:
        return []
    found = (child.process for child in state.children.values())
    return [process for process in found if process is not None and process.alive]


def _held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
