"""kubectl against a cluster that a test started."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

TIMEOUT = 60


@dataclass(frozen=True)
class Kubectl:
    """``kubectl("get", "vm")`` → what it wrote; RuntimeError with its errors if it failed."""

    kubeconfig: Path
    cache: Path
    """kubectl's own cache directory, so that clusters of tests do not share discovery."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        if shutil.which("kubectl") is None:
            pytest.skip("kubectl is not installed")
        flags = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.cache}"]
        return subprocess.run(
            ["kubectl", *flags, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> str:
        return self("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def refused(self, verb: str, *objects: dict[str, Any]) -> str:
        """What the API server says against these objects; AssertionError if it takes them."""
        done = self.run(verb, "-f", "-", stdin=yaml.safe_dump_all(objects))
        assert done.returncode, f"the server took it: {done.stdout}"
        return done.stderr

    def table(self, *arguments: str) -> list[list[str]]:
        """Rows of cells, the header first. Cells are cut where the header's columns begin."""
        lines = [line for line in self("get", *arguments).splitlines() if line.strip()]
        starts = [
            i for i, char in enumerate(lines[0]) if char != " " and lines[0][max(i - 1, 0)] in " "
        ]
        starts = [0, *(start for start in starts if start)]
        ends = [*starts[1:], None]
        return [
            [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
            for line in lines
        ]
