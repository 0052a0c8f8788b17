"""The command line itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from controller.cli import api_server
from controller.cli.app import app

SLOW = (
    "aiohttp",
    "cryptography",
    "kopf",
    "kubernetes",
    "pydantic",
    "sqlalchemy",
    "uvloop",
    "agents",
)
VISIBLE = (
    *("up", "down", "run", "agent", "status", "tree", "flows", "audit", "logs", "pki"),
    *("rights", "cascade", "recover", "plugins", "tags", "tag"),
)


def test_help_names_every_command_and_hides_the_internal_ones() -> None:
    shown = CliRunner().invoke(app, ["--help"], prog_name="kumulus")
    assert shown.exit_code == 0
    commands = {line.split()[0] for line in shown.output.splitlines() if line.startswith("  ")}
    assert set(VISIBLE) <= commands
    assert not {"supervise", "api-server"} & commands


@pytest.mark.parametrize("command", [*VISIBLE, "pki issue", "pki controller", "supervise"])
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--synchronous=MAYBE", 2)])
def test_the_api_servers_command_explains_itself(
    argument: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        api_server.main([argument])
    assert ended.value.code == code
    assert "--synchronous {FULL,NORMAL,OFF}" in " ".join("".join(capsys.readouterr()).split())


def test_the_api_server_imports_nothing_that_it_answers_without() -> None:
    """How soon it is ready is how much it imports. In a process of its own, as above."""
    needless = ("typer", "rich", "pydantic", "crds", "kubernetes", "sqlalchemy", "kopf")
    code = (
        "import sys, controller.cli, controller.cli.api_server; "
        f"print([m for m in {needless} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_that_is_slow() -> None:
    """In a process of its own: this one has imported everything."""
    code = f"import sys, controller.cli.app; print([m for m in {SLOW} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.output.strip() == f"kumulus {version('kumulus')}"


def test_a_wrong_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["up", "--api-port", "0"]).exit_code == 2
    assert CliRunner().invoke(app, ["fly"]).exit_code == 2
