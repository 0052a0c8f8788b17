"""The commands around a deletion: names of objects, what is shown, what is brought back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from controller.cascade.preview import Node
from controller.cli.cascade import chosen, drawn, parse_key, planned, recovered, summary
from controller.cli.output import CommandFailed
from controller.keys import Key
from controller.kinds.trash import RECOVER_FROM
from controller.registry import discover
from crds import kinds
from crds.v1alpha1.trash_item import TrashItem

REGISTRY = discover([])
ZONE = {"kind": "Zone", "metadata": {"name": "z", "uid": "1"}, "spec": {}}
VM: dict[str, Any] = {
    "kind": "VirtualMachine",
    "metadata": {"name": "web", "namespace": "shop", "uid": "2"},
    "spec": {"imageRef": {"name": "i"}},
    "status": {"zoneRef": {"name": "z"}, "disks": []},
}
ROOT = {
    "kind": "Volume",
    "metadata": {
        "name": "web-root", "namespace": "shop", "uid": "3",
        "ownerReferences": [{"kind": "VirtualMachine", "name": "web", "uid": "2"}],
    },
    "spec": {"size": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "namespace", "key"),
    [
        ("zone/z", "shop", Key("Zone", "", "z")),
        ("vm/web", None, Key("VirtualMachine", "default", "web")),
        ("vm/web", "shop", Key("VirtualMachine", "shop", "web")),
        ("VirtualMachines/lab/web", "shop", Key("VirtualMachine", "lab", "web")),
        ("ps/fast", None, Key("PrimaryStorage", "", "fast")),
    ],
)
def test_an_object_is_named_as_kubectl_names_it(what: str, namespace: str | None, key: Key) -> None:
    assert parse_key(what, namespace, kinds()) == key


@pytest.mark.parametrize("what", ["web", "boat/web", "vm/", "vm/a/b/c"])
def test_what_names_nothing_is_explained(what: str) -> None:
    with pytest.raises(CommandFailed, match="is no KIND/NAME such as vm/web"):
        parse_key(what, None, kinds())


def test_a_listing_is_enough_to_plan_with() -> None:
    shown = planned(Key("Zone", "", "z"), [ZONE, VM, ROOT], REGISTRY)
    assert [str(key) for key in shown.deleted()] == [
        "Volume/shop/web-root", "VirtualMachine/shop/web", "Zone/z",
    ]  # fmt: skip
    assert summary(shown) == "3 deleted."
    assert json.loads(json.dumps(shown.plain()))["children"][0]["name"] == "web"


def test_the_trash_is_for_what_is_deleted_for_itself() -> None:
    delayed = {**VM, "spec": {**VM["spec"], "deletionPolicy": "Delay"}}
    alone = planned(Key("VirtualMachine", "shop", "web"), [ZONE, delayed, ROOT], REGISTRY)
    assert {node.effect for node in alone.walk()} == {"trash"}
    assert summary(alone) == "2 deleted, 2 of them to the trash."
    along = planned(Key("Zone", "", "z"), [ZONE, delayed, ROOT], REGISTRY)
    assert {node.effect for node in along.walk()} == {"delete"}


def test_a_refusal_is_the_summary() -> None:
    safe = {**VM, "spec": {**VM["spec"], "deletionPolicy": "Protect"}}
    shown = planned(Key("Zone", "", "z"), [ZONE, safe, ROOT], REGISTRY)
    text = "Refused because of VirtualMachine/shop/web: nothing is deleted."
    assert summary(shown) == text


def test_what_is_not_there_cannot_be_planned() -> None:
    with pytest.raises(CommandFailed, match="there is no Zone/other"):
        planned(Key("Zone", "", "other"), [ZONE], REGISTRY)


def test_the_tree_says_what_happens_to_each() -> None:
    leaf = Node(Key("VirtualMachine", "shop", "web"), "stop")
    console = Console(width=100)
    with console.capture() as printed:
        console.print(drawn(Node(Key("Host", "", "h"), "delete", (leaf,))))
    lines = printed.get().splitlines()
    assert "Host/h  is deleted" in lines[0]
    assert "VirtualMachine/shop/web  lives on, stopped" in lines[1]


def item(name: str, day: int, **meta: Any) -> TrashItem:
    kept = {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": VM["spec"]}
    subject = {"kind": "VirtualMachine", "name": "web", "uid": "2", "manifest": json.dumps(kept)}
    created = f"2026-01-0{day}T00:00:00Z"
    found = {"name": name, "namespace": "shop", "creationTimestamp": created, **meta}
    spec = {"subject": subject, "expiresAt": "2026-02-01T00:00:00Z"}
    return TrashItem.model_validate({"metadata": found, "spec": spec})


WEB = Key("VirtualMachine", "shop", "web")


def test_the_last_of_a_name_is_recovered_unless_told_otherwise() -> None:
    going = item("c", 3, deletionTimestamp="2026-01-04T00:00:00Z")
    items = [item("a", 1), item("b", 2), going]
    assert chosen(items, WEB, None).name == "b"
    assert chosen(items, WEB, "a").name == "a"
    for key, name in ((WEB, "c"), (Key("VirtualMachine", "lab", "web"), None)):
        with pytest.raises(CommandFailed, match="is not in the trash"):
            chosen(items, key, name)


def test_what_is_recovered_is_what_was_with_a_note_where_from() -> None:
    body = recovered(item("a", 1), WEB, "web-2")
    assert body["spec"] == VM["spec"] and body["kind"] == "VirtualMachine"
    assert body["metadata"] == {
        "name": "web-2", "namespace": "shop", "labels": {"a": "b"},
        "annotations": {"c": "d", RECOVER_FROM: "a"},
    }  # fmt: skip
