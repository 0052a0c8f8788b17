"""Tests that run at once do not get in each other's way."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.support import ports
from tests.support.spread import GROUPS, group_of

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("pattern", [pattern for pattern, _, _ in GROUPS], ids=lambda p: p.pattern)
def test_every_group_is_of_tests_that_are_there(pattern: re.Pattern[str]) -> None:
    begins = re.match(r"[\w/]+", pattern.pattern)
    assert begins is not None
    files = (REPOSITORY / "tests").rglob("test_*.py")
    assert any(str(file.relative_to(REPOSITORY)).startswith(begins[0]) for file in files)


def test_those_of_one_server_stay_together_and_others_by_their_file() -> None:
    tests = [f"tests/conformance/test_{file}.py::test_a" for file in ("reads", "writes")]
    servers = ("reference", "given")
    assert len({group_of(f"{test}[{each}-x]")[0] for test in tests for each in servers}) == 2
    assert group_of("tests/unit/x.py::test_a[b::c]")[0] == "tests/unit/x.py"


def test_ports_are_free_in_a_row_and_not_given_twice() -> None:
    given = [ports.free_ports(3) for _ in range(20)]
    assert all(row == list(range(row[0], row[0] + 3)) for row in given)
    found = {port for row in given for port in row}
    assert len(found) == 60
    assert all(ports.FIRST <= port < ports.LAST for port in found)


def test_a_port_that_is_taken_is_left_out() -> None:
    with socket.socket() as taken:
        port = ports.free_port()
        taken.bind(("127.0.0.1", port))
        assert not ports._free([port])
