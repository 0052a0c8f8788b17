"""Files that are either there whole or not at all. Blocking: call them in a thread."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write beside ``path``, flush to the disk, rename over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_for(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    commit(temporary, path)


def temporary_for(path: Path) -> Path:
    """Where ``path`` is made: one place a path, so that a crash leaves at most one."""
    return path.with_name(f".{path.name}.tmp")


def is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def commit(temporary: Path, path: Path) -> None:
    """Rename, and make the rename durable."""
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_json(path: Path) -> Any:
    """The content, or None when there is none."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads(path.read_bytes())
    return None


def read_text(path: Path) -> str:
    """The content, "" when there is none."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return ""
