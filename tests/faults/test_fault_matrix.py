"""Every fault at every step of every flow: in the end all is as wanted, and nothing is left.

The flows are the registry's, so a new one is covered as soon as some life (``scenarios``) passes
through it; the engine, the steps and the simulated machines are the real ones, in virtual time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from controller.plugins.catalog import Catalog
from controller.registry import fitted
from controller.workflow.flow import Flow
from tests.faults.faults import FAULTS, CrashAndFail, Fault, LostCallback, Seen, inject
from tests.faults.scenarios import SCENARIOS
from tests.support.fakes import FakeAgents

pytestmark = pytest.mark.looptime

ALL: dict[str, Flow] = fitted(Catalog())[1]
PARTS = {name for flow in ALL.values() for step in flow.steps for name in step.path}
POINTS = [
    (flow.name, step.name) for flow in ALL.values() if flow.name not in PARTS for step in flow.steps
]
_PASSED: dict[str, set[tuple[str, str]]] = {}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Hundreds of expected failures need no log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def passes_through(point: tuple[str, str]) -> str:
    """The first scenario that passes through a step. Each is lived once without faults."""
    for name, (life, world_of) in SCENARIOS.items():
        if name not in _PASSED:
            seen = Seen()
            async with world_of() as world:
                world.meddle = seen.meddle
                await world.kill()
                world.controller()
                await life(world)
                report = await world.audit()
            assert report.clean, f"{name} without any fault: {report}"
            _PASSED[name] = seen.steps
        if point in _PASSED[name]:
            return name
    flow, step = point
    raise AssertionError(
        f"no scenario passes through step {step} of flow {flow}: add one to "
        "tests/faults/scenarios.py"
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("point", POINTS, ids="/".join)
async def test_nothing_leaks(
    point: tuple[str, str], fault: type[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    life, world_of = SCENARIOS[await passes_through(point)]
    # Operations end within the pass that began them, or (when their callback matters) after it.
    monkeypatch.setattr(FakeAgents, "patience", 0.0 if issubclass(fault, LostCallback) else 1.0)
    struck = fault(*point)
    async with world_of() as world:
        inject(world, struck)
        await world.kill()
        world.controller()
        await life(world)
        report = await world.audit()
        assert struck.fired, "the fault never struck"
        if fault is CrashAndFail and len(ALL[point[0]].steps) > 1:
            assert struck.fired >= 2, "nothing came after the crash"
        assert report.clean, report
        assert world.leftovers() == []
