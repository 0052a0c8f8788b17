"""What plugins of the controller are written against, beside Actuator, Step and HostAllocator.

``crds.plugins.INTERFACE`` is its version.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from dataclasses import dataclass
from typing import Literal, Protocol

from controller.workflow.step import Step

EventName = Literal["step.before", "step.after", "step.rollback", "state.changed"]


@dataclass(frozen=True)
class Insertion:
    """A step of a plugin in flows of others: entry points of the group ``kumulus.steps``.

    It comes before or after the step with that name, in every flow for ``kind`` that has it, or in
    ``flow`` alone. timeout: seconds, as in flows/*.yaml; retries: after so many Transient failures
    the flow fails; None: any number. required False: if the plugin itself fails (raises what no
    step should raise, hangs), the flow goes on without the step.
    """

    kind: str
    step: type[Step]
    before: str = ""
    after: str = ""
    flow: str = ""
    timeout: float | None = None
    retries: int | None = 10
    required: bool = True

    def __post_init__(self) -> None:
        if bool(self.before) == bool(self.after):
            raise ValueError(f"step {self.step.name!r}: give one of before and after")
        if not self.step.name:
            raise ValueError(f"{self.step.__qualname__} has no name; set name")

    @property
    def anchor(self) -> str:
        return self.before or self.after


@dataclass(frozen=True)
class Event:
    """What observers are told. ``at``: seconds since the epoch.

    step.*: ``flow`` and ``step`` say which. state.changed: ``old`` and ``new`` values of
    ``status.state``.
    """

    name: EventName
    at: float
    kind: str
    namespace: str
    object: str
    uid: str
    flow: str = ""
    step: str = ""
    old: str = ""
    new: str = ""


class Observer(Protocol):
    """An entry point of the group ``kumulus.observers`` names one, or a class that makes one.

    It is called for each of ``events``, in their order, in its plugin's own thread; it may be
    asynchronous. It cannot change or hold up what it observes. Events are dropped (and counted)
    when it is too slow.
    """

    events: Collection[EventName]

    def __call__(self, event: Event) -> Awaitable[None] | None: ...
