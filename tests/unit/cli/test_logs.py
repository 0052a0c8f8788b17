"""Logs for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.cli import logs
from controller.cli.output import CommandFailed, out
from controller.up.layout import Layout


def entry(**fields: Any) -> dict[str, Any]:
    return {"time": "2026-01-01T10:00:00.000Z", "level": "info", "message": "hello", **fields}


def write(data_dir: Path, component: str, *entries: dict[str, Any] | str) -> Path:
    layout = Layout(data_dir)
    layout.make()
    lines = [each if isinstance(each, str) else json.dumps(each) for each in entries]
    layout.log(component).write_text("".join(f"{line}\n" for line in lines))
    return data_dir


def shown(data_dir: Path, component: str | None = None, tail: int = 0, **wanted: Any) -> list[str]:
    with out.capture() as captured:
        logs.show_logs(data_dir, component, logs.Filter(**wanted), tail=tail, follow=False)
    return captured.get().splitlines()


def test_components_are_merged_in_order_of_time(tmp_path: Path) -> None:
    write(tmp_path, "agents", entry(message="second", time="2026-01-01T10:00:02Z"))
    write(
        tmp_path, "controller",
        entry(message="first", time="2026-01-01T10:00:01Z"),
        entry(message="third", time="2026-01-01T10:00:03Z"),
    )  # fmt: skip
    assert [line.split()[-1] for line in shown(tmp_path)] == ["first", "second", "third"]


def test_filters(tmp_path: Path) -> None:
    write(
        tmp_path, "controller",
        entry(message="a", kind="VirtualMachine", name="web", operation="op-1"),
        entry(message="b", kind="Host", name="host-1", level="warning"),
        entry(message="c", kind="VirtualMachine", name="db", level="debug"),
    )  # fmt: skip

    def messages(**wanted: Any) -> list[str]:
        return [line.split()[4] for line in shown(tmp_path, **wanted)]

    assert messages(kind="virtualmachine") == ["a", "c"]
    assert messages(name="web") == ["a"]
    assert messages(operation="op-1") == ["a"]
    assert messages(level="warning") == ["b"]
    assert messages(kind="Host", name="web") == []


def test_a_line_says_what_it_is_about(tmp_path: Path) -> None:
    subject = {"kind": "VirtualMachine", "namespace": "default", "name": "web"}
    write(tmp_path, "controller", entry(**subject, operation="op-1", step="start"))
    (line,) = shown(tmp_path)
    assert line.split() == [
        "10:00:00.000", "INFO", "controller", "VirtualMachine/default/web", "hello",
        "operation=op-1", "step=start",
    ]  # fmt: skip


def test_what_is_no_json_is_shown_where_it_stood(tmp_path: Path) -> None:
    write(
        tmp_path, "agents",
        entry(message="before"), "Segmentation fault", "[1, 2]",
        entry(message="after", time="2026-01-01T11:00:00Z"),
    )  # fmt: skip
    assert [line.split()[-1] for line in shown(tmp_path)] == ["before", "fault", "2]", "after"]
    assert len(shown(tmp_path, level="error")) == 2


def test_tail(tmp_path: Path) -> None:
    write(tmp_path, "agents", *(entry(message=str(i)) for i in range(10)))
    assert [line.split()[-1] for line in shown(tmp_path, tail=3)] == ["7", "8", "9"]


def test_errors_name_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="kumulus up"):
        shown(tmp_path)
    write(tmp_path, "agents")
    with pytest.raises(CommandFailed, match="'api'; there are agents"):
        shown(tmp_path, "api")
    write(tmp_path, "agents", entry())
    with pytest.raises(CommandFailed, match="'loud'"):
        shown(tmp_path, level="loud")


def test_new_lines_are_read_whole_and_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("one\ntw")
    with path.open() as file:
        assert logs._new_lines(path, file) == ["one\n"]
        with path.open("a") as more:
            more.write("o\n")
        assert logs._new_lines(path, file) == ["two\n"]
        path.write_text("new\n")
        assert logs._new_lines(path, file) == ["new\n"]


def test_last_words(tmp_path: Path) -> None:
    write(tmp_path, "agents", entry(message="port 7070 is taken"))
    assert logs.last_words(Layout(tmp_path).log("agents")) == "port 7070 is taken"
    assert "it said nothing" in logs.last_words(tmp_path / "none.log")
