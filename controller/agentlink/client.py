"""Calling agents. (Contract; the implementation follows.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from agents.wire import Facts, Inventory, Ping, Role, Wire
from controller.keys import Key

W = TypeVar("W", bound=Wire)


@dataclass(frozen=True)
class Endpoint:
    """Where an agent listens, and who it must be: its TLS identity is (name, role)."""

    name: str
    role: Role
    address: str
    port: int


class Agents(Protocol):
    async def run(
        self,
        endpoint: Endpoint,
        action: str,
        resource: str,
        args: Wire,
        result: type[W],
        *,
        operation: str,
        owner: Key,
    ) -> W:
        """Make the agent do ``action`` on ``resource`` (a uid), once per ``operation`` id.

        Waits for the work for a moment at most (a quarter of a second after it was submitted):
        raises OperationPending if the agent is not done by then; once it is, the
        callback (or, should it be lost, a read-back) wakes ``owner``, whose next call with the
        same id gets the result. Raises AgentFailed if the work failed, AgentUnreachable if the
        agent cannot be asked. After AgentFailed the same id runs the work anew.
        """

    async def ping(self, endpoint: Endpoint) -> Ping:
        """Raises AgentUnreachable after the ping timeout."""

    async def facts(self, endpoint: Endpoint) -> Facts: ...

    async def inventory(self, endpoint: Endpoint) -> Inventory: ...
