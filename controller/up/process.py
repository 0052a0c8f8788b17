"""Processes by pid and start time, so that a pid used again is never taken for ours (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

SUPERVISED = "KUMULUS_SUPERVISED"
"""Set for children of a supervisor: they end when it does."""

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Process:
    """A process: its pid, and its start time in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now; None if there is none, or it is a zombie."""
        fields = _stat(pid)
        if fields is None or fields[0] == "Z":
            return None
        return cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it still is this process."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def wait(self, seconds: float) -> bool:
        """True once it has ended; False if it still runs after ``seconds``."""
        end = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def stop(self, seconds: float) -> None:
        """Ask it to end; after ``seconds`` make it."""
        self.signal(signal.SIGTERM)
        if not self.wait(seconds):
            self.signal(signal.SIGKILL)
            self.wait(seconds)


@dataclass(frozen=True)
class Usage:
    """What a process has used: CPU seconds in all, and resident bytes now."""

    cpu: float
    resident: int


def usage(pid: int) -> Usage:
    """Raises ProcessLookupError if there is no such process."""
    fields = _stat(pid)
    if fields is None:
        raise ProcessLookupError(pid)
    ticks = int(fields[11]) + int(fields[12])
    pages = int(fields[21])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def die_with_parent() -> None:
    """In a supervisor's child: end, as if asked to, when the supervisor is gone (kill -9 too)."""
    if SUPERVISED not in os.environ:
        return
    supervisor = os.environ.pop(SUPERVISED)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if str(os.getppid()) != supervisor:
        raise SystemExit("the supervisor is gone")


def listener(port: int, host: str = "127.0.0.1") -> str | None:
    """Who listens on the port: ``pid 123 (name)`` or "another process"; None if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return _holder(port) or "another process"
    return None


def _holder(port: int) -> str | None:
    inodes = set(_listening_inodes(port))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and inodes & _socket_inodes(entry):
            name = (entry / "comm").read_text().strip()
            return f"pid {entry.name} ({name})"
    return None


def _listening_inodes(port: int) -> list[str]:
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            listening = fields[3] == "0A"
            if listening and int(fields[1].rpartition(":")[2], 16) == port:
                found.append(f"socket:[{fields[9]}]")
    return found


def _socket_inodes(process: Path) -> set[str]:
    """What its descriptors are; nothing for processes that we may not look into."""
    found = set()
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found.add(str(link.readlink()))
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on; the name before may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()
