"""How a running cloud is found, and processes told apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.up import state
from controller.up.layout import Layout
from controller.up.process import Process, usage
from controller.up.supervisor import backoff, describe_exit, rotate


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "cloud")
    found.make()
    return found


def me() -> Process:
    found = Process.of(os.getpid())
    assert found is not None
    return found


def write(layout: Layout, process: Process, **children: state.ChildState) -> None:
    state.CloudState(
        pid=process.pid, started=process.started, api_port=1, agent_port=2, controller_port=3,
        children=children,
    ).save(layout.state)  # fmt: skip


def test_nothing_runs_on_a_fresh_directory(tmp_path: Path) -> None:
    assert state.running(Layout(tmp_path / "none")) is None
    assert state.leftovers(Layout(tmp_path / "none")) == []


def test_a_cloud_runs_while_its_supervisor_holds_the_lock(layout: Layout) -> None:
    write(layout, me())
    assert state.running(layout) is None
    lock = state.hold(layout)
    assert lock is not None
    found = state.running(layout)
    assert found is not None
    assert found.process == me()
    assert state.hold(layout) is None
    os.close(lock)
    assert state.running(layout) is None


def test_a_pid_that_is_used_again_is_another_process(layout: Layout) -> None:
    other = Process(os.getpid(), me().started - 1)
    assert not other.alive
    write(layout, other, agents=state.ChildState(pid=me().pid, started=me().started))
    lock = state.hold(layout)
    assert lock is not None
    assert state.running(layout) is None
    os.close(lock)
    assert state.leftovers(layout) == [me()]


def test_a_broken_state_file_is_no_cloud(layout: Layout) -> None:
    layout.state.write_text("{")
    assert state.load(layout) is None


def test_usage_of_this_process() -> None:
    used = usage(os.getpid())
    assert used.cpu > 0
    assert used.resident > 2**20
    with pytest.raises(ProcessLookupError):
        usage(2**22 + 1)


def test_backoff_doubles_within_bounds() -> None:
    pauses = [backoff(deaths, lambda: 0.0) for deaths in range(10)]
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert pauses[-1] == 30
    assert backoff(3, lambda: 1.0) == 3


def test_exits_in_words() -> None:
    assert describe_exit(1) == "exit 1"
    assert describe_exit(-9) == "signal SIGKILL"


def test_a_log_is_rotated_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"0123456789")
        rotate(path, limit=100)
        assert path.stat().st_size == 10
        rotate(path, limit=5)
        writer.write(b"new")
    assert (tmp_path / "x.log.1").read_bytes() == b"0123456789"
    assert path.read_bytes() == b"new"
