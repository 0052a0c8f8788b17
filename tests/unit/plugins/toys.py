"""What test plugins are made of: each attribute is an entry point's value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.kinds.allocation.model import Candidate, Request
from controller.plugins.interface import Event, Insertion
from controller.reconcile.actuator import Actuator, Outcome
from controller.workflow.step import Scope, Step
from crds.v1alpha1.zone import Zone


class Before(Step):
    name = "before-start"

    async def run(self, scope: Scope[Any]) -> None:
        SEEN.append(("run", scope.obj.name))

    async def rollback(self, scope: Scope[Any]) -> None:
        SEEN.append(("rollback", scope.obj.name))


class Taken(Step):
    name = "start"


SEEN: list[tuple[str, str]] = []
BEFORE = Insertion("VirtualMachine", Before, before="start")
AFTER_ALLOCATION = Insertion("VirtualMachine", Before, after="allocate-host", flow="vm-create")
NOWHERE = Insertion("VirtualMachine", Before, after="no-such-step")
DOUBLE = Insertion("VirtualMachine", Taken, before="start")
BOTH = [BEFORE]


def backwards(request: Request, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    return sorted(candidates, key=lambda c: c.name, reverse=True)


class Watcher:
    events = ("step.before", "state.changed")

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.seen.append(event)


class Deaf:
    events = ("no.such.event",)

    def __call__(self, event: Event) -> None:
        raise AssertionError


class Unmakable:
    events = ()

    def __init__(self) -> None:
        raise RuntimeError("no")

    def __call__(self, event: Event) -> None:
        raise AssertionError


class SecondZone(Actuator[Zone]):
    """Zone has an actuator: ours."""

    model = Zone

    async def reconcile(self, obj: Zone, ctx: Any) -> Outcome:
        return Outcome()


NOT_CALLABLE = 7
