"""Options of the embedded API server go from the command line to the server."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from controller.apiserver.app import ApiServerConfig
from controller.cli import SERVER, api_server, processes, up
from controller.cli.app import app
from controller.cli.output import CommandFailed
from controller.errors import KumulusError
from controller.up import plan
from controller.up.options import ApiOptions, Options


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    (tmp_path / "tokens.csv").write_text("sesame,ali,7\n")
    return [
        "--token-file", str(tmp_path / "tokens.csv"), "--audit-log", str(tmp_path / "audit.log"),
        "--audit-level", "request", "--synchronous", "normal", "--body-limit", "4096",
    ]  # fmt: skip


def expected(directory: Path) -> ApiOptions:
    return ApiOptions(directory / "tokens.csv", directory / "audit.log", "Request", "NORMAL", 4096)


def test_up_hands_them_to_the_supervisor_and_that_to_the_server(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(up, "bring_up", asked.append)
    monkeypatch.setattr(processes, "supervise", asked.append)
    monkeypatch.setattr(api_server, "serve_api", lambda *given: asked.append(given))
    data = tmp_path / "data"
    assert CliRunner().invoke(app, ["up", "--data-dir", str(data), *flags]).exit_code == 0
    options: Options = asked.pop().options
    assert options.api == expected(tmp_path)
    assert CliRunner().invoke(app, ["supervise", *options.flags()]).exit_code == 0
    assert asked.pop() == options
    plan.prepare(options)
    server = next(child for child in plan.children(options) if child.name == "apiserver")
    _, _, _, command, *arguments = server.command
    assert command == SERVER
    api_server.main(arguments)
    assert asked.pop() == (data, 6443, "info", expected(tmp_path))


def test_what_is_not_given_is_the_servers_default() -> None:
    assert ApiOptions().given() == {}
    assert ApiOptions().flags() == []
    assert {each.name for each in fields(ApiOptions)} <= {
        each.name for each in fields(ApiServerConfig)
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--token-file", "/no/such"], "--token-file"),
        (["--audit-level", "Metadata"], "--audit-log"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(wrong: list[str], said: str) -> None:
    shown = CliRunner().invoke(app, ["up", *wrong])
    assert isinstance(shown.exception, CommandFailed)
    assert said in str(shown.exception)


def test_bad_files_end_the_server_with_a_line(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("only-a-token\n")
    with pytest.raises(KumulusError, match="line 1"):
        api_server.serve_api(tmp_path / "a", 0, "info", ApiOptions(token_file=tokens))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(KumulusError, match="file"):
        api_server.serve_api(tmp_path / "b", 0, "info", ApiOptions(audit_log=file / "log"))
