"""Plugins for tests: the example, installed for real into a directory of its own; and toys."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin-energy"


def install(target: Path, work: Path, source: Path = EXAMPLE) -> Path:
    """Build the package and install it into ``target``, which is to go on the PYTHONPATH. ``work``:
    where it is built, since a build leaves files beside the sources."""
    copy = work / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
            "--no-build-isolation", "--disable-pip-version-check", "--target", str(target),
            str(copy),
        ],
        check=True,
        timeout=120,
    )  # fmt: skip
    return target


class _Distribution:
    """What crds.plugins reads of an installed distribution."""

    def __init__(self, name: str) -> None:
        self.name, self.version = name, "0.1"


def points(
    plugin: str, parts: Mapping[str, Mapping[str, str]], interface: str | None = "1.0"
) -> list[EntryPoint]:
    """Entry points of a plugin that is not installed. ``parts``: group → name → value."""
    groups = {**parts, **({"interface": {interface: plugin}} if interface else {})}
    found = [
        EntryPoint(name, value, f"kumulus.{group}")
        for group, names in groups.items()
        for name, value in names.items()
    ]
    for point in found:
        vars(point)["dist"] = _Distribution(plugin)
    return found
