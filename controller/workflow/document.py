"""A flow's YAML, read with care: every mistake is named with its file and line.

::

    name: vm-start
    kind: VirtualMachine
    description: Brings a stopped machine up.
    cancelOn: [spec.placement]
    steps:
      - allocate-host
      - {step: create-volumes, timeout: 10m, retries: 5, backoff: {first: 2s, longest: 1m}}
      - {flow: prepare-networks, when: size(self.spec.nics) > 0}
      - parallel:
          - read-facts
          - {flow: check-storage}
      - {step: clean-up, retries: unlimited}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from controller.workflow.backoff import Backoff
from controller.workflow.flow import DEFAULT_RETRIES, FlowError

_DURATION = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_FIELD = re.compile(r"spec(\.[A-Za-z][A-Za-z0-9]*)+")
_FLOW_FIELDS = ("name", "kind", "description", "cancelOn", "record", "steps")
_STEP_FIELDS = ("step", "timeout", "retries", "backoff", "when")
_SUBFLOW_FIELDS = ("flow", "when")
_PARALLEL_FIELDS = ("parallel", "when")
_BACKOFF_FIELDS = ("first", "longest", "factor", "jitter")
_FORMS = "a step is a name, {step: name, …}, {flow: name} or {parallel: [steps]}"


@dataclass(frozen=True)
class Place:
    """Where something is written."""

    file: str
    line: int

    def wrong(self, what: str) -> FlowError:
        return FlowError(f"{self.file}:{self.line}: {what}")


@dataclass(frozen=True)
class Item:
    """One entry of ``steps``: a step, a sub-flow, or (``members``) a parallel group."""

    at: Place
    name: str = ""
    what: Literal["step", "flow", "parallel"] = "step"
    timeout: float | None = None
    retries: int | None = DEFAULT_RETRIES
    backoff: Backoff | None = None
    when: tuple[Place, str] | None = None
    members: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Document:
    """A flow as it is written, not yet checked against steps and other flows."""

    at: Place
    name: str
    kind: str
    description: str
    cancel_on: tuple[tuple[Place, str], ...]
    record: bool
    items: tuple[Item, ...]


def read(path: Path) -> Document:
    """Raises FlowError."""
    file = str(path)
    start = Place(file, 1)
    node = _compose(path, start)
    if not isinstance(node, yaml.MappingNode):
        raise start.wrong("a flow is a mapping with name, kind and steps")
    fields = _fields(node, file, _FLOW_FIELDS)
    for required in ("name", "kind", "steps"):
        if required not in fields:
            raise start.wrong(f"{required} is missing")
    name = _text(fields["name"], file)
    if name != path.stem:
        raise _at(fields["name"], file).wrong(f"flow {name!r} must be in {name}.yaml; rename one")
    return Document(
        at=start,
        name=name,
        kind=_text(fields["kind"], file),
        description=_text(fields["description"], file) if "description" in fields else "",
        cancel_on=tuple(_field_names(fields["cancelOn"], file)) if "cancelOn" in fields else (),
        record=_flag(fields["record"], file) if "record" in fields else True,
        items=tuple(_items(fields["steps"], file, "steps")),
    )


def _compose(path: Path, start: Place) -> yaml.Node | None:
    try:
        return yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Place(start.file, line).wrong(f"not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise start.wrong(f"not YAML: {error}") from None


def _items(node: yaml.Node, file: str, what: str) -> Iterator[Item]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise _at(node, file).wrong(f"{what} is a list with at least one step")
    for entry in node.value:
        at = _at(entry, file)
        if isinstance(entry, yaml.ScalarNode):
            yield Item(at, _name(entry, file))
        elif isinstance(entry, yaml.MappingNode):
            yield _item(entry, at)
        else:
            raise at.wrong(_FORMS)


def _item(node: yaml.MappingNode, at: Place) -> Item:
    keys = {key.value for key, _ in node.value}
    if "flow" in keys:
        fields = _fields(node, at.file, _SUBFLOW_FIELDS)
        return Item(at, _name(fields["flow"], at.file), "flow", when=_when(fields, at.file))
    if "parallel" in keys:
        fields = _fields(node, at.file, _PARALLEL_FIELDS)
        members = tuple(_items(fields["parallel"], at.file, "parallel"))
        return Item(at, what="parallel", when=_when(fields, at.file), members=members)
    fields = _fields(node, at.file, _STEP_FIELDS)
    if "step" not in fields:
        raise at.wrong(_FORMS)
    return Item(
        at,
        _name(fields["step"], at.file),
        timeout=_duration(fields["timeout"], at.file, "timeout") if "timeout" in fields else None,
        retries=_count(fields["retries"], at.file) if "retries" in fields else DEFAULT_RETRIES,
        backoff=_backoff(fields["backoff"], at.file) if "backoff" in fields else None,
        when=_when(fields, at.file),
    )


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


def _when(fields: Mapping[str, yaml.Node], file: str) -> tuple[Place, str] | None:
    node = fields.get("when")
    return None if node is None else (_at(node, file), _text(node, file))


def _field_names(node: yaml.Node, file: str) -> Iterator[tuple[Place, str]]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise _at(node, file).wrong("cancelOn is a list of fields of the spec")
    for entry in node.value:
        text = _text(entry, file)
        if not _FIELD.fullmatch(text):
            raise _at(entry, file).wrong(f"bad field {text!r}; write spec.placement")
        yield _at(entry, file), text


def _backoff(node: yaml.Node, file: str) -> Backoff:
    """``2s``, or the mapping of what Backoff has."""
    if isinstance(node, yaml.ScalarNode):
        first = _duration(node, file, "backoff")
        return Backoff(first, longest=max(first, Backoff.longest))
    if not isinstance(node, yaml.MappingNode):
        raise _at(node, file).wrong("backoff is a time, or {first, longest, factor, jitter}")
    fields = _fields(node, file, _BACKOFF_FIELDS)
    if "first" not in fields:
        raise _at(node, file).wrong("backoff has no first; write {first: 2s}")
    first = _duration(fields["first"], file, "first")
    longest = max(first, Backoff.longest)
    if "longest" in fields:
        longest = _duration(fields["longest"], file, "longest")
        if longest < first:
            raise _at(fields["longest"], file).wrong("longest is shorter than first")
    return Backoff(
        first,
        longest,
        _number(fields, "factor", (1, 10), Backoff.factor, file),
        _number(fields, "jitter", (0, 1), Backoff.jitter, file),
    )


def _number(
    fields: Mapping[str, yaml.Node], name: str, bounds: tuple[int, int], default: float, file: str
) -> float:
    if name not in fields:
        return default
    text, (low, high) = _text(fields[name], file), bounds
    if not _NUMBER.fullmatch(text) or not low <= float(text) <= high:
        raise _at(fields[name], file).wrong(f"bad {name} {text!r}; write {low} to {high}")
    return float(text)


def _flag(node: yaml.Node, file: str) -> bool:
    text = _text(node, file)
    if text not in ("true", "false"):
        raise _at(node, file).wrong(f"bad record {text!r}; write true or false")
    return text == "true"


def _text(node: yaml.Node, file: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise _at(node, file).wrong("expected a text")
    return str(node.value)


def _name(node: yaml.Node, file: str) -> str:
    text = _text(node, file)
    if not _NAME.fullmatch(text):
        raise _at(node, file).wrong(f"{text!r} is no name; use a-z, 0-9 and -")
    return text


def _duration(node: yaml.Node, file: str, what: str) -> float:
    text = _text(node, file)
    match = _DURATION.fullmatch(text)
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else 0.0
    if seconds <= 0:
        raise _at(node, file).wrong(f"bad {what} {text!r}; write 500ms, 30s, 10m or 1h")
    return seconds


def _count(node: yaml.Node, file: str) -> int | None:
    text = _text(node, file)
    if text == "unlimited":
        return None
    if not text.isascii() or not text.isdigit():
        raise _at(node, file).wrong(f"bad retries {text!r}; write 0 or more, or unlimited")
    return int(text)


def _at(node: yaml.Node, file: str) -> Place:
    return Place(file, node.start_mark.line + 1)
