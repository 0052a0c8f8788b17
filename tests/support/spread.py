"""How the tests with real servers share the machine when several processes run them at once.

Tests that use one server, cloud or host stay together and in their order: they are a group, given
to one process whole. The longest groups begin first, so that nobody waits for one at the end.
``scripts/test`` asks for it with ``--dist loadgroup``.
"""

from __future__ import annotations

import re

import pytest

# (how the tests' ids begin, the group's name, about how many seconds it takes)
GROUPS = tuple(
    (re.compile(f"tests/{pattern}"), name, seconds)
    for pattern, name, seconds in (
        (r"conformance/.*\[reference", "conformance-reference", 150),
        (r"conformance/.*\[embedded", "conformance-embedded", 150),
        (r"conformance/.*\[given", "conformance-given", 150),
        (r"integration/libvirt/", "libvirt", 150),
        (r"integration/chart/test_image", "image", 140),
        (r"e2e/test_real_vm", "real-vm", 100),
        (r"e2e/test_audit", "audit", 150),
        (r"e2e/test_crash\.py.*\[[^:]*:[^:]*:before", "crash-before", 120),
        (r"e2e/test_crash\.py", "crash-after", 120),
        (r"e2e/test_agent_faults", "agent-faults", 120),
        (r"e2e/test_up", "up", 100),
        (r"e2e/test_replicas", "replicas", 60),
        (r"integration/crds/.*\[reference", "crds-reference", 50),
        (r"integration/crds/.*\[embedded", "crds-embedded", 50),
    )
)
OTHERS = 20
"""Seconds. A test that none of them matches is grouped by its file."""


def group_of(nodeid: str) -> tuple[str, int]:
    """(name, seconds)."""
    for pattern, name, seconds in GROUPS:
        if pattern.match(nodeid):
            return name, seconds
    return nodeid.partition("::")[0], OTHERS


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Plain())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not getattr(config.option, "loadgroup", False):
        return
    groups = {item.nodeid: group_of(item.nodeid) for item in items}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.nodeid][0]))
    items.sort(key=lambda item: (-groups[item.nodeid][1], groups[item.nodeid][0]))


class _Plain:
    """Reports name a test as it is to be asked for, without the group that xdist appends."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        place, at, group = report.nodeid.rpartition("@")
        if at and "]" not in group:
            report.nodeid = place
