"""The embedded API server's process. It imports what answering takes and no more, to start soon."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from common import logs
from common.web import PortTaken
from controller.apiserver.access.tokens import BadTokenFile
from controller.apiserver.admission import Admission, Request, Violation
from controller.apiserver.app import ApiServerConfig, serve
from controller.apiserver.store import CorruptStore, StoreInUse
from controller.cli.output import CommandFailed
from controller.up.process import die_with_parent

if TYPE_CHECKING:
    from controller.up.options import ApiOptions


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
    """Be the embedded API server until SIGTERM. Raises CommandFailed when it cannot start."""
    die_with_parent()
    logs.configure(log_level)
    try:
        uvloop.run(_serve(data_dir, port, options))
    except (PortTaken, CorruptStore, StoreInUse, BadTokenFile, OSError) as error:
        raise CommandFailed(str(error)) from None


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
