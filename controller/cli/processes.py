"""The long-running commands: supervisor and controller (``api_server`` is the third)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import uvloop

from common import logs
from common.web import PortTaken
from controller.cli.output import CommandFailed
from controller.settings import BadSettings, Settings
from controller.up import plan, state
from controller.up.options import Options
from controller.up.process import Process, die_with_parent
from controller.up.supervisor import Supervisor


def supervise(options: Options) -> None:
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
