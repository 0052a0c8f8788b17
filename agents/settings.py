"""Settings of an agent process. Each is an option of ``kumulus agent`` and an environment variable
(KUMULUS_AGENT_ and the option's name)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agents.callbacks import CallbackPolicy
from agents.operations import Limits


@dataclass(frozen=True)
class AgentSettings:
    """Seconds where nothing else is said.

    data_dir: the operation table and the drivers' own directories. grace: how long running
    operations may go on after SIGTERM; what does not end is taken up by the next process.
    timeouts: overrides of drivers.base.TIMEOUTS, action → seconds.
    """

    data_dir: Path
    listen: str = "127.0.0.1"
    port: int = 7070
    port_flag: str = "--port"
    grace: float = 2.0
    limits: Limits = field(default_factory=Limits)
    callbacks: CallbackPolicy = field(default_factory=CallbackPolicy)
    timeouts: dict[str, float] = field(default_factory=dict)
