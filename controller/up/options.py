"""What ``kumulus up`` is asked for. It imports little: the command line reads it for ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.up.layout import Layout

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ApiOptions:
    """Of the embedded API server; ``apiserver.app.ApiServerConfig`` says what each is, and has the
    defaults of those that are None."""

    token_file: Path | None = None
    audit_log: Path | None = None
    audit_level: str | None = None
    synchronous: str | None = None
    body_limit: int | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def flags(self) -> list[str]:
        """These options as a command line says them."""
        pairs = ((f"--{name.replace('_', '-')}", value) for name, value in self.given().items())
        return [str(part) for pair in pairs for part in pair]


@dataclass(frozen=True)
class Options:
    """What ``kumulus up`` was asked for. ``hosts`` None: as many as the quickstart has.
    ``replicas``: of the controller, on as many ports from ``controller_port`` on."""

    data_dir: Path
    api_port: int = 6443
    agent_port: int = 7070
    controller_port: int = 7071
    hosts: int | None = None
    log_level: str = "info"
    api: ApiOptions = ApiOptions()
    replicas: int = 1

    @property
    def controllers(self) -> dict[str, int]:
        """Names and ports, in order."""
        names = ["controller", *(f"controller-{n}" for n in range(2, self.replicas + 1))]
        return {name: port for port, name in enumerate(names, self.controller_port)}

    @property
    def layout(self) -> Layout:
        return Layout(self.data_dir)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{LOOPBACK}:{self.api_port}"

    def flags(self) -> list[str]:
        """These options as a command line says them."""
        hosts = [] if self.hosts is None else ["--hosts", str(self.hosts)]
        return [
            "--data-dir", str(self.data_dir), "--api-port", str(self.api_port),
            "--agent-port", str(self.agent_port), "--controller-port", str(self.controller_port),
            "--log-level", self.log_level, "--replicas", str(self.replicas), *hosts,
            *self.api.flags(),
        ]  # fmt: skip
