"""Tags: what a declaration allows is read, everything else is named with its cause and fix."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds import discovered
from crds.selectors import Selector
from crds.tags import (
    SystemTag,
    Value,
    address,
    all_of,
    choice,
    collect,
    dns_label,
    matches,
    named,
    one_of,
    read_all,
    remarks,
)
from crds.v1alpha1.image import Image
from crds.v1alpha1.virtual_machine import VirtualMachine, VirtualMachineSpec

VM: dict[str, Any] = {
    "cpu": 1,
    "memory": "1Gi",
    "imageRef": {"name": "img"},
    "nics": [
        {"name": "eth0", "l3NetworkRef": {"name": "lan"}},
        {"name": "eth1", "l3NetworkRef": {"name": "lan"}, "ip": "10.0.0.9"},
        {"name": "eth2", "l3NetworkRef": {"name": "wan"}, "ip": "192.0.2.7"},
    ],
}


def vm(*tags: str, **more: Any) -> VirtualMachine:
    spec = {**copy.deepcopy(VM), **more, "systemTags": list(tags)}
    return VirtualMachine.model_validate({"spec": spec})


def wrong(*tags: str, **more: Any) -> list[str]:
    return [why for _, why in read_all("VirtualMachine", vm(*tags, **more).spec)[1]]


def test_the_built_in_tags_are_declared_with_their_patterns() -> None:
    patterns = {tag.pattern for tag in discovered().tags.values()}
    assert patterns >= {
        "staticIp::{l3Network}::{ip}", "hostname::{hostname}", "bootMode::{mode}", "ephemeral",
    }  # fmt: skip


def test_values_are_read_by_their_names() -> None:
    found = vm("staticIp::lan::10.0.0.5", "ephemeral", "bootMode::UEFI")
    assert one_of(found, "staticIp") == {"l3Network": "lan", "ip": "10.0.0.5"}
    assert all_of(found, "ephemeral") == [{}] and one_of(found, "hostname") is None
    assert remarks(found) == []
    assert wrong("staticIp::lan::10.0.0.5", "staticIp::wan::192.0.2.7") == []


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("staticIP::lan::10.0.0.5", "did you mean staticIp::{l3Network}::{ip}?"),
        ("nonsense", "VirtualMachine has: bootMode::{mode}, ephemeral"),
        ("staticIp::lan", "must have the form staticIp::{l3Network}::{ip}"),
        ("ephemeral::yes", "must have the form ephemeral"),
        ("staticIp::lan::10.0.0.256", "ip must be an IPv4 address such as 10.0.0.5"),
        ("staticIp::LAN::10.0.0.5", "l3Network must be the name of an object of kind L3Network"),
        ("staticIp::dmz::10.0.0.5", "no NIC is on L3 network dmz; add one to spec.nics"),
        ("staticIp::lan::10.0.0.9", "another NIC asks for 10.0.0.9 already"),
        ("staticIp::wan::192.0.2.8", "NIC eth2 asks for 192.0.2.7 already"),
        ("hostname::Web_1", "hostname must be a DNS label"),
        ("bootMode::uefi", "mode must be one of UEFI, BIOS, not 'uefi'"),
    ],
)
def test_what_is_wrong_is_said_with_the_fix(tag: str, said: str) -> None:
    (why,) = wrong(tag)
    assert said in why and why.startswith(f"system tag {tag}: ")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (("bootMode::UEFI", "bootMode::BIOS"), "given twice; an object has it once"),
        (("staticIp::lan::10.0.0.5", "staticIp::lan::10.0.0.6"), "given twice for lan"),
    ],
)
def test_tags_that_contradict_each_other(tags: tuple[str, ...], said: str) -> None:
    found = vm(*tags)
    held, ((place, why),) = read_all("VirtualMachine", found.spec)
    assert place == 1 and said in why
    assert len(held) == 1, "the first one holds"
    assert remarks(found) == [f"ignored: {why}"]


def test_a_tag_and_a_field_must_agree() -> None:
    assert "spec.hostname is db" in wrong("hostname::web", hostname="db")[0]
    assert wrong("hostname::web", hostname="web") == []


def test_a_tag_is_for_some_kinds() -> None:
    image = Image.model_validate(
        {"spec": {"backupStorageRef": {"name": "b"}, "url": "http://x.test/i",
                  "systemTags": ["bootMode::UEFI", "ephemeral"]}}
    )  # fmt: skip
    assert one_of(image, "bootMode") == {"mode": "UEFI"}
    ((place, why),) = read_all("Image", image.spec)[1]
    assert place == 1 and "is for VirtualMachine, not for Image" in why


def test_two_declarations_of_one_name_cannot_be() -> None:
    one, other = (SystemTag("same", text, ("VirtualMachine",)) for text in "ab")
    with pytest.raises(ValueError, match="two system tags are called same"):
        collect([(one,), (other,)])
    with pytest.raises(ValueError, match="name such as bootMode"):
        SystemTag("not a name", "", ("VirtualMachine",))


LABEL, NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", r"[a-z]([a-z0-9.-]{0,61}[a-z0-9])?"
VALUES = {
    "choice": (choice("v", "a", "b"), st.sampled_from(["a", "b"])),
    "address": (address("v"), st.ip_addresses(v=4).map(str)),
    "dns_label": (dns_label("v"), st.from_regex(LABEL, fullmatch=True)),
    "named": (named("v", "Zone"), st.from_regex(NAME, fullmatch=True)),
}  # fmt: skip


@given(data=st.data(), types=st.lists(st.sampled_from(sorted(VALUES)), max_size=3))
def test_what_is_written_by_the_pattern_is_read_back(data: st.DataObject, types: list[str]) -> None:
    declared = tuple(
        Value(f"v{i}", v.what, v.check, v.choices, v.kind)
        for i, v in enumerate(VALUES[name][0] for name in types)
    )
    tag = SystemTag("toy", "A toy.", ("VirtualMachine",), declared)
    given_ = {f"v{i}": data.draw(VALUES[name][1]) for i, name in enumerate(types)}
    text = tag.pattern
    for name, value in given_.items():
        text = text.replace(f"{{{name}}}", value)
    found, bad = read_all("VirtualMachine", vm(text).spec, {"toy": tag})
    assert not bad and found[0].values == given_


@given(st.lists(st.text(max_size=40), max_size=6))
def test_junk_is_refused_and_never_more(texts: list[str]) -> None:
    spec = VirtualMachineSpec.model_construct(**vars(vm().spec), _fields_set=None)
    spec.system_tags = texts
    found, bad = read_all("VirtualMachine", spec)
    assert len(found) + len(bad) == len(texts)


@pytest.mark.parametrize(
    ("wanted", "hit"),
    [
        ("important", True), ("Important", False), ("imp*", True), ("*", True),
        ("bootMode", True), ("bootMode::UEFI", True), ("bootMode::*", True),
        ("bootMode::BIOS", False),
        ("static?p::lan::10.0.0.*", True), ("UEFI", False),
    ],
)  # fmt: skip
def test_search(wanted: str, hit: bool) -> None:
    spec = {
        "tags": [{"name": "important", "color": "red"}, {"name": "two words"}],
        "systemTags": ["bootMode::UEFI", "staticIp::lan::10.0.0.5"],
    }
    assert matches(spec, wanted) is hit
    assert not matches({}, wanted)


def test_a_selector_says_what_is_missing() -> None:
    selector = Selector(match_labels={"rack": "a"}, match_tags=["gpu*"])
    assert selector.missing({"rack": "a"}, ["gpu-large"]) is None
    assert selector.missing({"rack": "b"}, ["gpu-large"]) == "label rack=a"
    assert selector.missing({"rack": "a"}, ["cheap"]) == "tag gpu*"
    assert Selector().missing({}, []) is None
