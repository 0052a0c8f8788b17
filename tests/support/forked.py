"""The embedded API server, started often: a parent that has imported it forks it.

A start costs a tenth of a process that imports everything first. ``ForkedApiServer`` is the test's
side; run as a module, this is the parent. It takes a word a line on stdin and answers each with a
line of JSON; when its stdin ends, so does the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.apiserver.store.log import Synchronous
from tests.support.apiserver import ROOT, run


@dataclass
class ForkedApiServer:
    """A server on a free loopback port, another one at each start."""

    directory: Path
    parent: subprocess.Popen[str]
    url: str = ""

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    def start(self) -> None:
        """Returns when it answers."""
        self.url = self._ask("start")["url"]

    def kill(self) -> None:
        """kill -9; returns when the process has ended."""
        self._ask("kill")

    def _ask(self, word: str) -> dict[str, Any]:
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        self.parent.stdin.write(word + "\n")
        self.parent.stdin.flush()
        line = self.parent.stdout.readline()
        if not line:
            raise RuntimeError(f"the API server's parent ended at {word!r}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def forked(directory: Path, synchronous: Synchronous) -> Iterator[ForkedApiServer]:
    """Not started yet. Whatever runs ends with the block."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked", str(directory), synchronous],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        yield ForkedApiServer(directory, parent)
    finally:
        parent.stdin.close()
        try:
            parent.wait(30)
        finally:
            parent.kill()
            parent.wait()
            parent.stdout.close()


def _main(directory: Path, synchronous: Synchronous) -> None:
    child = 0
    lifeline, held = os.pipe()  # its other end closes when this process ends, however it ends
    while word := sys.stdin.readline().strip():
        if word == "start":
            child = os.fork()
            if not child:
                os.close(held)
                run(directory, 0, synchronous, judge=False, lifeline=lifeline)
                os._exit(0)
        else:
            _end(child)
            child = 0
            sys.stdout.write(json.dumps({"ended": True}) + "\n")
            sys.stdout.flush()
    if child:
        _end(child)


def _end(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])  # type: ignore[arg-type]
