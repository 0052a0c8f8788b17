"""The same requests to the embedded server and to upstream's: the answers must agree.

``KUMULUS_DIFFERENTIAL`` is how many generated sequences to send (more than CI does). What may
differ, and why, is in docs/apiserver.md.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from tests.conformance.conftest import DEFINITIONS, definition, eventually
from tests.integration.apiserver.differential.requests import SEQUENCES, Step
from tests.integration.apiserver.differential.sides import Side, outcome
from tests.support.apiserver import embedded_cluster
from tests.support.reference import reference_cluster

EXAMPLES = int(os.environ.get("KUMULUS_DIFFERENTIAL", "0"))
EVERYWHERE = "/apis/conformance.kumulus.dev/v1/widgets"
_numbers = itertools.count(1)
Sides = tuple[Side, Side]


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    with ExitStack() as stack:
        found = []
        for cluster in (reference_cluster, embedded_cluster):
            side = Side(stack.enter_context(cluster()))
            stack.callback(side.close)
            wire = definition("widgets", "conformance.kumulus.dev")
            wire["spec"]["versions"][0]["selectableFields"] = [{"jsonPath": ".spec.mode"}]
            side.cluster.post(DEFINITIONS, wire).ok()
            eventually(lambda side=side: side.cluster.get(EVERYWHERE).code == 200)
            found.append(side)
        yield found[0], found[1]


def agree(sides: Sides, step: Step) -> None:
    note(f"{step}")
    expected, found = (
        [outcome(reply) for reply in (side.pages(step) if step.follow else [side.send(step)])]
        for side in sides
    )
    assert found == expected, f"{step}"


@settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(SEQUENCES)
def test_answers_and_events_agree(sides: Sides, steps: list[Step]) -> None:
    namespace = f"differential-{next(_numbers)}"
    for side in sides:
        side.enter(namespace)
    try:
        starts = [side.version() for side in sides]
        for step in steps:
            agree(sides, step)
        events_agree(sides, starts)
    finally:
        for side in sides:
            side.leave()


def events_agree(sides: Sides, starts: list[str]) -> None:
    last: dict[str, Any] = {
        "apiVersion": "conformance.kumulus.dev/v1", "kind": "Widget",
        "metadata": {"name": "last", "labels": {"tier": "1"}}, "spec": {"size": 1},
    }  # fmt: skip
    for side in sides:
        side.cluster.post(side.path, last).ok()
    for query in ({}, {"labelSelector": "tier=1"}, {"fieldSelector": "metadata.name!=a"}):
        expected, found = (
            side.watch(start, "last", **query) for side, start in zip(sides, starts, strict=True)
        )
        assert found == expected, f"watch {query}"
