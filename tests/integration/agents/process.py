"""An agent process of a test: started, killed, started again with what it left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.wire import Role
from common.pki import Authority, client_context
from tests.support.agents import AgentClient, controller_pair

COMMAND = [sys.executable, "-c", "from agents.cli import app; app(prog_name='kumulus agent')"]
START_SECONDS = 30.0


@dataclass
class AgentProcess:
    """``kumulus agent`` with these arguments; the port is any free one."""

    directory: Path
    authority: Authority
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.directory / "agent.log"

    @property
    def client(self) -> AgentClient:
        tls = client_context(self.authority.ca, controller_pair(self.authority))
        return AgentClient(self.port, tls)

    async def start(self) -> None:
        """Returns once the port is open."""
        port_file = self.directory / "port"
        port_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *self.arguments, "--port", "0", "--port-file", str(port_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "KUMULUS_LOG_STYLE": "text"},
            )
        async with asyncio.timeout(START_SECONDS):
            while not port_file.exists():
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.02)
        self.port = int(port_file.read_text())

    async def end(self, number: int = signal.SIGKILL) -> int:
        """Send a signal; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return await self.gone()

    async def gone(self, seconds: float = 20.0) -> int:
        """Wait until it has ended by itself; the exit code."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, seconds)

    async def ended(self, name: str, id: str, role: Role = "host") -> dict[str, Any]:
        """The operation's reply once it has one."""
        async with asyncio.timeout(30):
            while True:
                status, body = await self.client.ask("GET", name, f"operations/{id}", role=role)
                assert status == 200, body
                if body["state"] in ("Succeeded", "Failed"):
                    found: dict[str, Any] = body
                    return found
                await asyncio.sleep(0.02)


@asynccontextmanager
async def agent_process(
    directory: Path, authority: Authority, *arguments: str
) -> AsyncIterator[AgentProcess]:
    """Started; killed at the end if it still runs."""
    agent = AgentProcess(directory, authority, list(arguments))
    try:
        await agent.start()
        yield agent
    finally:
        if agent.process is not None and agent.process.poll() is None:
            with suppress(ProcessLookupError):
                agent.process.kill()
            agent.process.wait(10)


def simulator_arguments(directory: Path, *more: str) -> list[str]:
    return [
        "simulator",
        "--ca-dir",
        str(directory / "ca"),
        "--data-dir",
        str(directory / "data"),
        *more,
    ]
