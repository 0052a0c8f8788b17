"""What a flow is: an ordered list of steps, sub-flows already flattened into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from types import ModuleType

from controller.reconcile.actuator import Actuator
from controller.workflow.backoff import Backoff
from controller.workflow.condition import Condition
from controller.workflow.step import Step
from crds.base import Resource

DEFAULT_RETRIES = 10


class FlowError(ValueError):
    """A flow or a step is declared wrongly. Each line of the message names file and line."""


@dataclass(frozen=True)
class Guard:
    """A condition and the steps, in order, that are skipped if it does not hold. It is asked once
    a run: when the flow gets to the first of them."""

    condition: Condition
    covers: tuple[str, ...]


@dataclass(frozen=True)
class PlannedStep:
    """A step's place in a flow.

    timeout: seconds from its first run to its success, pauses and restarts included; None: as
    long as it takes. retries: how many Transient failures it may have before the flow fails;
    None: any number. backoff: what lies between them; None: backoff.DEFAULT. path: the sub-flows
    that it comes from, outermost first. group and branch: where it is in a parallel group.
    """

    step: Step
    timeout: float | None = None
    retries: int | None = DEFAULT_RETRIES
    backoff: Backoff | None = None
    guards: tuple[Guard, ...] = ()
    path: tuple[str, ...] = ()
    group: int | None = None
    branch: int = 0

    @property
    def name(self) -> str:
        return self.step.name


@dataclass(frozen=True)
class Stage:
    """What runs at the same time: a single step, or the branches of a parallel group."""

    first: int
    branches: tuple[tuple[PlannedStep, ...], ...]

    @property
    def steps(self) -> tuple[PlannedStep, ...]:
        return tuple(step for branch in self.branches for step in branch)

    @property
    def last(self) -> int:
        return self.first + len(self.steps) - 1

    @property
    def parallel(self) -> bool:
        return self.steps[0].group is not None


@dataclass(frozen=True)
class Flow:
    """A validated flow: at least one step, step names unique.

    cancel_on: fields of the object (``spec.placement``); if one of them changes in the middle of
    a run, that is rolled back and the object looked at afresh. record: a run is written down
    before its first effect; otherwise all of its steps are rolled back should it fail, run or not,
    which suffices where no other flow but the object's deletion can come in between. file: where
    it is declared.
    """

    name: str
    kind: str
    steps: tuple[PlannedStep, ...]
    description: str = ""
    cancel_on: tuple[str, ...] = ()
    record: bool = True
    file: str = ""

    @cached_property
    def positions(self) -> Mapping[str, int]:
        return {step.name: index for index, step in enumerate(self.steps)}

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        found = []
        for (_, group), members in groupby(enumerate(self.steps), _stage_of):
            placed = list(members)
            steps = [step for _, step in placed]
            branches = (
                [steps]
                if group is None
                else [list(b) for _, b in groupby(steps, lambda s: s.branch)]
            )
            found.append(Stage(placed[0][0], tuple(tuple(branch) for branch in branches)))
        return tuple(found)

    def stages_from(self, step: str) -> tuple[Stage, ...]:
        """The stage with this step, and those after it."""
        return tuple(stage for stage in self.stages if stage.last >= self.positions[step])


def _stage_of(placed: tuple[int, PlannedStep]) -> tuple[int, int | None]:
    index, step = placed
    return (index, None) if step.group is None else (-1, step.group)


class Steps:
    """The steps that flows may name, by kind; ``""`` holds those that every kind may use.

    models: the kinds that have an actuator, to check the fields that flows speak of.
    """

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[str, Step]] = {}
        self.models: dict[str, type[Resource]] = {}

    def add(self, step: type[Step], kind: str = "") -> None:
        """Raises FlowError if another class has the name already."""
        known = self._by_kind.setdefault(kind, {})
        other = known.get(step.name)
        if other is not None and type(other) is not step:
            raise FlowError(
                f"two steps of {kind or 'all kinds'} are called {step.name!r}: "
                f"{where(type(other))} and {where(step)}; rename one"
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
        models = [c.model for c in mine if issubclass(c, Actuator) and hasattr(c, "model")]
        steps.models.update({model.__name__: model for model in models})
        for cls in mine:
            if issubclass(cls, Step) and cls.name:
                for kind in [model.__name__ for model in models] or [""]:
                    steps.add(cls, kind)
    return steps


def _defined_in(module: ModuleType, value: object) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def where(cls: type) -> str:
    """For people: where a class is."""
    return f"{cls.__module__}.{cls.__qualname__}"
