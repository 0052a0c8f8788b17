"""``kumulus flows``: every flow is listed, drawn and told as JSON."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.flows import draw
from controller.workflow.backoff import Backoff
from controller.workflow.condition import parse
from controller.workflow.flow import Flow, Guard, PlannedStep
from controller.workflow.step import Step
from tests.faults.test_fault_matrix import ALL


def invoke(*arguments: str) -> str:
    shown = CliRunner().invoke(app, ["flows", *arguments], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_all_are_listed() -> None:
    listed = json.loads(invoke("--output", "json"))
    assert {flow["name"] for flow in listed} == set(ALL)
    table = invoke()
    for name in ALL:
        assert name in table


@pytest.mark.parametrize("flow", ALL.values(), ids=lambda flow: flow.name)
def test_each_is_drawn_with_all_its_steps(flow: Flow) -> None:
    drawn = invoke(flow.name)
    numbers = [f"{i}. {step.name}" for i, step in enumerate(flow.steps, 1)]
    places = [drawn.index(number) for number in numbers]
    assert places == sorted(places)
    found = json.loads(invoke(flow.name, "-o", "json"))
    steps = [step["step"] for stage in found["stages"] for branch in stage for step in branch]
    assert steps == [step.name for step in flow.steps]


def test_a_drawing_shows_groups_sub_flows_conditions_and_policies() -> None:
    class Quick(Step):
        no_rollback = "it only looks"

    def step(name: str, **more: object) -> PlannedStep:
        return PlannedStep(type("Named", (Quick,), {"name": name})(), **more)  # type: ignore[arg-type]

    guard = Guard(parse("has(self.spec.description)", None), ("c",))
    flow = Flow("f", "Zone", (
        step("a", timeout=90.0, retries=None),
        step("b", path=("inner",), backoff=Backoff(2, longest=8)),
        step("c", path=("inner", "deep"), guards=(guard,)),
        step("d", path=("inner",), retries=3),
        step("e", group=1, branch=0), step("g", group=1, branch=1, path=("side",)),
        step("h"),
    ), cancel_on=("spec.placement",))  # fmt: skip
    shown = StringIO()
    Console(width=120, file=shown).print(draw(flow))
    assert [line.rstrip() for line in shown.getvalue().splitlines()] == [
        "f  Zone",
        "cancelled when spec.placement changes",
        "├── 1. a  timeout 90s  retried until it succeeds  no rollback: it only looks",
        "├── flow inner",
        "│   ├── 2. b  back-off 2s to 8s  no rollback: it only looks",
        "│   ├── flow deep",
        "│   │   └── 3. c  when has(self.spec.description)  no rollback: it only looks",
        "│   └── 4. d  3 retries  no rollback: it only looks",
        "├── at the same time",
        "│   ├── 5. e  no rollback: it only looks",
        "│   └── flow side",
        "│       └── 6. g  no rollback: it only looks",
        "└── 7. h  no rollback: it only looks",
    ]


def test_an_unknown_flow_or_output_is_refused_with_what_there_is() -> None:
    shown = CliRunner().invoke(app, ["flows", "nope"])
    assert shown.exit_code != 0
    assert "no flow 'nope'; there are: host-connect" in str(shown.exception)
    assert CliRunner().invoke(app, ["flows", "-o", "xml"]).exit_code == 2
