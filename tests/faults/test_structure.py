"""The plan of every flow, with steps that only note what they did: whatever strikes at whichever
step, in the end all effects are there once, or none.

This asks nothing of a flow but that it is declared, so it covers a new one at once; what its real
steps do is the fault matrix' matter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from controller.errors import FlowFailed, Terminal, Transient, Waiting
from controller.workflow.flow import Flow
from controller.workflow.runner import FlowEngine
from controller.workflow.step import Scope, Step
from crds.v1alpha1.zone import Zone
from tests.faults.test_fault_matrix import ALL
from tests.unit.workflow.world import Clock, Crash, context, reread, zone

MISHAPS = ("crash", "hang", "error", "rollback-error", "rollback-crash", "crash-then-error")
POINTS = [(flow, step.name) for flow in ALL.values() for step in flow.steps]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class _Noting(Step):
    """Has one effect, found or made. Goes wrong as ``mishaps`` say, each once, effect and all."""

    def __init__(self, name: str, effects: set[str], run: list[str], undo: list[str]) -> None:
        self.name = name  # type: ignore[misc]
        self._effects, self._run, self._undo = effects, run, undo

    async def run(self, scope: Scope[Any]) -> None:
        self._effects.add(self.name)
        self._strike(self._run)

    async def rollback(self, scope: Scope[Any]) -> None:
        self._effects.discard(self.name)
        self._strike(self._undo)

    def _strike(self, mishaps: list[str]) -> None:
        kinds: dict[str, BaseException] = {
            "crash": Crash(),
            "hang": Transient("it hung", reason="StepHung"),
            "error": Terminal("it failed", reason="Injected"),
        }
        mishap = mishaps.pop(0) if mishaps else "ok"
        if mishap in kinds:
            raise kinds[mishap]


def _scripts(mishap: str, mine: bool, first: bool) -> tuple[list[str], list[str]]:
    """What goes wrong forward and backward at the step in question, or another."""
    if mishap == "crash-then-error":
        return (["crash"] if mine else ["ok"]) + (["error"] if first else []), []
    if not mine:
        return [], []
    return {
        "crash": (["crash"], []),
        "hang": (["hang"], []),
        "error": (["error"], []),
        "rollback-error": (["error"], ["error", "hang"]),
        "rollback-crash": (["error"], ["crash"]),
    }[mishap]


@pytest.mark.parametrize("mishap", MISHAPS)
@pytest.mark.parametrize(("flow", "step"), POINTS, ids=lambda x: getattr(x, "name", x))
async def test_all_or_nothing(flow: Flow, step: str, mishap: str) -> None:
    effects: set[str] = set()
    steps = []
    for index, planned in enumerate(flow.steps):
        scripts = _scripts(mishap, planned.name == step, index == 0)
        steps.append(
            replace(planned, step=_Noting(planned.name, effects, *scripts), backoff=None, guards=())
        )
    plan = replace(flow, kind="Zone", steps=tuple(steps), cancel_on=())
    ended = await _to_its_end(plan)
    failed = mishap not in ("crash", "hang")
    assert ended == ("failed" if failed else "done")
    assert effects == (set() if failed else {each.name for each in steps})


async def _to_its_end(plan: Flow) -> str:
    """Every pass is another process': each knows only what the one before could write."""
    clock, written = Clock(), zone()
    for _ in range(30):
        obj: Zone = reread(written)
        try:
            await FlowEngine({plan.name: plan}).run(plan.name, obj, context(clock))
        except Crash:
            continue
        except FlowFailed:
            return "failed"
        except (Waiting, Transient):
            written = reread(obj)
            continue
        return "done"
    raise AssertionError("it never ends")
