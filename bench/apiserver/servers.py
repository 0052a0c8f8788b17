"""The servers that are compared: started, restarted on their data, and what they use."""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.apiserver.wire import Address
from controller.up.process import Process, usage
from tests.conformance.client import Cluster
from tests.support import reference
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
LOOPBACK = "127.0.0.1"


class Start(NamedTuple):
    """From a server's start until it is ready: the time, and the CPU of its processes. Seconds."""

    seconds: float
    cpu: float


class Server(Protocol):
    """A running server; what it uses is the sum over its processes."""

    name: str

    def cluster(self) -> Cluster: ...
    def address(self) -> Address: ...

    def cpu(self) -> float:
        """Seconds used so far."""

    def resident(self) -> float:
        """MiB."""

    def restart(self) -> Start:
        """End it and start it on the same data."""


def _cpu(*pids: int) -> float:
    return sum(usage(pid).cpu for pid in pids)


def _resident(*pids: int) -> float:
    return sum(usage(pid).resident for pid in pids) / 2**20


@dataclass
class Embedded:
    """``kumulus api-server``, as ``kumulus up`` starts it."""

    directory: Path
    name: str = "embedded"
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Seconds until it is ready."""
        began = time.perf_counter()
        arguments = ["api-server", "--data-dir", str(self.directory), "--port", str(self.port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "controller.cli", *arguments, "--log-level", "warning"],
            cwd=ROOT, env=_environment(),
        )  # fmt: skip
        _wait_ready(self._process, self.directory / "pki" / "ca.crt", self.port)
        return time.perf_counter() - began

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()

    def restart(self) -> Start:
        self.stop()
        return Start(self.start(), self.cpu())

    def cluster(self) -> Cluster:
        return Cluster(self.directory / "kubeconfig")

    def address(self) -> Address:
        return Address(LOOPBACK, self.port, self.cluster().context)

    def cpu(self) -> float:
        return _cpu(self.pid)

    def resident(self) -> float:
        return _resident(self.pid)


@dataclass
class Reference:
    """The reference server and its etcd (which runs without fsync)."""

    kubeconfig: Path
    name: str = "reference"

    @property
    def _directory(self) -> Path:
        return self.kubeconfig.parent

    def _pid(self, name: str) -> int:
        return int((self._directory / f"{name}.pid").read_text())

    def restart(self) -> Start:
        """The API server alone: etcd keeps the data."""
        pid = self._pid("apiserver")
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        server = Process.of(pid)
        assert server is not None
        server.stop(START_SECONDS)
        began, before = time.perf_counter(), _cpu(self._pid("etcd"))
        with (self._directory / "apiserver.log").open("ab") as log:
            process = subprocess.Popen(arguments, cwd=self._directory, stdout=log, stderr=log)
        (self._directory / "apiserver.pid").write_text(str(process.pid))
        _wait_ready(process, self._directory / "pki" / "ca.crt", self.address().port)
        return Start(time.perf_counter() - began, self.cpu() - before)

    def cluster(self) -> Cluster:
        return Cluster(self.kubeconfig)

    def address(self) -> Address:
        cluster = self.cluster()
        return Address(LOOPBACK, cluster.connection().port or 443, cluster.context)

    def cpu(self) -> float:
        return _cpu(self._pid("apiserver"), self._pid("etcd"))

    def resident(self) -> float:
        return _resident(self._pid("apiserver"), self._pid("etcd"))


def _environment() -> dict[str, str]:
    """As where Kumulus is installed: its byte code is written, by the first start at the latest."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def _wait_ready(process: subprocess.Popen[bytes], ca: Path, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (ca.exists() and _is_ready(_trusting(ca), port)):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError("the server did not become ready")
        time.sleep(0.01)


@functools.cache
def _trusting(ca: Path) -> ssl.SSLContext:
    """Made once: what the wait for a start takes, the start lacks."""
    return ssl.create_default_context(cafile=str(ca))


def _is_ready(context: ssl.SSLContext, port: int) -> bool:
    try:
        with urllib.request.urlopen(
            f"https://{LOOPBACK}:{port}/readyz", context=context, timeout=5
        ) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def embedded() -> Iterator[Embedded]:
    """A new embedded server; it ends, and its data go, with the block."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR")) as directory:
        server = Embedded(Path(directory))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def upstream() -> Iterator[Reference]:
    """A new reference server, where there is one (``tests.support.reference.missing``)."""
    with reference.reference_cluster() as kubeconfig:
        yield Reference(kubeconfig)
