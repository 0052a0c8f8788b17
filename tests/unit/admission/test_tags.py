"""System tags at the door: refused with the place and the fix, but never for what was there."""

from __future__ import annotations

from typing import Any

import pytest

from controller.admission import Judge
from tests.support.lookup import Wire, request
from tests.unit.admission.test_judge import AROUND, vm

judge = Judge()
NICS = [{"name": "eth0", "l3NetworkRef": {"name": "l3"}}]


async def refused(obj: Wire, **more: Any) -> list[tuple[str, str]]:
    found = await judge(request("UPDATE" if more else "CREATE", obj, *AROUND, **more))
    return [(violation.field, violation.message) for violation in found]


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("bootmode::UEFI", "did you mean bootMode::{mode}?"),
        ("bootMode::EFI", "mode must be one of UEFI, BIOS, not 'EFI'"),
        ("staticIp::other::10.77.0.5", "no NIC is on L3 network other"),
        ("staticIp::l3::10.78.0.5", "10.78.0.5 is no host's address in 10.77.0.0/24"),
        ("staticIp::l3::10.77.0.1", "10.77.0.1 is the gateway of L3 network l3"),
    ],
)
async def test_a_wrong_tag_is_refused_at_its_place(tag: str, said: str) -> None:
    ((field, message),) = await refused(vm(nics=NICS, systemTags=["ephemeral", tag]))
    assert field == "spec.systemTags[1]" and said in message


async def test_right_tags_are_let_in() -> None:
    tags = ["staticIp::l3::10.77.0.5", "hostname::web", "bootMode::UEFI", "ephemeral"]
    assert await refused(vm(nics=NICS, systemTags=tags)) == []


async def test_an_object_can_be_changed_although_the_plugin_of_its_tag_is_gone() -> None:
    old = vm(systemTags=["gone::with::its::plugin"])
    stopped = vm(systemTags=["gone::with::its::plugin"], powerState="Stopped")
    assert await refused(stopped, old=old) == []
    more = vm(systemTags=["gone::with::its::plugin", "gone::too"])
    assert [field for field, _ in await refused(more, old=old)] == ["spec.systemTags[1]"]
