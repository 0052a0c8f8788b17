"""Garbage collection: the same owners and deletions end in the same state as upstream's.

When things happen is not compared, only where they end: the reference's collector is its own.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from tests.conformance.client import MERGE
from tests.integration.apiserver.differential.graphs import EXTENDED, Family
from tests.integration.apiserver.differential.requests import Step
from tests.integration.apiserver.differential.sides import Side
from tests.integration.apiserver.differential.test_differential import Sides, sides

__all__ = ["sides"]
EXAMPLES = int(os.environ.get("KUMULUS_DIFFERENTIAL", "0")) // 12
QUIET_SECONDS = 1.0
SECONDS = 40.0
_numbers = itertools.count(1)


@settings(
    max_examples=EXAMPLES or 3,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),  # shrinking would wait a hundred times
    suppress_health_check=list(HealthCheck),
)
@given(EXTENDED)
def test_what_is_left_agrees(sides: Sides, families: list[Family]) -> None:
    namespace = f"collection-{next(_numbers)}"
    for side in sides:
        side.enter(namespace)
    try:
        for side in sides:
            _play(side, families)
        _agree(sides, families)
        for side in sides:
            _let_go(side, families)
        _agree(sides, families)
    finally:
        for side in sides:
            _release_all(side)
            side.leave()


def _play(side: Side, families: list[Family]) -> None:
    for number, family in enumerate(families):
        uids: dict[str, str] = {}
        for member in range(len(family.members)):
            made = side.send(Step("POST", body=family.body(number, member, uids))).ok()
            uids[made["metadata"]["name"]] = made["metadata"]["uid"]
    for number, family in enumerate(families):
        options = {"propagationPolicy": family.policy} if family.policy else None
        name = family.name(number, family.deleted)
        reply = side.send(Step("DELETE", name, body=options))
        # It may be gone before: an owner of it never was.
        assert reply.code in (200, 404), reply.text


def _let_go(side: Side, families: list[Family]) -> None:
    for number, family in enumerate(families):
        if family.let_go:
            for member, found in enumerate(family.members):
                if found.held:
                    name = family.name(number, member)
                    patch = {"metadata": {"finalizers": None}}
                    side.send(Step("PATCH", name, body=patch, content=MERGE))


def _release_all(side: Side) -> None:
    for name in _state(side):
        side.send(Step("PATCH", name, body={"metadata": {"finalizers": None}}, content=MERGE))


def _agree(sides: Sides, families: list[Family]) -> None:
    """Both come to rest, and then are alike."""
    end = time.monotonic() + SECONDS
    while True:
        expected, found = _at_rest(sides, end)
        if found == expected:
            return
        if time.monotonic() > end:
            different = {n for n in {*expected, *found} if expected.get(n) != found.get(n)}
            about = {f"f{n}": f for n, f in enumerate(families)}
            stories = {name: about[name.partition("-")[0]] for name in different}
            assert found == expected, json.dumps(sorted(different)) + f"\n{stories}"


def _at_rest(sides: Sides, end: float) -> tuple[dict[str, Any], dict[str, Any]]:
    before = _state(sides[0]), _state(sides[1])
    while True:
        time.sleep(QUIET_SECONDS)
        now = _state(sides[0]), _state(sides[1])
        if now == before or time.monotonic() > end:
            return now
        before = now


def _state(side: Side) -> dict[str, Any]:
    """Of each object: whether it is being deleted, who holds it, which owners there are.

    References to owners that are gone are left out: Kubernetes' collector removes them while
    another owner is there, and so do we; the reference's does not.
    """
    items = side.cluster.get(side.path).ok()["items"]
    there = {item["metadata"]["name"] for item in items}
    return {item["metadata"]["name"]: _told(item["metadata"], there) for item in items}


def _told(metadata: dict[str, Any], there: set[str]) -> Any:
    owners = [
        (reference["name"], reference.get("blockOwnerDeletion"))
        for reference in metadata.get("ownerReferences", [])
        if reference["name"] in there
    ]
    return "deletionTimestamp" in metadata, sorted(metadata.get("finalizers", [])), sorted(owners)
