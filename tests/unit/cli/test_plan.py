"""What an embedded cloud consists of."""

from __future__ import annotations

import socket
from pathlib import Path

import yaml

from controller.up import plan
from controller.up.options import Options
from tests.support.ports import free_port, free_ports


def test_the_quickstart_has_as_many_hosts_as_asked_for() -> None:
    original = plan.quickstart(None)
    names = [each["metadata"]["name"] for each in original if each["kind"] == "Host"]
    assert names == ["host-1", "host-2", "host-3"]
    for count in (1, 3, 12):
        made = plan.quickstart(count)
        hosts = [each for each in made if each["kind"] == "Host"]
        assert [each["metadata"]["name"] for each in hosts] == [
            f"host-{number}" for number in range(1, count + 1)
        ]
        assert all(each["spec"] == original[2]["spec"] for each in hosts)
        others = [each for each in made if each["kind"] != "Host"]
        assert others == [each for each in original if each["kind"] != "Host"]


def test_prepare_makes_everything_and_again_changes_nothing(tmp_path: Path) -> None:
    options = Options(tmp_path / "cloud", hosts=2)
    plan.prepare(options)
    assert (tmp_path / "cloud").stat().st_mode & 0o777 == 0o700
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert (options.layout.pki / "ca.key").stat().st_mode & 0o777 == 0o600
    written = yaml.safe_load_all((options.layout.quickstart / "quickstart.yaml").read_text())
    assert list(written) == plan.quickstart(2)
    plan.prepare(options)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_taken_port_is_named_with_its_flag_and_holder(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = Options(tmp_path, *free_ports(3))
        assert plan.taken_port(free) is None
        words = plan.taken_port(Options(tmp_path, free_port(), port, free_port()))
    assert words is not None
    assert f"port {port} is taken by pid " in words
    assert words.endswith("choose another port with --agent-port")


def test_flags_say_the_options(tmp_path: Path) -> None:
    flags = Options(tmp_path, 1, 2, 3, hosts=4, log_level="debug").flags()
    assert dict(zip(flags[::2], flags[1::2], strict=True)) == {
        "--data-dir": str(tmp_path), "--api-port": "1", "--agent-port": "2",
        "--controller-port": "3", "--hosts": "4", "--log-level": "debug", "--replicas": "1",
    }  # fmt: skip


def test_replicas_share_all_but_identity_and_port(tmp_path: Path) -> None:
    options = Options(tmp_path, 1, 2, 7071, replicas=3)
    plan.prepare(options)
    controllers = [child for child in plan.children(options) if "run" in child.command]
    assert [child.name for child in controllers] == ["controller", "controller-2", "controller-3"]
    given = [dict(zip(c.command[4::2], c.command[5::2], strict=True)) for c in controllers]
    assert [each["--controller-port"] for each in given] == ["7071", "7072", "7073"]
    assert len({each["--data-dir"] for each in given}) == 3
    assert len({each["--pki-dir"] for each in given}) == 1
    assert {each["--database"] for each in given} == {f"sqlite:///{tmp_path / 'ledger.sqlite'}"}
