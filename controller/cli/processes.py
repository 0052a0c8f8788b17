"""The long-running commands: supervisor, API server, controller."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import uvloop

from common import logs
from common.web import PortTaken
from controller.cli.output import CommandFailed
from controller.settings import BadSettings, Settings
from controller.up import plan, state
from controller.up.process import Process, die_with_parent
from controller.up.supervisor import Supervisor


def supervise(options: plan.Options) -> None:
    """Be the supervisor until SIGTERM. Raises CommandFailed if another one has the lock."""
    die_with_parent()
    logs.configure(options.log_level)
    layout = options.layout
    if state.hold(layout) is None:
        raise CommandFailed(f"another cloud runs on {layout.root}")
    me = Process.of(os.getpid())
    described = state.CloudState(
        pid=os.getpid(),
        started=me.started if me is not None else 0,
        api_port=options.api_port,
        agent_port=options.agent_port,
        controller_port=options.controller_port,
    )
    asyncio.run(Supervisor(layout, described, plan.children(options)).run())


def run_controller(**given: Any) -> None:
    """Be a controller until SIGTERM. ``given``: settings; None: not given."""
    from controller.app import run  # noqa: PLC0415 the supervisor needs none of it

    die_with_parent()
    try:
        settings = Settings.from_env(**given)
        logs.configure(settings.log_level, settings.log_style)
        uvloop.run(run(settings))
    except (BadSettings, PortTaken) as error:
        raise CommandFailed(str(error)) from None


def serve_api(data_dir: Path, port: int, log_level: str, options: plan.ApiOptions) -> None:
    """Be the embedded API server until SIGTERM. Raises CommandFailed when it cannot start."""
    from controller.apiserver.access.tokens import BadTokenFile  # noqa: PLC0415 as below
    from controller.apiserver.store import (  # noqa: PLC0415 the controller needs none of it
        CorruptStore,
        StoreInUse,
    )

    die_with_parent()
    logs.configure(log_level)
    try:
        uvloop.run(_serve_api(data_dir, port, options))
    except (PortTaken, CorruptStore, StoreInUse, BadTokenFile, OSError) as error:
        raise CommandFailed(str(error)) from None


async def _serve_api(data_dir: Path, port: int, options: plan.ApiOptions) -> None:
    from controller.admission import Judge  # noqa: PLC0415 the controller needs none of it
    from controller.apiserver.app import ApiServerConfig, serve  # noqa: PLC0415

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    config = ApiServerConfig(data_dir, port=port, admission=Judge(), **options.given())
    server = await serve(config)
    await stop.wait()
    await server.close()
