"""What commands print with: one console each for results and for errors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from controller.errors import KumulusError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class CommandFailed(KumulusError):
    """A command cannot go on; its message says why and what to do."""

    default_reason = "CommandFailed"


def say(text: str = "") -> None:
    """A plain line, exactly as given."""
    out.print(Text(text))


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of lines as long as they need to be: names stay whole, so that they can be copied
    and searched for, as kubectl prints them."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(header))]
    for row in table:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def shown(path: Path) -> str:
    """A path as a person in this directory would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def fail(message: str, code: int = 1) -> NoReturn:
    """Print the error in red and end."""
    err.print(Text(f"error: {message}", style="red"))
    sys.exit(code)
