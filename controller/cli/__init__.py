"""The ``kumulus`` command.

Commands live in modules of their own and are imported when they run, so that ``kumulus --help``
is quick. A user never sees a stack trace: errors are one line with the cause and the fix
(KUMULUS_DEBUG=1 shows where an unexpected one came from).
"""

from __future__ import annotations

import os

from controller.errors import KumulusError


def main() -> None:
    """Entry point of the console script."""
    from controller.cli.app import app  # noqa: PLC0415 typer is slow to import

    try:
        app(prog_name="kumulus")
    except KumulusError as error:
        _fail(error.message, 1)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get("KUMULUS_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (KUMULUS_DEBUG=1 shows where)", 70)


def _fail(message: str, code: int) -> None:
    from controller.cli.output import fail  # noqa: PLC0415 rich is slow to import

    fail(message, code)
