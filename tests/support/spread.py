"""How the tests with real servers share the machine when several processes run them at once.

Tests that use one server, cloud or host stay together and in their order: they are a group, given
to one process whole. The longest groups begin first, so that nobody waits for one at the end.
``scripts/test`` asks for it with ``--dist loadscope --no-loadscope-reorder``.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# (how the tests' ids begin, the group's name, about how many seconds it takes)
GROUPS = tuple(
    (re.compile(f"tests/{pattern}"), name, seconds)
    for pattern, name, seconds in (
        (r"integration/chart/test_image", "image", 140),
        (r"e2e/test_crash\.py.*\[[^:]*:[^:]*:before", "crash-before", 100),
        (r"e2e/test_crash\.py", "crash-after", 110),
        (r"integration/libvirt/", "libvirt", 105),
        (r"e2e/test_audit.*killed", "audit-killed", 90),
        (r"e2e/test_up", "up", 90),
        (r"e2e/test_agent_faults", "agent-faults", 85),
        (r"conformance/.*\[reference", "conformance-reference", 80),
        (r"conformance/.*\[given", "conformance-given", 80),
        (r"integration/apiserver/test_fuzz", "fuzz", 75),
        (r"e2e/test_cascade", "cascade", 65),
        (r"integration/agents/test_kill", "agents-killed", 60),
        (r"e2e/test_real_vm", "real-vm", 55),
        (r"integration/apiserver/test_crash", "apiserver-crash", 50),
        (r"integration/crds/test_manifests.*\[reference", "crds-reference", 50),
        (r"integration/apiserver/test_examples", "examples", 45),
        (r"conformance/.*\[embedded", "conformance-embedded", 45),
        (r"e2e/test_tags", "tags", 40),
        (r"integration/crds/test_manifests.*\[embedded", "crds-embedded", 40),
        (r"e2e/test_audit", "audit", 40),
        (r"integration/ledger/", "mariadb", 35),
        (r"e2e/test_readme", "readme", 35),
        (r"e2e/test_replicas", "replicas", 35),
        (r"integration/agents/test_fetch", "fetch", 30),
        (r"e2e/test_plugins", "plugins", 25),
        (r"integration/admission/", "admission", 20),
        (r"integration/chart/", "chart", 20),
    )
)
OTHERS = 15
"""Seconds. A test that none of them matches is grouped by its file."""


def group_of(nodeid: str) -> tuple[str, int]:
    """(name, seconds)."""
    for pattern, name, seconds in GROUPS:
        if pattern.match(nodeid):
            return name, seconds
    return nodeid.partition("::")[0], OTHERS


class Scheduling(LoadScopeScheduling):
    """Gives a process the next group when it has almost done its own."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    return Scheduling(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -group_of(item.nodeid)[1])
