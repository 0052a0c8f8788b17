"""The chart, rendered by a real Helm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "kumulus"
RELEASE, NAMESPACE = "cloud", "kumulus-system"
FULLNAME = "cloud-kumulus"
Wire = dict[str, Any]


class HelmFailed(Exception):
    """What Helm said."""


def helm(*arguments: str | Path, home: Path) -> str:
    """Standard output. Raises HelmFailed; skips the test without Helm."""
    unpacked = REPOSITORY / ".cache" / "bin" / "helm"
    tool = shutil.which("helm") or (str(unpacked) if unpacked.exists() else None)
    if tool is None:
        pytest.skip("no helm; scripts/tool helm fetches one")
    done = subprocess.run(
        [tool, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )
    if done.returncode:
        raise HelmFailed(done.stdout + done.stderr)
    return done.stdout


def render(home: Path, values: Wire | None = None, *flags: str | Path) -> list[Wire]:
    """The manifests that an installation with these values applies."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the definitions are long
    return [each for each in yaml.load_all(text(home, values, *flags), loader) if each]


def text(home: Path, values: Wire | None = None, *flags: str | Path) -> str:
    file = home / "values.json"
    file.write_text(json.dumps(values or {}))
    return helm(
        "template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", file, *flags, home=home
    )  # fmt: skip


def find(manifests: list[Wire], kind: str) -> Wire:
    """The only one of its kind."""
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found
