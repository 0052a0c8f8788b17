"""``kumulus logs``: the JSON logs of an embedded cloud's processes, for people."""

from __future__ import annotations

import heapq
import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from rich.text import Text

from controller.cli.output import CommandFailed, out
from controller.up.layout import Layout

POLL_SECONDS = 0.2
STYLES = {"debug": "dim", "info": "green", "warning": "yellow", "error": "red", "critical": "red"}
SUBJECT = ("kind", "namespace", "name", "operation")
PLAIN = {"time", "level", "logger", "message", "component", "error", *SUBJECT}

Entry = dict[str, Any]


@dataclass(frozen=True)
class Filter:
    """What to show; None: everything. ``level``: this and worse."""

    kind: str | None = None
    name: str | None = None
    operation: str | None = None
    level: str = "debug"

    def matches(self, entry: Mapping[str, Any]) -> bool:
        wanted = {"name": self.name, "operation": self.operation}
        if any(value is not None and entry.get(key) != value for key, value in wanted.items()):
            return False
        if self.kind is not None and str(entry.get("kind", "")).lower() != self.kind.lower():
            return False
        return _severity(str(entry.get("level", "info"))) >= _severity(self.level)


def show_logs(
    data_dir: Path, component: str | None, wanted: Filter, *, tail: int, follow: bool
) -> None:
    """Print the logs. Raises CommandFailed if there are none."""
    paths = _paths(data_dir, component)
    # A lone tail is read through a bounded window, so that large logs need little memory.
    entries = (entry for entry in heapq.merge(*map(_read, paths), key=_time))
    chosen = (entry for entry in entries if wanted.matches(entry))
    ends = {path: path.stat().st_size for path in paths}
    for entry in deque(chosen, maxlen=tail or None):
        out.print(pretty(entry))
    if follow:
        for entry in _follow(ends):
            if wanted.matches(entry):
                out.print(pretty(entry))


def parse(line: str, component: str) -> Entry:
    """An entry of a log line; a line that is no JSON (a crash's last words) is its message."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        entry = {"message": line.rstrip("\n"), "level": "error"}
    return {**entry, "component": component}


def pretty(entry: Mapping[str, Any]) -> Text:
    """One line: time, level, component, what it is about, message, other fields."""
    level = str(entry.get("level", ""))
    moment = str(entry.get("time", ""))[11:23]
    line = Text(f"{moment:<12} ", style="dim")
    line.append(f"{level.upper():<7} ", style=STYLES.get(level, ""))
    line.append(f"{entry['component']:<10} ", style="dim")
    about = "/".join(str(entry[key]) for key in SUBJECT[:3] if entry.get(key))
    if about:
        line.append(f"{about} ", style="bold")
    line.append(str(entry.get("message", "")))
    if entry.get("operation"):
        line.append(f" operation={entry['operation']}", style="cyan")
    for key, value in entry.items():
        if key not in PLAIN and value not in ("", None):
            line.append(f" {key}={value}", style="dim")
    if entry.get("error"):
        line.append(f"\n{entry['error']}", style="red")
    return line


def last_words(path: Path) -> str:
    """The last message in a log: why its process ended."""
    entries = deque(_read(path), maxlen=1) if path.exists() else deque()
    for entry in entries:
        return str(entry.get("message", ""))
    return f"it said nothing; see {path}"


def _paths(data_dir: Path, component: str | None) -> list[Path]:
    layout = Layout(data_dir)
    found = sorted(layout.logs.glob("*.log"))
    if not found:
        raise CommandFailed(f"no logs in {layout.logs}; start a cloud with `kumulus up`")
    if component is None:
        return found
    if layout.log(component) not in found:
        names = ", ".join(path.stem for path in found)
        raise CommandFailed(f"no component {component!r}; there are {names}")
    return [layout.log(component)]


def _read(path: Path) -> Iterator[Entry]:
    last = ""
    with path.open(errors="replace") as lines:
        for line in lines:
            entry = parse(line, path.stem)
            last = entry.setdefault("time", last)
            yield entry


def _follow(ends: Mapping[Path, int]) -> Iterator[Entry]:
    files = {path: path.open(errors="replace") for path in ends}
    for path, file in files.items():
        file.seek(ends[path])
    try:
        while True:
            for path, file in files.items():
                yield from (parse(line, path.stem) for line in _new_lines(path, file))
            time.sleep(POLL_SECONDS)
    finally:
        for file in files.values():
            file.close()


def _new_lines(path: Path, file: TextIOWrapper) -> list[str]:
    if path.stat().st_size < file.tell():  # emptied by the supervisor
        file.seek(0)
    lines: list[str] = []
    while True:
        begin = file.tell()
        line = file.readline()
        if not line.endswith("\n"):  # half a line: read it again when it is whole
            file.seek(begin)
            return lines
        lines.append(line)


def _time(entry: Mapping[str, Any]) -> str:
    return str(entry.get("time", ""))


def _severity(level: str) -> int:
    known = logging.getLevelNamesMapping().get(level.upper())
    if known is None:
        raise CommandFailed(f"no level {level!r}; there are debug, info, warning and error")
    return known
