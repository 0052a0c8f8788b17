"""Plugins are found, checked and loaded; one that cannot be used says why, and only it is out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from controller.errors import Transient
from controller.plugins.catalog import Catalog, load_all
from controller.plugins.interface import Insertion
from controller.plugins.served import await_kinds
from controller.plugins.weave import weave
from controller.registry import FLOWS
from controller.registry import discover as registry_of
from controller.workflow.flow import collect
from controller.workflow.loader import load
from crds import discover, own_kinds
from crds.plugins import INTERFACE, packages, refusal
from tests.support.plugins import points
from tests.unit.plugins.toys import Before

TOYS = "tests.unit.plugins.toys"
Parts = Mapping[str, Mapping[str, str]]


def catalog(*found: list[EntryPoint]) -> Catalog:
    installed = packages([point for one in found for point in one])
    return load_all(installed, discover(installed))


def toy(group: str, value: str, plugin: str = "toy") -> list[EntryPoint]:
    return points(plugin, {group: {"Mine": f"{TOYS}:{value}"}})


@pytest.fixture(scope="module")
def flows() -> Any:
    return load(FLOWS, collect(registry_of([]).modules))


def test_our_own_entry_points_are_no_plugin() -> None:
    ours = points("kumulus", {"commands": {"agent": "agents.cli:app"}}, None)
    assert packages(ours) == []
    assert [package.name for package in packages(points("b", {}) + points("a", {}))] == ["a", "b"]


@pytest.mark.parametrize(
    ("interface", "said"),
    [
        (None, "does not say for which interface"),
        ("one", "no version"),
        (f"{INTERFACE[0] + 1}.0", "written for interface"),
        (f"{INTERFACE[0]}.{INTERFACE[1] + 1}", "install versions that fit"),
        (".".join(map(str, INTERFACE)), None),
    ],
)
def test_the_interface_has_a_version_and_it_is_asked_before_anything_is_loaded(
    interface: str | None, said: str | None
) -> None:
    found = points("toy", {"kinds": {"x": "no_such_module"}}, interface)
    (package,) = packages(found)
    why = refusal(package)
    assert (why is None) if said is None else (said in str(why) and "toy" in str(why))
    (plugin,) = catalog(found).plugins
    assert (said or "no_such_module") in plugin.broken


@pytest.mark.parametrize(
    ("group", "value", "said"),
    [
        ("kinds", "NOT_CALLABLE", "neither a module nor an Actuator"),
        ("kinds", "Missing", "cannot be loaded"),
        ("steps", "backwards", "not an Insertion"),
        ("host_allocators", "NOT_CALLABLE", "no HostAllocator"),
        ("observers", "backwards", "no Observer"),
        ("observers", "Deaf", "no event no.such.event"),
        ("observers", "Unmakable", "RuntimeError: no"),
        ("crds", "NOT_CALLABLE", "no module"),
        ("misspelt", "backwards", "no entry point group kumulus.misspelt"),
    ],
)
def test_what_is_wrong_is_named_and_others_are_used(group: str, value: str, said: str) -> None:
    found = catalog(toy(group, value), toy("host_allocators", "backwards", "zz-good"))
    bad, good = found.plugins
    assert said in bad.broken and "toy" in bad.broken
    assert found.usable == [good]
    assert set(found.allocators()) == {"Mine"}


def test_a_plugin_is_used_whole_or_not_at_all() -> None:
    parts: Parts = {
        "host_allocators": {"Mine": f"{TOYS}:backwards"},
        "observers": {"bad": f"{TOYS}:Deaf"},
    }
    found = catalog(points("toy", parts))
    assert found.usable == [] and found.allocators() == {}


def test_two_allocators_with_one_name_cannot_be() -> None:
    found = catalog(
        toy("host_allocators", "backwards", "a"), toy("host_allocators", "backwards", "b")
    )
    first, second = found.plugins
    assert not first.broken and "plugin a has an allocator Mine already" in second.broken


def test_an_actuator_too_many_breaks_its_plugin_and_not_ours() -> None:
    found = catalog(toy("kinds", "SecondZone"))
    registry = registry_of(found.plugins)
    assert "Zone has two actuators" in found.plugins[0].broken
    assert set(registry.actuators) == set(own_kinds())
    assert type(registry.actuators["Zone"]).__module__ == "controller.kinds.zone"


# -- steps


def test_a_step_comes_before_the_one_it_names_in_every_flow_that_has_it(flows: Any) -> None:
    found = catalog(toy("steps", "BEFORE"))
    woven = found.woven(flows)
    for name in ("vm-create", "vm-start", "vm-launch"):
        names = [step.name for step in woven[name].steps]
        assert names.index("before-start") == names.index("start") - 1
        assert [step for step in names if step != "before-start"] == [
            step.name for step in flows[name].steps
        ]
    assert woven["vm-stop"] is flows["vm-stop"]


def test_a_step_comes_after_another_in_one_flow_alone(flows: Any) -> None:
    woven = catalog(toy("steps", "AFTER_ALLOCATION")).woven(flows)
    names = [step.name for step in woven["vm-create"].steps]
    assert names[names.index("allocate-host") + 1] == "before-start"
    assert woven["vm-start"] is flows["vm-start"]


@pytest.mark.parametrize(
    ("value", "said"), [("NOWHERE", "no such step"), ("DOUBLE", "has a step 'start' already")]
)
def test_a_step_that_belongs_nowhere_breaks_its_plugin(flows: Any, value: str, said: str) -> None:
    found = catalog(toy("steps", value))
    assert found.woven(flows) == flows
    assert said in found.plugins[0].broken


FLOWS_WITH_CONDITIONS = {
    "toy": "- allocate-host\n- {flow: inner, when: self.spec.powerState == 'Running'}",
    "inner": "- prepare-network\n- start",
}


@pytest.mark.parametrize("place", [{"before": "prepare-network"}, {"after": "start"}])
def test_a_step_shares_the_condition_of_its_neighbour(place: Any, tmp_path: Path) -> None:
    for name, steps in FLOWS_WITH_CONDITIONS.items():
        text = f"name: {name}\nkind: VirtualMachine\nsteps:\n{steps}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    declared = load(tmp_path, collect(registry_of([]).modules))
    insertion = Insertion("VirtualMachine", Before, **place)
    woven = weave(declared, insertion, lambda one: one.step())["toy"]
    names = [step.name for step in woven.steps]
    inserted = woven.steps[names.index("before-start")]
    assert inserted.guards[0].covers == tuple(names[1:])
    assert {step.guards for step in woven.steps[1:]} == {inserted.guards}


def test_an_insertion_has_one_place() -> None:
    for places in ({}, {"before": "a", "after": "b"}):
        with pytest.raises(ValueError, match="one of before and after"):
            Insertion("VirtualMachine", Before, **places)  # type: ignore[arg-type]


# -- kinds

KIND = """
from typing import Annotated
from crds.base import BaseSpec, BaseStatus, KindInfo, Resource
from crds.refs import ObjectRef, Ref
from crds.tags import SystemTag

