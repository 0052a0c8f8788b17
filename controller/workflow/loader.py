"""Reads flows/*.yaml. Every mistake is found at start, and named with its file and line.

A flow::

    name: start-vm
    kind: VirtualMachine
    description: Brings a stopped machine up.
    steps:
      - allocate-host
      - {step: create-volumes, timeout: 10m, retries: 5}
      - {flow: prepare-networks}
      - {step: clean-up, retries: unlimited}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from controller.workflow.flow import DEFAULT_RETRIES, Flow, FlowError, PlannedStep, Steps

_DURATION = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_FLOW_FIELDS = ("name", "kind", "description", "steps")
_STEP_FIELDS = ("step", "timeout", "retries")


@dataclass(frozen=True)
class _Place:
    file: str
    line: int

    def wrong(self, what: str) -> FlowError:
        return FlowError(f"{self.file}:{self.line}: {what}")


@dataclass(frozen=True)
class _Item:
    """One entry of ``steps``: a step or (``flow``) a sub-flow."""

    at: _Place
    name: str
    flow: bool = False
    timeout: float | None = None
    retries: int | None = DEFAULT_RETRIES


@dataclass(frozen=True)
class _Declared:
    at: _Place
    name: str
    kind: str
    description: str
    items: tuple[_Item, ...]


def load(directory: Path, steps: Steps) -> dict[str, Flow]:
    """Every flow of ``directory``/*.yaml by name. Raises FlowError with all mistakes found."""
    mistakes: list[str] = []
    declared: dict[str, _Declared] = {}
    for path in sorted(directory.glob("*.yaml")):
        try:
            flow = _parse(path)
            declared[flow.name] = flow
        except FlowError as error:
            mistakes.append(str(error))
    flows: dict[str, Flow] = {}
    for flow in declared.values():
        try:
            flows[flow.name] = _plan(flow, declared, steps)
        except FlowError as error:
            mistakes.append(str(error))
    if mistakes:
        raise FlowError("\n".join(mistakes))
    return flows


def _parse(path: Path) -> _Declared:
    start = _Place(str(path), 1)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _Place(str(path), line).wrong(f"not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise start.wrong(f"not YAML: {error}") from None
    if not isinstance(node, yaml.MappingNode):
        raise start.wrong("a flow is a mapping with name, kind and steps")
    fields = _fields(node, str(path), _FLOW_FIELDS)
    for required in ("name", "kind", "steps"):
        if required not in fields:
            raise start.wrong(f"{required} is missing")
    name = _text(fields["name"], str(path))
    if name != path.stem:
        raise _at(fields["name"], str(path)).wrong(
            f"flow {name!r} must be in {name}.yaml; rename one"
        )
    kind = _text(fields["kind"], str(path))
    description = _text(fields["description"], str(path)) if "description" in fields else ""
    return _Declared(start, name, kind, description, tuple(_items(fields["steps"], str(path))))


def _items(node: yaml.Node, file: str) -> Iterator[_Item]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise _at(node, file).wrong("steps is a list with at least one step")
    for entry in node.value:
        at = _at(entry, file)
        if isinstance(entry, yaml.ScalarNode):
            yield _Item(at, _name(entry, file))
        elif isinstance(entry, yaml.MappingNode):
            yield _item(entry, at)
        else:
            raise at.wrong("a step is a name, {step: name, …} or {flow: name}")


def _item(node: yaml.MappingNode, at: _Place) -> _Item:
    if any(key.value == "flow" for key, _ in node.value):
        return _Item(at, _name(_fields(node, at.file, ("flow",))["flow"], at.file), flow=True)
    fields = _fields(node, at.file, _STEP_FIELDS)
    if "step" not in fields:
        raise at.wrong("a step is a name, {step: name, …} or {flow: name}")
    timeout = _duration(fields["timeout"], at.file) if "timeout" in fields else None
    retries = _count(fields["retries"], at.file) if "retries" in fields else DEFAULT_RETRIES
    return _Item(at, _name(fields["step"], at.file), timeout=timeout, retries=retries)


def _fields(node: yaml.MappingNode, file: str, allowed: Iterable[str]) -> dict[str, yaml.Node]:
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value not in allowed:
            raise _at(key, file).wrong(
                f"unknown field {key.value!r}; known are {', '.join(allowed)}"
            )
        if key.value in found:
            raise _at(key, file).wrong(f"{key.value} is given twice")
        found[key.value] = value
    return found


def _text(node: yaml.Node, file: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise _at(node, file).wrong("expected a text")
    return str(node.value)


def _name(node: yaml.Node, file: str) -> str:
    text = _text(node, file)
    if not _NAME.fullmatch(text):
        raise _at(node, file).wrong(f"{text!r} is no name; use a-z, 0-9 and -")
    return text


def _duration(node: yaml.Node, file: str) -> float:
    text = _text(node, file)
    match = _DURATION.fullmatch(text)
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else 0.0
    if seconds <= 0:
        raise _at(node, file).wrong(f"bad timeout {text!r}; write 500ms, 30s, 10m or 1h")
    return seconds


def _count(node: yaml.Node, file: str) -> int | None:
    text = _text(node, file)
    if text == "unlimited":
        return None
    if not text.isascii() or not text.isdigit():
        raise _at(node, file).wrong(f"bad retries {text!r}; write 0 or more, or unlimited")
    return int(text)


def _at(node: yaml.Node, file: str) -> _Place:
    return _Place(file, node.start_mark.line + 1)


def _plan(flow: _Declared, declared: Mapping[str, _Declared], steps: Steps) -> Flow:
    planned: dict[str, tuple[PlannedStep, _Place]] = {}
    for item in _flatten(flow, declared, (flow.name,)):
        step = steps.find(flow.kind, item.name)
        if step is None:
            known = ", ".join(steps.names(flow.kind)) or "none"
            raise item.at.wrong(f"{flow.kind} has no step {item.name!r}; it has: {known}")
        if item.name in planned:
            other = planned[item.name][1]
            raise item.at.wrong(
                f"step {item.name!r} is in flow {flow.name!r} twice: also {other.file}:{other.line}"
            )
        planned[item.name] = PlannedStep(step, item.timeout, item.retries), item.at
    ordered = tuple(step for step, _ in planned.values())
    return Flow(flow.name, flow.kind, ordered, flow.description)


def _flatten(
    flow: _Declared, declared: Mapping[str, _Declared], path: tuple[str, ...]
) -> Iterator[_Item]:
    for item in flow.items:
        if not item.flow:
            yield item
            continue
        if item.name in path:
            raise item.at.wrong(f"flows go in a circle: {' → '.join((*path, item.name))}")
        below = declared.get(item.name)
        if below is None:
            raise item.at.wrong(f"no flow {item.name!r}; there are: {', '.join(sorted(declared))}")
        if below.kind != flow.kind:
            raise item.at.wrong(
                f"flow {item.name!r} is for {below.kind}; a sub-flow must be for {flow.kind}"
            )
        yield from _flatten(below, declared, (*path, item.name))
