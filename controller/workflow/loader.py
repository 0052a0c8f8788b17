"""From flows/*.yaml to flows that can run: sub-flows in place, steps and conditions found.

Every mistake is found at start, and named with its file and line (``document`` has the syntax).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controller.workflow.condition import BadCondition, Condition, check_path, parse
from controller.workflow.document import Document, Item, Place, read
from controller.workflow.flow import Flow, FlowError, Guard, PlannedStep, Steps, where


@dataclass(frozen=True)
class _Placed:
    """An item that is a step, and where it was found. ``when``: (id of the guard, its source)."""

    item: Item
    path: tuple[str, ...]
    when: tuple[tuple[int, Place, str], ...]
    group: int | None
    branch: int


def load(directory: Path, steps: Steps) -> dict[str, Flow]:
    """Every flow of ``directory``/*.yaml by name. Raises FlowError with all mistakes found."""
    mistakes: list[str] = []
    declared: dict[str, Document] = {}
    for path in sorted(directory.glob("*.yaml")):
        try:
            document = read(path)
            declared[document.name] = document
        except FlowError as error:
            mistakes.append(str(error))
    flows: dict[str, Flow] = {}
    for document in declared.values():
        try:
            flows[document.name] = _Planner(document, declared, steps).plan()
        except FlowError as error:
            mistakes.append(str(error))
    if mistakes:
        raise FlowError("\n".join(dict.fromkeys(mistakes)))
    return flows


class _Planner:
    """Makes one flow. Raises FlowError at the first mistake."""

    def __init__(self, document: Document, declared: Mapping[str, Document], steps: Steps) -> None:
        self._document, self._declared, self._steps = document, declared, steps
        self._model = steps.models.get(document.kind)
        self._numbers = 0

    def plan(self) -> Flow:
        document = self._document
        placed = list(self._flatten(document, (document.name,)))
        self._refuse_doubles(placed)
        guards = self._guards(placed)
        self._check_cancel_on()
        return Flow(
            document.name,
            document.kind,
            tuple(self._planned(each, guards) for each in placed),
            document.description,
            tuple(field for _, field in document.cancel_on),
            document.record,
            document.at.file,
        )

    def _flatten(self, document: Document, path: tuple[str, ...]) -> Iterator[_Placed]:
        for item in document.items:
            yield from self._place(item, document, _Placed(item, path, (), None, 0))

    def _place(self, item: Item, document: Document, at: _Placed) -> Iterator[_Placed]:
        """The steps that ``item`` stands for. ``at``: where that is, but for the item itself."""
        if item.when is not None:
            at = replace(at, when=(*at.when, (self._number(), *item.when)))
        if item.what == "step":
            yield replace(at, item=item)
        elif item.what == "flow":
            below = self._sub_flow(item, at.path)
            for inner in below.items:
                yield from self._place(inner, below, replace(at, path=(*at.path, item.name)))
        else:
            if at.group is not None:
                raise item.at.wrong(
                    "a parallel group is within another one; put its steps into that one"
                )
            group = self._number()
            for branch, member in enumerate(item.members):
                yield from self._place(member, document, replace(at, group=group, branch=branch))

    def _sub_flow(self, item: Item, path: tuple[str, ...]) -> Document:
        if item.name in path:
            raise item.at.wrong(f"flows go in a circle: {' → '.join((*path, item.name))}")
        below = self._declared.get(item.name)
        if below is None:
            there = ", ".join(sorted(self._declared))
            raise item.at.wrong(f"no flow {item.name!r}; there are: {there}")
        if below.kind != self._document.kind:
            raise item.at.wrong(
                f"flow {item.name!r} is for {below.kind}; a sub-flow must be for "
                f"{self._document.kind}"
            )
        return below

    def _refuse_doubles(self, placed: list[_Placed]) -> None:
        seen: dict[str, Place] = {}
        for each in placed:
            name, at = each.item.name, each.item.at
            if name in seen:
                other = seen[name]
                raise at.wrong(
                    f"step {name!r} is in flow {self._document.name!r} twice: also "
                    f"{other.file}:{other.line}"
                )
            seen[name] = at

    def _guards(self, placed: list[_Placed]) -> dict[int, Guard]:
        conditions: dict[int, Condition] = {}
        covers: dict[int, list[str]] = {}
        for each in placed:
            for number, at, source in each.when:
                covers.setdefault(number, []).append(each.item.name)
                if number not in conditions:
                    conditions[number] = self._condition(at, source)
        return {n: Guard(conditions[n], tuple(names)) for n, names in covers.items()}

    def _condition(self, at: Place, source: str) -> Condition:
        try:
            return parse(source, self._model)
        except BadCondition as error:
            raise at.wrong(f"bad condition: {error}") from None

    def _check_cancel_on(self) -> None:
        for at, field in self._document.cancel_on:
            try:
                check_path(field.split("."), self._model)
            except BadCondition as error:
                raise at.wrong(f"cancelOn: {error}") from None

    def _planned(self, placed: _Placed, guards: Mapping[int, Guard]) -> PlannedStep:
        item = placed.item
        kind = self._document.kind
        step = self._steps.find(kind, item.name)
        if step is None:
            known = ", ".join(self._steps.names(kind)) or "none"
            raise item.at.wrong(f"{kind} has no step {item.name!r}; it has: {known}")
        if not step.reversible and not step.no_rollback:
            raise item.at.wrong(
                f"step {item.name!r} ({where(type(step))}) has no rollback; write one, or say in "
                "its no_rollback why there is nothing to undo"
            )
        return PlannedStep(
            step,
            item.timeout,
            item.retries,
            item.backoff,
            tuple(guards[number] for number, _, _ in placed.when),
            placed.path[1:],
            placed.group,
            placed.branch,
        )

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers
