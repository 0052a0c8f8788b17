"""Flows are read with care: what is wrong is named with file and line."""

from __future__ import annotations

import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from controller.reconcile.actuator import Actuator
from controller.workflow.flow import DEFAULT_RETRIES, FlowError, Steps, collect
from controller.workflow.loader import load
from controller.workflow.step import Step
from crds.v1alpha1.zone import Zone


def _step(step_name: str) -> type[Step]:
    return type("Some", (Step,), {"name": step_name, "no_rollback": "it only looks"})


@pytest.fixture
def steps() -> Steps:
    found = Steps()
    for name in ("a", "b", "c"):
        found.add(_step(name), "Zone")
    found.add(_step("shared"))
    return found


def _write(directory: Path, **flows: str) -> Path:
    for name, text in flows.items():
        (directory / f"{name}.yaml").write_text(textwrap.dedent(text))
    return directory


def test_steps_may_be_names_or_mappings_or_sub_flows(tmp_path: Path, steps: Steps) -> None:
    _write(
        tmp_path,
        outer="""\
            name: outer
            kind: Zone
            description: All of it.
            steps:
              - {step: a, timeout: 90s, retries: 3}
              - {flow: inner}
              - {step: shared, retries: unlimited}
            """,
        inner="""\
            name: inner
            kind: Zone
            steps: [b, {step: c, timeout: 1.5m}]
            """,
    )
    flow = load(tmp_path, steps)["outer"]
    assert [(s.name, s.timeout, s.retries) for s in flow.steps] == [
        ("a", 90.0, 3),
        ("b", None, DEFAULT_RETRIES),
        ("c", 90.0, DEFAULT_RETRIES),
        ("shared", None, None),
    ]
    assert flow.description == "All of it."
    assert flow.positions == {"a": 0, "b": 1, "c": 2, "shared": 3}


HEAD = "name: f\nkind: Zone\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD + "steps:\n - a\n - nope", "f.yaml:5: Zone has no step 'nope'; it has: a, b, c"),
        (HEAD + "steps:\n - a\n - {flow: g}", "f.yaml:5: no flow 'g'; there are: f"),
        (HEAD + "steps:\n - {flow: f}", "f.yaml:4: flows go in a circle: f → f"),
        (HEAD + "steps: [a, b,\n a]", "f.yaml:4: step 'a' is in flow 'f' twice: also"),
        (HEAD + "steps:\n - step: a\n   timeout: soon", "f.yaml:5: bad timeout 'soon'"),
        (HEAD + "steps: [{step: a, timeout: 0s}]", "f.yaml:3: bad timeout '0s'"),
        (HEAD + "steps: [{step: a, timeout: 30}]", "f.yaml:3: bad timeout '30'"),
        (HEAD + "steps: [{step: a, retries: -1}]", "f.yaml:3: bad retries '-1'"),
        (HEAD + "steps: [{step: a, retry: 1}]", "f.yaml:3: unknown field 'retry'"),
        (HEAD + "steps: [{flow: f, retries: 1}]", "f.yaml:3: unknown field 'retries'"),
        (HEAD + "steps: [{retries: 1}]", "f.yaml:3: a step is a name"),
        (HEAD + "steps: [[a]]", "f.yaml:3: a step is a name"),
        (HEAD + "steps: [A!]", "f.yaml:3: 'A!' is no name"),
        (HEAD + "steps: []", "f.yaml:3: steps is a list with at least one step"),
        (HEAD + "steps: a", "f.yaml:3: steps is a list with at least one step"),
        (HEAD, "f.yaml:1: steps is missing"),
        ("name: f\nsteps: [a]", "f.yaml:1: kind is missing"),
        ("name: f\nname: f\n", "f.yaml:2: name is given twice"),
        ("name: g\nkind: Zone\nsteps: [a]", "f.yaml:1: flow 'g' must be in g.yaml"),
        ("name: [f]\nkind: Zone\nsteps: [a]", "f.yaml:1: expected a text"),
        ("- a", "f.yaml:1: a flow is a mapping"),
        ("", "f.yaml:1: a flow is a mapping"),
        ("name: f\nkind: [", "f.yaml:2: not YAML"),
        ("name: \x01", "f.yaml:1: not YAML"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(
    tmp_path: Path, steps: Steps, text: str, complaint: str
) -> None:
    _write(tmp_path, f=text)
    with pytest.raises(FlowError) as caught:
        load(tmp_path, steps)
    assert complaint in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path, steps: Steps) -> None:
    _write(
        tmp_path,
        f=HEAD + "steps: [nope]",
        g="name: g\nkind: Zone\nsteps: [{flow: h}]",
        h="name: h\nkind: Host\nsteps: [shared]",
        i="name: i\nkind: Zone\nsteps: [{flow: j}]",
        j="name: j\nkind: Zone\nsteps: [{flow: i}]",
        k="name: k\nsteps: [a]",
    )
    with pytest.raises(FlowError) as caught:
        load(tmp_path, steps)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert any("g.yaml:3: flow 'h' is for Host; a sub-flow must be for Zone" in s for s in lines)
    assert any("flows go in a circle: i → j → i" in s for s in lines)


def test_a_step_twice_through_sub_flows_is_found(tmp_path: Path, steps: Steps) -> None:
    _write(
        tmp_path,
        f=HEAD + "steps:\n - a\n - {flow: g}",
        g="name: g\nkind: Zone\nsteps: [b, a]",
    )
    with pytest.raises(
        FlowError, match=r"g.yaml:3: step 'a' is in flow 'f' twice: also .*f.yaml:4"
    ):
        load(tmp_path, steps)


def _module(name: str, *members: type) -> ModuleType:
    module = ModuleType(name)
    for member in members:
        member.__module__ = name
        setattr(module, member.__name__, member)
    return module


def test_steps_belong_to_the_kind_of_their_modules_actuator() -> None:
    actuator = type("ZoneActuator", (Actuator,), {"model": Zone})
    mine = type("Mine", (Step,), {"name": "mine"})
    helper = type("Helper", (Step,), {"name": "helper"})
    base = type("Base", (Step,), {})
    steps = collect([_module("kinds.zone", actuator, mine, base), _module("kinds.extra", helper)])
    assert isinstance(steps.find("Zone", "mine"), mine)
    assert steps.find("Host", "mine") is None
    assert isinstance(steps.find("Host", "helper"), helper)
    assert steps.names("Zone") == ["helper", "mine"]


def test_two_steps_of_one_name_are_refused() -> None:
    one, two = (type(n, (Step,), {"name": "same"}) for n in ("One", "Two"))
    with pytest.raises(FlowError, match=r"are called 'same': .*One and .*Two; rename one"):
        collect([_module("kinds.extra", one, two)])


def test_flows_are_loaded_over_the_steps_of_modules(tmp_path: Path) -> None:
    _write(tmp_path, f=HEAD + "steps: [one]")
    one = type("One", (Step,), {"name": "one", "no_rollback": "it only looks"})
    flows = load(tmp_path, collect([_module("kinds.extra", one)]))
    assert list(flows) == ["f"]
