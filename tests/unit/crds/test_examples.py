"""The examples: every kind has one, they are good, and each folder is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.admission import Judge
from crds import kinds
from crds.refs import references, targets
from crds.schema import object_schema
from tests.support.lookup import request
from tests.support.openapi import problems

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FOLDERS = [EXAMPLES, EXAMPLES / "quickstart", EXAMPLES / "kvm"]


def objects(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.yaml"))
    return [obj for file in files for obj in yaml.safe_load_all(file.read_text())]


def test_every_kind_has_an_example_named_as_its_module() -> None:
    for kind, model in kinds().items():
        file = EXAMPLES / f"{model.__module__.rpartition('.')[2]}.yaml"
        assert [obj["kind"] for obj in yaml.safe_load_all(file.read_text())] == [kind]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_s_objects_fit_their_schemas(folder: Path) -> None:
    found = objects(folder)
    assert found
    for obj in found:
        properties = object_schema(kinds()[obj["kind"]])["properties"]
        assert list(problems(properties["spec"], obj["spec"], obj["metadata"]["name"])) == []
        assert ("namespace" in obj["metadata"]) == kinds()[obj["kind"]].INFO.namespaced


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
async def test_a_folder_s_objects_are_admitted_together(folder: Path) -> None:
    found = objects(folder)
    for obj in found:
        others = [other for other in found if other is not obj]
        assert list(await Judge()(request("CREATE", obj, *others))) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_refers_to_nothing_outside_itself(folder: Path) -> None:
    found = objects(folder)
    names = {(obj["kind"], obj["metadata"]["name"]) for obj in found}
    for obj in found:
        for reference in references(kinds()[obj["kind"]]):
            for name in targets(obj, reference):
                assert (reference.target, name) in names


def test_the_quick_start_is_what_the_tour_says() -> None:
    found = {
        (obj["kind"], obj["metadata"]["name"]): obj for obj in objects(EXAMPLES / "quickstart")
    }
    hosts = [obj["spec"] for (kind, _), obj in found.items() if kind == "Host"]
    assert len(hosts) == 3
    assert all(host["managementIp"] == "127.0.0.1" and "agentPort" not in host for host in hosts)
    assert found["Cluster", "cluster-1"]["spec"]["hypervisorType"] == "Simulator"
    assert found["VirtualMachine", "web-1"]["metadata"]["namespace"] == "default"
