"""The tree of what contains what."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from controller.cli.status import kinds_in_order
from controller.cli.tree import forest, parents
from controller.up.view import row


def thing(kind: str, name: str, namespace: str = "", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    metadata |= parts.pop("metadata", {})
    return {"kind": kind, "metadata": metadata, **parts}


ZONE = thing("Zone", "z")
CLUSTER = thing("Cluster", "c", spec={"zoneRef": {"name": "z"}})
HOST = thing("Host", "h", spec={"clusterRef": {"name": "c"}})
STORAGE = thing("PrimaryStorage", "ps", spec={"zoneRef": {"name": "z"}})
BACKUP = thing("BackupStorage", "bs", spec={"zoneRefs": [{"name": "z"}]})
IMAGE = thing("Image", "i", spec={"backupStorageRef": {"name": "bs"}})
VM = thing(
    "VirtualMachine", "vm", "default",
    spec={}, status={"zoneRef": {"name": "z"}, "primaryStorageRef": {"name": "ps"}},
)  # fmt: skip
OWNER = {"kind": "VirtualMachine", "name": "vm", "uid": "1"}
ROOT = thing(
    "Volume", "vm-root", "default",
    spec={"primaryStorageRef": {"name": "ps"}}, metadata={"ownerReferences": [OWNER]},
)  # fmt: skip
EVERYTHING = [ZONE, CLUSTER, HOST, STORAGE, BACKUP, IMAGE, VM, ROOT]


def place(kind: str, name: str, namespace: str = "") -> Any:
    return parents(EVERYTHING)[kind, namespace, name]


def test_an_object_hangs_below_what_it_is_deleted_with() -> None:
    assert place("Host", "h") == ("Cluster", "", "c")
    assert place("Cluster", "c") == ("Zone", "", "z")
    assert place("Image", "i") == ("BackupStorage", "", "bs")


def test_of_several_it_hangs_below_the_nearest() -> None:
    assert place("VirtualMachine", "vm", "default") == ("PrimaryStorage", "", "ps")
    assert place("Volume", "vm-root", "default") == ("VirtualMachine", "default", "vm")


def test_what_outlives_everything_is_a_root() -> None:
    assert place("BackupStorage", "bs") is None
    assert place("Zone", "z") is None


def test_a_missing_parent_makes_a_root() -> None:
    assert parents([HOST])["Host", "", "h"] is None


def test_cycles_do_not_hang() -> None:
    owners = {"a": "b", "b": "a"}
    objects = [
        thing("Volume", name, "default", spec={}, metadata={
            "ownerReferences": [{"kind": "Volume", "name": owner, "uid": "1"}]
        })
        for name, owner in owners.items()
    ]  # fmt: skip
    assert len(parents(objects)) == 2


def test_drawn() -> None:
    rows = {each.key: each for each in map(row, EVERYTHING)}
    console = Console(width=60, record=True, file=None, quiet=False)
    with console.capture() as captured:
        for branch in forest(rows, parents(EVERYTHING)):
            console.print(branch)
    lines = captured.get().splitlines()
    assert lines[0].startswith("Zone/z ")
    machine = next(i for i, line in enumerate(lines) if "VirtualMachine/default/vm " in line)
    assert lines[machine + 1].lstrip("│ ").startswith("└── Volume/default/vm-root ")
    assert len(lines) == len(EVERYTHING)


def test_containers_come_before_what_they_contain() -> None:
    order = kinds_in_order()
    for above, below in (("Zone", "Cluster"), ("Cluster", "Host"), ("L2Network", "L3Network"),
                         ("Image", "VirtualMachine")):  # fmt: skip
        assert order.index(above) < order.index(below)
