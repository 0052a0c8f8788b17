"""What a person is told to try next."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.cli.hints import callable_as, machine, next_steps

WEB = {
    "metadata": {"name": "web", "namespace": "default"},
    "status": {"state": "Running", "hostRef": {"name": "host-2"}, "ip": "10.0.0.7"},
}


def test_a_machine_in_one_line() -> None:
    assert machine(WEB) == "VM default/web: Running on host-2, IP 10.0.0.7"
    assert machine({"metadata": WEB["metadata"]}) == "VM default/web: new"


def test_commands_fit_what_there_is() -> None:
    commands = [step for step, _ in next_steps([WEB], kumulus="bin/kumulus", kubectl="kubectl")]
    assert "kubectl describe vm web" in commands
    assert "bin/kumulus down" in commands
    shop = {"metadata": {"name": "db", "namespace": "shop"}}
    assert any("db -n shop" in step for step, _ in next_steps([shop], kumulus="k", kubectl="c"))
    assert not any("describe" in step for step, _ in next_steps([], kumulus="k", kubectl="c"))


def test_a_missing_kubectl_is_said() -> None:
    steps = next_steps([WEB], kumulus="kumulus", kubectl=None)
    asked = [purpose for step, purpose in steps if "kubectl" in step]
    assert asked and all("not installed" in purpose for purpose in asked)


def test_programs_are_named_as_they_can_be_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "here" / "bin" / "tool", tmp_path / "opt" / "tool"
    for path in (inside, outside):
        path.parent.mkdir(parents=True)
        path.touch(mode=0o755)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.setenv("PATH", str(inside.parent))
    assert callable_as(inside) == "tool"
    monkeypatch.setenv("MAKELEVEL", "1")
    assert callable_as(inside) == "bin/tool"
    assert callable_as(outside) == str(outside)
    monkeypatch.setenv("PATH", str(outside.parent))
    assert callable_as(outside) == "tool"
