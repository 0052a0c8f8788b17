"""The embedded API server for tests, in a process of its own.

``embedded_cluster()`` yields a kubeconfig; ``ApiServerProcess`` can also be killed and started
again on the same data.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import uvloop

from controller.apiserver.app import ApiServerConfig, serve
from controller.apiserver.store.log import Synchronous

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60


@dataclass
class ApiServerProcess:
    """A server on a free loopback port. ``start`` waits until it answers."""

    directory: Path
    synchronous: Synchronous = "OFF"
    judge: bool = False
    url: str = ""
    port: int = 0
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def pki(self) -> Path:
        """ca.crt, admin.crt and admin.key."""
        return self.directory / "pki"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> ApiServerProcess:
        """On another port each time: somebody else may have taken the one of before."""
        arguments = [str(self.directory), "0", self.synchronous, str(self.judge)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.apiserver", *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        line = _first_line(self._process)
        if not line:
            raise RuntimeError(f"the API server ended with {self._process.wait(10)}")
        self.url = json.loads(line)["url"]
        self.port = int(self.url.rpartition(":")[2])
        return self

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_START_SECONDS)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _first_line(process: subprocess.Popen[str]) -> str:
    stdout: IO[str] | None = process.stdout
    assert stdout is not None
    return stdout.readline()


@contextmanager
def api_server(
    *, synchronous: Synchronous = "OFF", judge: bool = False
) -> Iterator[ApiServerProcess]:
    """A running server; it ends, and its data go, with the block."""
    with tempfile.TemporaryDirectory(prefix="apiserver-") as directory:
        server = ApiServerProcess(Path(directory), synchronous, judge)
        try:
            yield server.start()
        finally:
            server.stop()


@contextmanager
def embedded_cluster(*, judge: bool = False) -> Iterator[Path]:
    """A running server's kubeconfig. ``judge``: with the admission of our own kinds."""
    with api_server(judge=judge) as server:
        yield server.kubeconfig


async def _serve(
    directory: Path, port: int, synchronous: Synchronous, judge: bool, lifeline: int
) -> None:
    config = ApiServerConfig(directory, port=port, synchronous=synchronous)
    if judge:
        from controller.admission import Judge

        config.admission = Judge()
    server = await serve(config)
    sys.stdout.write(json.dumps({"url": server.url}) + "\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(lifeline, stop.set)
    await stop.wait()
    await server.close()


def run(
    directory: Path, port: int, synchronous: Synchronous, *, judge: bool, lifeline: int
) -> None:  # fmt: skip
    """Serve until SIGTERM, or until the file descriptor ``lifeline`` has something or ends."""
    uvloop.run(_serve(directory, port, synchronous, judge, lifeline))


if __name__ == "__main__":
    # The test's end closes stdin, however the test ended.
    run(
        Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3],  # type: ignore[arg-type]
        judge=sys.argv[4] == "True", lifeline=sys.stdin.fileno(),
    )  # fmt: skip
