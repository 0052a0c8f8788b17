"""Runs the flows that flows/*.yaml declare. (Contract; the implementation follows.)"""

from __future__ import annotations

from typing import Protocol

from controller.reconcile.actuator import Context
from crds.base import Resource


class Flows(Protocol):
    async def run(self, name: str, obj: Resource, ctx: Context) -> None:
        """Start the flow, or go on with it where ``obj.status.workflow`` says it is.

        Returns when every step is done; ``obj.status.workflow`` is then None. Raises Waiting or
        Transient when it pauses, FlowFailed once it failed and everything is rolled back
        (``obj.status.workflow`` is None then too).
        """

    def running(self, obj: Resource) -> str | None:
        """The name of the flow that ``obj`` is in the middle of, or None."""
