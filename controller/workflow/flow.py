"""What a flow is: an ordered list of steps, sub-flows already flattened into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

from controller.reconcile.actuator import Actuator
from controller.workflow.step import Step

DEFAULT_RETRIES = 10


class FlowError(ValueError):
    """A flow or a step is declared wrongly. Each line of the message names file and line."""


@dataclass(frozen=True)
class PlannedStep:
    """A step's place in a flow.

    timeout: seconds from its first run to its success, pauses and restarts included; None: as
    long as it takes. retries: how many Transient failures it may have before the flow fails;
    None: any number.
    """

    step: Step
    timeout: float | None = None
    retries: int | None = DEFAULT_RETRIES

    @property
    def name(self) -> str:
        return self.step.name


@dataclass(frozen=True)
class Flow:
    """A validated flow: at least one step, step names unique."""

    name: str
    kind: str
    steps: tuple[PlannedStep, ...]
    description: str = ""

    @cached_property
    def positions(self) -> Mapping[str, int]:
        return {step.name: index for index, step in enumerate(self.steps)}


class Steps:
    """The steps that flows may name, by kind; ``""`` holds those that every kind may use."""

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[str, Step]] = {}

    def add(self, step: type[Step], kind: str = "") -> None:
        """Raises FlowError if another class has the name already."""
        known = self._by_kind.setdefault(kind, {})
        other = known.get(step.name)
        if other is not None and type(other) is not step:
            raise FlowError(
                f"two steps of {kind or 'all kinds'} are called {step.name!r}: "
                f"{_where(type(other))} and {_where(step)}; rename one"
            )
        known.setdefault(step.name, step())

    def find(self, kind: str, name: str) -> Step | None:
        """The kind's own step of this name, else the one that all kinds share."""
        return self._by_kind.get(kind, {}).get(name) or self._by_kind.get("", {}).get(name)

    def names(self, kind: str) -> list[str]:
        return sorted({*self._by_kind.get(kind, {}), *self._by_kind.get("", {})})


def collect(modules: Iterable[ModuleType]) -> Steps:
    """The named Step classes of ``modules``.

    Steps in a module with an actuator belong to the actuator's kind; those of other modules are
    shared by all kinds.
    """
    steps = Steps()
    for module in modules:
        mine = [c for c in vars(module).values() if _defined_in(module, c)]
        kinds = [c.model.__name__ for c in mine if issubclass(c, Actuator) and hasattr(c, "model")]
        for cls in mine:
            if issubclass(cls, Step) and cls.name:
                for kind in kinds or [""]:
                    steps.add(cls, kind)
    return steps


def _defined_in(module: ModuleType, value: object) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
