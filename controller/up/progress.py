"""Waits until objects are ready, telling what happens meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controller.up.view import Row

POLL_SECONDS = 0.2
Key = tuple[str, str, str]


class Reporter(Protocol):
    """Shows rows to a person, again and again."""

    def show(self, rows: Sequence[Row]) -> None: ...


@dataclass
class Lines:
    """For pipes and CI: a line whenever an object's state changes or it becomes ready."""

    write: Callable[[str], None]
    seen: dict[Key, tuple[str, bool]] = field(default_factory=dict)

    def show(self, rows: Sequence[Row]) -> None:
        for row in rows:
            now = (row.state, row.ready)
            if self.seen.get(row.key, ("", False)) != now:
                self.seen[row.key] = now
                word = "ready" if row.ready else "waits"
                self.write(f"{word}  {row.title}  {row.state}  {row.note}".rstrip())


def wait_ready(
    look: Callable[[], Sequence[Row]],
    wanted: Collection[Key],
    seconds: float,
    reporter: Reporter,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Row]:
    """Look until everything wanted is ready or ``seconds`` are over; returns what is not.

    An object that is wanted and does not exist counts as not ready. Ends early when everything
    that is not ready is stalled: waiting cannot help that.
    """
    end = clock() + seconds
    while True:
        rows = [row for row in look() if row.key in wanted]
        rows += [_absent(key) for key in sorted(set(wanted) - {row.key for row in rows})]
        reporter.show(rows)
        missing = [row for row in rows if not row.ready]
        if not missing or clock() >= end or all(row.stalled for row in missing):
            return missing
        sleep(POLL_SECONDS)


def explain(missing: Sequence[Row]) -> str:
    """Why not everything is ready, the causes first: what is stalled, then what waits for it."""
    ordered = sorted(missing, key=lambda row: (not row.stalled, row.kind, row.name))
    return "\n".join(f"  {row.title}: {row.note}" for row in ordered)


def _absent(key: Key) -> Row:
    return Row(*key, "", False, False, False, "NotFound", "does not exist")
