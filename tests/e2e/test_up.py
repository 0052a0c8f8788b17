"""The embedded cloud as a user meets it: up, down, status, tree, logs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.up import state
from controller.up.kube import MERGE_PATCH, collection
from crds import kinds
from tests.support.embedded import Cloud, cloud, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One cloud for the tests that leave it as it was."""
    with cloud(tmp_path_factory.mktemp("cloud") / "data") as found:
        first = found.up()
        assert first.returncode == 0, first.stdout + first.stderr
        yield found


def test_up_ends_with_a_running_machine_and_what_to_try_next(up: Cloud) -> None:
    again = up.up()
    assert again.returncode == 0
    words = again.stdout
    assert re.search(r"runs already \(pid \d+\)", words)
    assert re.search(r"VM default/web-1: Running on host-[123], IP 10\.77\.0\.\d+", words)
    assert f"export KUBECONFIG={up.layout.kubeconfig}" in words
    for step in ("get vm -w", "describe vm web-1", "delete zone zone-1"):
        assert step in words


def test_everything_is_ready(up: Cloud) -> None:
    assert {row.kind for row in up.rows()} >= set(kinds()) - {"DiskOffering", "TrashItem"}
    assert [(row.title, row.note) for row in up.rows() if not row.ready] == []


def test_secrets_are_the_users_alone(up: Cloud) -> None:
    assert up.root.stat().st_mode & 0o077 == 0
    keys = [*up.root.rglob("*.key"), up.layout.kubeconfig]
    assert len(keys) > 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


def test_status_and_tree(up: Cloud) -> None:
    status = up.run("status", "--data-dir", str(up.root)).stdout
    assert re.search(r"VirtualMachine +default/web-1 +Running +True", status)
    tree = up.run("tree", "--data-dir", str(up.root)).stdout
    assert re.search(r"^Zone/zone-1 +Enabled", tree, re.MULTILINE)
    assert re.search(r"─ Host/host-1 +Enabled, Connected", tree)
    assert re.search(r"─ Volume/default/web-1-root +Ready", tree)


def test_logs_tell_of_a_machine(up: Cloud) -> None:
    shown = up.run("logs", "controller", "--data-dir", str(up.root), "--name", "web-1")
    assert "VirtualMachine/default/web-1" in shown.stdout


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as holder, cloud(tmp_path / "data") as other:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        other.ports["--agent-port"] = holder.getsockname()[1]
        failed = other.up()
    assert failed.returncode == 1
    (line,) = failed.stderr.strip().splitlines()
    assert f"port {other.ports['--agent-port']} is taken by pid {os.getpid()}" in line
    assert line.endswith("choose another port with --agent-port")
    assert not (tmp_path / "data").exists()


def test_errors_are_one_line_with_the_fix(tmp_path: Path) -> None:
    with cloud(tmp_path / "none", HOME=str(tmp_path)) as absent:
        for command in (["status"], ["tree"], ["logs"]):
            failed = absent.run(*command, "--data-dir", str(absent.root))
            assert failed.returncode == 1
            (line,) = failed.stderr.strip().splitlines()
            assert "kumulus up" in line
        assert "No cloud runs" in absent.down().stdout


@pytest.mark.parametrize("component", ["apiserver", "controller", "agents"])
def test_a_killed_process_comes_back(up: Cloud, component: str) -> None:
    before = up.state().children[component].process
    assert before is not None
    before.signal(signal.SIGKILL)

    def back() -> bool:
        now = up.state().children[component].process
        return now is not None and now != before and now.alive

    until(back, what=f"a new {component}")
    until(lambda: all(row.ready for row in up.rows()), 60, what="everything ready")
    assert up.get("VirtualMachine", "web-1")["status"]["state"] == "Running"


def test_data_survive_down_and_up_and_are_not_applied_over(tmp_path: Path) -> None:
    with cloud(tmp_path / "data") as mine:
        assert mine.up("--hosts", "1").returncode == 0
        zone = f"{collection(kinds()['Zone'])}/zone-1"
        mine.kube.request(
            "PATCH", zone, {"spec": {"description": "mine"}}, content_type=MERGE_PATCH
        )
        machine = mine.get("VirtualMachine", "web-1")
        stopped = mine.down()
        assert stopped.returncode == 0
        assert "Stopped" in stopped.stdout
        assert state.running(mine.layout) is None

        again = mine.up()
        assert again.returncode == 0, again.stderr
        kept = mine.get("VirtualMachine", "web-1")
        assert kept["metadata"]["uid"] == machine["metadata"]["uid"]
        assert kept["status"]["ip"] == machine["status"]["ip"]
        assert mine.kube.get(zone)["spec"]["description"] == "mine"

        assert mine.down().returncode == 0
        assert mine.up("--quickstart").returncode == 0
        assert mine.kube.get(zone)["spec"]["description"] == "A data centre of simulated hosts"


def test_a_machine_without_kubectl(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    with cloud(tmp_path / "data", PATH=str(tools)) as bare:
        first = bare.up("--hosts", "2")
        assert first.returncode == 0, first.stdout + first.stderr
        assert "built-in apply" in first.stdout
        assert re.search(r"VM default/web-1: Running on host-[12]", first.stdout)


def test_foreground_stops_with_ctrl_c(tmp_path: Path) -> None:
    with cloud(tmp_path / "data") as found:
        ports = [part for flag, port in found.ports.items() for part in (flag, str(port))]
        process = subprocess.Popen(
            [sys.executable, "-m", "controller.cli", "up", "--foreground", "--no-quickstart",
             "--data-dir", str(found.root), *ports],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "Ctrl-C stops it" in line:
                    break
            children = [child.process for child in found.state().children.values()]
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert process.wait(60) == 130
            assert "Stopped." in rest
            assert all(child is not None and not child.alive for child in children)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
