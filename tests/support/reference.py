"""The upstream API server as a cluster for tests, where ``../shared/reference-apiserver`` is."""

from __future__ import annotations

import fcntl
import lzma
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT.parent / "shared" / "reference-apiserver"
CACHE = ROOT / ".cache" / "reference"
TOOLS = ("bash", "curl", "openssl", "xz")
PORTS = 3
"""The API server's, and the two after it for its etcd."""


def missing() -> str | None:
    """Why there is no reference server here, or None."""
    if not (FOLDER / "start").exists():
        return "no ../shared/reference-apiserver beside the project"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"the reference API server needs {', '.join(absent)}" if absent else None


@contextmanager
def reference_cluster() -> Iterator[Path]:
    """A running reference server's kubeconfig. It ends, and its data go, with the block."""
    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="reference-") as directory:
        for program in _programs():
            _place(program, Path(directory, program.name))
        try:
            yield Path(_start(directory))
        finally:
            _run("stop", directory)


def _programs() -> list[Path]:
    """Unpacked once; ``start`` would do it for each server, which takes it most of its time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return [_unpacked(packed) for packed in FOLDER.glob("*.xz")]


def _unpacked(packed: Path) -> Path:
    program = CACHE / packed.stem
    if not program.exists() or program.stat().st_mtime < packed.stat().st_mtime:
        scratch = program.with_suffix(".new")
        with lzma.open(packed) as source, scratch.open("wb") as target:
            shutil.copyfileobj(source, target)
        scratch.chmod(0o755)
        scratch.replace(program)
    return program


def _place(program: Path, there: Path) -> None:
    """No symbolic link: ``stop`` ends only what runs from its directory."""
    try:
        there.hardlink_to(program)
    except OSError:  # another file system
        shutil.copy2(program, there)


def _start(directory: str) -> str:
    """Starts it; on another port if somebody took one of the free ones in between."""
    for _ in range(4):
        done = _run("start", directory, str(free_ports(PORTS)[0]))
        if done.returncode == 0:
            return done.stdout.strip().splitlines()[-1]
        _run("stop", directory)
    raise RuntimeError(f"the reference API server does not start: {done.stderr}")


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(FOLDER / script), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
