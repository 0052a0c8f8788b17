"""Runs the flows that flows/*.yaml declare. (Contract; ``controller.workflow.runner`` has it.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from controller.reconcile.actuator import Context
from crds.base import Resource


class Flows(Protocol):
    async def run(self, name: str, obj: Resource, ctx: Context) -> None:
        """Start the flow, or go on with it where ``obj.status.workflow`` says it is.

        Returns when every step is done; ``obj.status.workflow`` is then None. Raises Waiting or
        Transient when it pauses, FlowFailed once it failed and everything is rolled back
        (``obj.status.workflow`` is None then too). If ``obj`` is in the middle of another flow,
        that one is cancelled first. A run that was cancelled (by ``cancel``, or because a field of
        the flow's ``cancelOn`` changed) ends, once it is undone, with Waiting and the reason
        Cancelled: what the object needs is to be decided anew.
        """

    async def cancel(self, obj: Resource, ctx: Context, reason: str) -> None:
        """Roll the running flow back from where it is: its object is deleted or its spec changed.

        Returns when everything is undone and ``obj.status.workflow`` is None; at once when no
        flow runs. Raises Waiting or Transient when the rollback pauses: call again. ``reason`` is
        a sentence for people. A flow that is rolling back already goes on doing so.
        """

    def forget(self, concerned: Callable[[str], bool]) -> None:
        """Another replica goes on with the runs of these objects' uids."""

    def running(self, obj: Resource) -> str | None:
        """The name of the flow that ``obj`` is in the middle of, or None."""
