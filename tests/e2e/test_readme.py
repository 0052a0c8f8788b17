"""The README's commands do what it says: each is run, in order, on a cloud of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.embedded import REPOSITORY, Cloud, cloud, kubectl, tail

pytestmark = pytest.mark.slow

README = REPOSITORY / "README.md"
SETS_UP = {"make up", "make test", "make down"}
"""Commands that the fixture stands for (up, down), or that run this very test."""
ENDLESS = re.compile(r" (-w|--watch|-f|--follow)\b")
"""Commands that go on until Ctrl-C: they must still be at it after a while."""
PATIENCE = 5.0


def commands(text: str) -> list[str]:
    """The lines of every fenced ``sh`` block that a user types: those after ``$``, or all of them
    in a block without any. Comments are left out."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = [line for line in block.splitlines() if line.strip()]
        typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
        found += [line.split("  #")[0].strip() for line in typed if not line.startswith("#")]
    return found


def test_commands_are_found() -> None:
    text = (
        "```sh\n$ make up\nUp.\n$ kubectl get vm -w  # ends with Ctrl-C\n```\n```yaml\n$ no\n```\n"
    )
    assert commands(text) == ["make up", "kubectl get vm -w"]
    assert commands("```sh\n# a comment\nmake test\n```\n") == ["make test"]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if kubectl() is None:
        pytest.skip("kubectl is not there; `make test` fetches one")
    with cloud(tmp_path_factory.mktemp("readme") / "data") as found:
        first = found.up()
        assert first.returncode == 0, first.stdout + first.stderr
        yield found


def environment(up: Cloud) -> dict[str, str]:
    """As after ``make up`` and the export that the README asks for."""
    tool = kubectl()
    assert tool is not None
    paths = [str(REPOSITORY / ".venv" / "bin"), str(Path(tool).parent), os.environ["PATH"]]
    return {
        **os.environ, "PATH": os.pathsep.join(paths), "KUBECONFIG": str(up.layout.kubeconfig),
        "KUMULUS_DATA_DIR": str(up.root), "COLUMNS": "120",
    }  # fmt: skip


def test_every_command_of_the_readme(up: Cloud) -> None:
    found = commands(README.read_text())
    assert set(found) >= SETS_UP
    for command in found:
        if command in SETS_UP or command.startswith(("export KUBECONFIG", "git clone", "cd ")):
            continue
        code, output = run(command, environment(up))
        assert code == 0, f"$ {command}\n{output}\n{tail(up.layout, 'controller')}"


def run(command: str, env: dict[str, str]) -> tuple[int, str]:
    """(exit code, output); a command without an end is good if it is still at it."""
    endless = ENDLESS.search(command) is not None
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=REPOSITORY, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=PATIENCE if endless else 180)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return (0 if endless else 1), output
    return process.returncode, output