TAGS = (SystemTag({tag!r}, "A tag.", ("VirtualMachine",)),)

class {kind}Spec(BaseSpec):
    zone_ref: Annotated[ObjectRef, Ref({target!r}, on_delete="cascade")]

class {kind}(Resource):
    INFO = KindInfo(plural={plural!r}, singular={plural!r})
    spec: {kind}Spec
    status: BaseStatus = BaseStatus()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a module with a kind; returns the entry points of the plugin that brings it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def make(kind: str, *, plural: str = "", target: str = "Zone", tag: str = "toy") -> Any:
        name = f"toy_{kind.lower()}_{tmp_path.name}".replace("-", "_")
        text = KIND.format(kind=kind, plural=plural or f"{kind.lower()}s", target=target, tag=tag)
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)
        return points("toy", {"crds": {"toy": name}})

    yield make
    for name in made:
        sys.modules.pop(name, None)


def test_a_plugin_brings_a_kind_and_a_tag(module: Any) -> None:
    installed = packages(module("Wheel"))
    found = discover(installed)
    assert found.brought == {"toy": ("Wheel",)} and not found.broken
    assert "toy" in found.tags and "staticIp" in found.tags
    registry = registry_of(load_all(installed, found).plugins)
    assert "Wheel" in registry.models and "Wheel" in registry.graph.children("Zone")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "Spoke", "target": "Nowhere"}, "Nowhere"),
        ({"kind": "Hub", "plural": "zones"}, "Zone"),
        ({"kind": "Tyre", "tag": "staticIp"}, "two system tags are called staticIp"),
    ],
)
def test_a_kind_that_does_not_fit_is_left_out(module: Any, wrong: Any, said: str) -> None:
    installed = packages(module(wrong.pop("kind"), **wrong))
    found = discover(installed)
    assert found.kinds == own_kinds() and said in found.broken["toy"]
    (plugin,) = load_all(installed, found).plugins
    assert said in plugin.broken


def test_objects_of_a_kind_whose_actuator_is_broken_are_looked_after(module: Any) -> None:
    parts = [*module("Axle"), *points("toy", {"kinds": {"x": "no_such_module"}}, None)]
    installed = packages(parts)
    (plugin,) = load_all(installed, discover(installed)).plugins
    registry = registry_of([plugin])
    assert "no_such_module" in plugin.broken
    assert "no_such_module" in registry.actuators["Axle"].why  # type: ignore[attr-defined]


class _Api:
    def __init__(self, *plurals: str, silent: int = 0) -> None:
        self.plurals, self.silent = set(plurals), silent

    async def served(self, group: str, version: str) -> set[str]:
        self.silent -= 1
        if self.silent >= 0:
            raise Transient("nobody answers")
        return self.plurals


@pytest.mark.looptime
async def test_a_kind_that_the_api_server_does_not_have_holds_up_nobody(module: Any) -> None:
    installed = packages(module("Brake"))
    found = load_all(installed, discover(installed))
    await await_kinds(found, _Api("zones"))
    assert "kumulus plugins --crds" in found.plugins[0].broken
    assert "Brake" not in registry_of(found.plugins).models

    again = load_all(installed, discover(installed))
    await await_kinds(again, _Api("zones", "brakes", silent=500))  # minutes: no fault of theirs
    assert again.usable and "Brake" in registry_of(again.plugins).models
