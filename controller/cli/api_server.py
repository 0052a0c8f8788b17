"""The embedded API server's process, which ``kumulus up`` starts.

How soon it is ready is mostly how much it imports: what answering takes and no more. So it is not
one of typer's commands, and its options are of argparse.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import uvloop

from common import logs
from common.web import PortTaken
from controller.apiserver.access.audit import Level
from controller.apiserver.access.tokens import BadTokenFile
from controller.apiserver.admission import Admission, Request, Violation
from controller.apiserver.app import ApiServerConfig, serve
from controller.apiserver.store import CorruptStore, StoreInUse
from controller.apiserver.store.log import Synchronous
from controller.errors import KumulusError
from controller.up.options import ApiOptions
from controller.up.process import die_with_parent


def main(arguments: Sequence[str]) -> None:
    """Be the server that these arguments describe, until SIGTERM."""
    given = vars(_parser().parse_args(arguments))
    data_dir, port, log_level = (given.pop(name) for name in ("data_dir", "port", "log_level"))
    serve_api(data_dir, port, log_level, ApiOptions(**given))


def _parser() -> argparse.ArgumentParser:
    """``ApiOptions.flags`` writes what this reads; ``up`` has looked at the values before."""
    parser = argparse.ArgumentParser(
        "kumulus api-server", description="The embedded API server (started by `up`)."
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--audit-log", type=Path)
    parser.add_argument("--audit-level", choices=get_args(Level))
    parser.add_argument("--synchronous", choices=get_args(Synchronous))
    parser.add_argument("--body-limit", type=int)
    return parser


class LaterJudge:
    """The judge of our own kinds, made by a thread while the first requests are answered already.

    Its pydantic models take about as long as all else of a start; writes wait until it is there.
    """

    def __init__(self) -> None:
        self._made: asyncio.Task[Admission] | None = None

    def start(self) -> asyncio.Task[Admission]:
        if self._made is None:
            self._made = asyncio.create_task(asyncio.to_thread(_judge), name="apiserver-judge")
        return self._made

    async def __call__(self, request: Request) -> Sequence[Violation]:
        judge = await asyncio.shield(self.start())
        return await judge(request)


def _judge() -> Admission:
    from controller.admission import Judge  # noqa: PLC0415 see LaterJudge

    return Judge()


def serve_api(data_dir: Path, port: int, log_level: str, options: ApiOptions) -> None:
    """Be the embedded API server until SIGTERM. Raises KumulusError when it cannot start."""
    die_with_parent()
    logs.configure(log_level)
    try:
        uvloop.run(_serve(data_dir, port, options))
    except (PortTaken, CorruptStore, StoreInUse, BadTokenFile, OSError) as error:
        raise KumulusError(str(error)) from None


async def _serve(data_dir: Path, port: int, options: ApiOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    judge = LaterJudge()
    config = ApiServerConfig(data_dir, port=port, admission=judge, **options.given())
    server = await serve(config)
    judge.start()
    await stop.wait()
    await server.close()
