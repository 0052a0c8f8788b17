"""Backup and restore of a server in a process of its own, by the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conformance.client import Cluster
from tests.conformance.conftest import Widgets
from tests.support.apiserver import ROOT, ApiServerProcess


def kumulus(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_back_to_the_objects_of_a_backup(
    api_server: ApiServerProcess, widgets: Widgets, tmp_path: Path
) -> None:
    data, copy = ["--data-dir", str(api_server.directory)], str(tmp_path / "copy")
    widgets.create("kept")
    made = kumulus("backup", copy, *data)
    assert made.returncode == 0, made.stderr
    lost = widgets.create("lost")["metadata"]["resourceVersion"]
    refused = kumulus("restore", copy, *data)
    assert refused.returncode == 1
    assert "in use by process" in refused.stderr
    assert "Traceback" not in refused.stderr
    api_server.stop()
    restored = kumulus("restore", copy, *data)
    assert restored.returncode == 0, restored.stderr
    api_server.start()
    again = Widgets(Cluster(api_server.kubeconfig), "default")
    assert again.names() == ["kept"]
    assert int(again.create("new")["metadata"]["resourceVersion"]) > int(lost)
    events = again.cluster.watch(again.path, resourceVersion=lost)
    assert [(e["type"], e["object"]["code"]) for e in events] == [("ERROR", 410)]


def test_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("no database")
    for arguments in (
        ("backup", str(tmp_path / "copy"), "--data-dir", str(tmp_path)),
        ("restore", str(tmp_path / "copy"), "--data-dir", str(tmp_path)),
        ("restore", str(tmp_path / "none"), "--data-dir", str(tmp_path)),
        ("api-server", "--port", "1", "--data-dir", str(tmp_path)),
    ):
        if arguments[0] == "api-server":
            (tmp_path / "apiserver.db").write_text("no database" * 1000)
        done = kumulus(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.strip().splitlines()) == 1
