"""``kumulus tags``, ``kumulus tag``, search, and what the shell offers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from controller.cli import complete, tags
from controller.cli.app import app
from controller.cli.output import CommandFailed
from controller.cli.status import Wanted
from controller.cli.tags import change_tags, changed, in_use
from crds import kind_named, kinds

VM: dict[str, Any] = {
    "kind": "VirtualMachine",
    "metadata": {"name": "web-1", "namespace": "default", "resourceVersion": "7"},
    "spec": {
        "tags": [{"name": "important", "color": "red"}],
        "systemTags": ["bootMode::BIOS", "staticIp::lan::10.0.0.5"],
    },
}
ZONE = {"kind": "Zone", "metadata": {"name": "z"}, "spec": {"tags": [{"name": "important"}]}}


class FakeKube:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def get(self, path: str) -> Any:
        assert path.endswith("/namespaces/default/virtualmachines/web-1")
        return VM

    def request(self, method: str, path: str, body: Any, **_: Any) -> None:
        self.sent.append((method, path, body))


def give(*what: str, **more: Any) -> Any:
    kube = FakeKube()
    options = {"namespace": "default", "color": None, "remove": False, **more}
    change_tags(kube, "vm/web-1", what, **options)  # type: ignore[arg-type]
    return kube.sent


def test_tags_are_given() -> None:
    ((method, path, body),) = give("cheap", "ephemeral", color="green")
    assert (method, body["metadata"]) == ("PATCH", {"resourceVersion": "7"})
    assert path.endswith("/virtualmachines/web-1")
    assert body["spec"]["tags"] == [VM["spec"]["tags"][0], {"name": "cheap", "color": "green"}]
    assert body["spec"]["systemTags"] == [*VM["spec"]["systemTags"], "ephemeral"]
    assert give("important") == [], "it has it, and keeps its colour"


@pytest.mark.parametrize(
    ("tag", "left"),
    [
        ("bootMode::UEFI", ["staticIp::lan::10.0.0.5", "bootMode::UEFI"]),
        ("staticIp::lan::10.0.0.6", ["bootMode::BIOS", "staticIp::lan::10.0.0.6"]),
        ("staticIp::wan::192.0.2.1", [*VM["spec"]["systemTags"], "staticIp::wan::192.0.2.1"]),
    ],
)
def test_a_new_value_takes_the_place_of_the_old(tag: str, left: list[str]) -> None:
    assert changed(VM["spec"], [tag], color=None, remove=False)["systemTags"] == left


def test_tags_are_taken() -> None:
    new = changed(VM["spec"], ["important", "bootMode"], color=None, remove=True)
    assert new == {"tags": [], "systemTags": ["staticIp::lan::10.0.0.5"]}


@given(st.lists(st.sampled_from(["a", "b", "ephemeral", "bootMode::UEFI"]), unique=True))
def test_what_is_given_can_be_taken(given_: list[str]) -> None:
    after = changed({}, given_, color=None, remove=False)
    assert changed(after, given_, color=None, remove=False) == after
    assert changed(after, given_, color=None, remove=True) == {"tags": [], "systemTags": []}


def test_a_target_is_a_kind_and_a_name() -> None:
    for target, said in (("web-1", "KIND/NAME"), ("car/web-1", "there is no kind 'car'")):
        with pytest.raises(CommandFailed, match=said):
            change_tags(FakeKube(), target, ["x"], namespace="default", color=None, remove=False)  # type: ignore[arg-type]
    for word in ("vm", "VirtualMachine", "virtualmachines", "vms"):
        assert kind_named(word, kinds()) == "VirtualMachine"


def test_tags_in_use_are_collected() -> None:
    found = {use.text: use for use in in_use([ZONE, VM])}
    assert found["important"].objects == ["Zone/z", "VirtualMachine/web-1"]
    assert found["important"].color == "red"
    assert list(found) == ["important", "bootMode::BIOS", "staticIp::lan::10.0.0.5"]


def test_the_declared_ones_are_listed_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    shown = CliRunner().invoke(app, ["tags", "--data-dir", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    arguments = ["tags", "--kind", "image", "--json", "--data-dir", str(tmp_path)]
    found = json.loads(CliRunner().invoke(app, arguments).output)
    assert [tag["pattern"] for tag in found["systemTags"]] == ["bootMode::{mode}"]
    assert found["inUse"] == []


def test_search_by_namespace_and_tags() -> None:
    assert Wanted(tags=("imp*", "bootMode"))(VM)
    assert not Wanted(tags=("imp*", "ephemeral"))(VM)
    assert not Wanted("other", tags=("imp*",))(VM)
    assert Wanted(tags=("important",))(ZONE)


# -- completion


class Context:
    def __init__(self, **params: Any) -> None:
        self.params = params


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [{"kind": "L3Network", "metadata": {"name": name}} for name in ("lan", "wan")]

    def objects(ctx: Any, kind: str | None = None) -> list[Any]:
        return [each for each in (ZONE, VM, *networks) if kind in (None, each["kind"])]

    monkeypatch.setattr(complete, "_objects", objects)


def offered(typed: str, target: str = "vm/web-1", before: tuple[str, ...] = ()) -> list[str]:
    context = Context(target=target, tags=list(before))
    return [text for text, _ in complete.tags(context, typed)]  # type: ignore[arg-type]


@pytest.mark.usefixtures("cluster")
def test_names_then_values_are_offered() -> None:
    assert offered("bo") == ["bootMode::"]
    assert offered("bootMode::") == ["bootMode::UEFI", "bootMode::BIOS"]
    assert offered("bootMode::U") == ["bootMode::UEFI"]
    assert offered("staticIp::") == ["staticIp::lan::", "staticIp::wan::"]
    assert offered("staticIp::lan::") == [], "an address cannot be guessed"
    assert offered("imp") == ["important"]
    assert "ephemeral" in offered("") and "ephemeral" not in offered("", target="image/i")


@pytest.mark.usefixtures("cluster")
def test_bash_breaks_words_at_colons() -> None:
    assert offered("::", before=("bootMode",)) == ["UEFI", "BIOS"]
    assert offered("U", before=("bootMode", "::")) == ["UEFI"]
    assert offered("w", before=("staticIp", "::")) == ["wan::"]
    assert offered("bo", before=("important",)) == ["bootMode::"]


@pytest.mark.usefixtures("cluster")
def test_targets_are_kinds_then_names() -> None:
    def targets(typed: str) -> list[str]:
        return [text for text, _ in complete.targets(Context(), typed)]  # type: ignore[arg-type]

    assert "virtualmachine/" in targets("virt")
    assert targets("vm/") == ["vm/web-1"] and targets("l3/w") == ["l3/wan"]
    assert targets("nothing/") == []
    assert [text for text, _ in complete.kinds("l2")] == ["L2Network"]


def test_without_a_cluster_nothing_is_said(tmp_path: Path) -> None:
    context = Context(target="vm/x", data_dir=tmp_path, kubeconfig=tmp_path / "none")
    assert [text for text, _ in complete.tags(context, "bootMode::")] != []  # type: ignore[arg-type]
    assert complete.targets(context, "vm/") == []  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_itself_completes(tmp_path: Path) -> None:
    """The script that `kumulus --show-completion bash` prints, in a bash."""
    program = tmp_path / "kumulus"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m controller.cli "$@"\n')
    program.chmod(0o755)
    script = f"""
        source <(COLUMNS=200 _KUMULUS_COMPLETE=source_bash {program})
        COMP_WORDS=(kumulus tag vm/web-1 bootMode :: U); COMP_CWORD=5
        _kumulus_completion {program}; echo "${{COMPREPLY[@]}}"
        complete -p kumulus
    """
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True, text=True, timeout=120, check=True, cwd=Path(__file__).parents[3],
        env={**os.environ, "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")},
    )  # fmt: skip
    reply, registered = done.stdout.strip().splitlines()
    assert reply == "UEFI"
    assert "_kumulus_completion" in registered


def test_a_tag_is_a_system_tag_by_its_form_or_name() -> None:
    assert tags.is_system("ephemeral") and tags.is_system("any::thing")
    assert not tags.is_system("important") and not tags.is_system("a:b")
