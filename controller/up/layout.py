"""Where an embedded cloud keeps its files, below one data directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths below ``root``, which belongs to its user alone (mode 0700)."""

    root: Path

    @property
    def pki(self) -> Path:
        """The cloud's certificate authority and what it issued."""
        return self.root / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def controller_kubeconfig(self) -> Path:
        """With the controller's own rights, not the admin's."""
        return self.pki / "controller.kubeconfig"

    @property
    def agent_data(self) -> Path:
        return self.root / "agents"

    def controller(self, number: int) -> Path:
        """What the controller of this number, from 1 on, keeps for itself."""
        return self.root if number == 1 else self.root / "controllers" / str(number)

    @property
    def ledger(self) -> Path:
        """All controllers' claims."""
        return self.root / "ledger.sqlite"

    @property
    def quickstart(self) -> Path:
        """The quickstart's manifests as they were applied."""
        return self.root / "quickstart"

    @property
    def quickstart_done(self) -> Path:
        """Holds the number of hosts applied; there once the quickstart has been applied."""
        return self.root / "quickstart.applied"

    @property
    def lock(self) -> Path:
        return self.root / "run" / "lock"

    @property
    def state(self) -> Path:
        return self.root / "run" / "cloud.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def make(self) -> None:
        """Create the directories."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.lock.parent, self.logs, self.agent_data):
            directory.mkdir(mode=0o700, exist_ok=True)
