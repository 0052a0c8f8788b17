"""The ``kumulus`` command.

Commands live in modules of their own and are imported when they run, so that ``kumulus --help``
is quick. A user never sees a stack trace: errors are one line with the cause and the fix
(KUMULUS_DEBUG=1 shows where an unexpected one came from).
"""

from __future__ import annotations

import gc
import os
import sys

from controller.errors import KumulusError

SERVER = "api-server"
"""The one command that is not in ``app``: a process that is to be ready soon."""


def main() -> None:
    """Entry point of the console script."""
    try:
        _run(sys.argv[1:])
    except KumulusError as error:
        _fail(error.message, 1)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get("KUMULUS_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (KUMULUS_DEBUG=1 shows where)", 70)


def _run(arguments: list[str]) -> None:
    if arguments[:1] == [SERVER]:
        gc.disable()  # loading makes no garbage; the server turns it on again
        from controller.cli.api_server import main as serve  # noqa: PLC0415 aiohttp is slow, too

        serve(arguments[1:])
        return
    from controller.cli.app import app  # noqa: PLC0415 typer is slow to import

    app(prog_name="kumulus")


def _fail(message: str, code: int) -> None:
    from controller.cli.output import fail  # noqa: PLC0415 rich is slow to import

    fail(message, code)
