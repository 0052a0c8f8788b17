"""Deletion guards: who is in use, seen up the cascade; and root disks."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from controller.admission import Judge
from crds import kinds
from crds.base import BaseSpec, BaseStatus, KindInfo, Resource
from crds.refs import ObjectRef, Ref
from tests.support.lookup import Objects, Wire, request, wire


class RackSpec(BaseSpec):
    room_ref: Annotated[ObjectRef, Ref("Room", on_delete="cascade")] | None = None


class Rack(Resource):
    INFO = KindInfo("racks", "rack")
    spec: RackSpec
    status: BaseStatus = BaseStatus()


class Room(Resource):
    INFO = KindInfo("rooms", "room")
    spec: BaseSpec
    status: BaseStatus = BaseStatus()


class LeaseSpec(BaseSpec):
    rack_ref: Annotated[ObjectRef, Ref("Rack", on_delete="block")]
    room_ref: Annotated[ObjectRef, Ref("Room", on_delete="cascade")] | None = None


class Lease(Resource):
    INFO = KindInfo("leases", "lease", namespaced=True)
    spec: LeaseSpec
    status: BaseStatus = BaseStatus()


judge = Judge({"Rack": Rack, "Room": Room, "Lease": Lease})
ROOM = wire("Room", "attic", {})
RACK = wire("Rack", "r1", {"roomRef": {"name": "attic"}})


def lease(name: str, rack: str = "r1", room: str | None = None, **more: Any) -> Wire:
    spec: Wire = {"rackRef": {"name": rack}}
    if room:
        spec["roomRef"] = {"name": room}
    return wire("Lease", name, spec, namespace="shop", **more)


async def refusals(obj: Wire, *around: Wire) -> list[str]:
    found = await judge(request("DELETE", obj, *around))
    assert all(violation.field == "" for violation in found), "a deletion has no field to blame"
    return [violation.message for violation in found]


async def test_what_is_used_is_not_deleted_and_the_users_are_named() -> None:
    said = await refusals(RACK, ROOM, lease("b"), lease("a"), lease("c", rack="r2"))
    assert said == [
        "Rack r1 is in use by Lease shop/a, Lease shop/b; "
        "delete them or take the reference away first"
    ]


async def test_many_users_are_counted() -> None:
    said = await refusals(RACK, *(lease(f"l{i}") for i in range(8)))
    assert "Lease shop/l4 and 3 more;" in said[0]


async def test_the_guard_reaches_up_the_cascade() -> None:
    said = await refusals(ROOM, RACK, lease("a"))
    assert said[0].startswith("Rack r1, which goes with Room attic, is in use by Lease shop/a;")


async def test_a_user_that_goes_too_blocks_nothing() -> None:
    assert await refusals(ROOM, RACK, lease("a", room="attic")) == []
    assert await refusals(RACK, lease("a", going=True)) == []
    assert await refusals(RACK) == []


async def test_what_is_going_already_is_not_guarded() -> None:
    going = wire("Rack", "r1", {"roomRef": {"name": "attic"}}, going=True)
    assert await refusals(going, lease("a")) == []
    attic = wire("Room", "attic", {}, going=True)
    assert await refusals(RACK, attic, lease("a")) == [], "the cascade is under way"


async def test_kinds_that_nothing_blocks_cost_no_listing() -> None:
    asked = request("DELETE", lease("a"), RACK)
    assert list(await judge(asked)) == []
    assert isinstance(asked.lookup, Objects)
    assert asked.lookup.reads == 1, "its namespace; no lists"


OURS = Judge()
ROOT = wire("Volume", "web-root", {"type": "Root", "size": 1, "primaryStorageRef": {"name": "p"}},
            namespace="shop")  # fmt: skip
STORAGE = wire("PrimaryStorage", "p", {"zoneRef": {"name": "z"}, "path": "/p"})


def vm(state: str = "Running", *, root: bool = True, **more: Any) -> Wire:
    disk = {"name": "root", "volumeRef": {"name": "web-root"}, "root": root}
    status = {"state": state, "disks": [disk]} | more.pop("status", {})
    return wire("VirtualMachine", "web", {}, namespace="shop", status=status, **more)


async def test_a_root_disk_is_not_pulled_from_under_its_vm() -> None:
    found = await OURS(request("DELETE", ROOT, vm(), STORAGE))
    assert [violation.message for violation in found] == [
        "Volume shop/web-root is the root disk of VirtualMachine shop/web; "
        "delete the VM, and it goes too"
    ]
    assert await OURS(request("DELETE", ROOT, vm("Stopped")))


@pytest.mark.parametrize(
    "around",
    [
        [],
        [vm(going=True)],
        [vm("Starting")],
        [vm(root=False)],
        [vm(status={"workflow": {"name": "vm-create", "runId": "r", "phase": "RollingBack"}})],
        [vm(), wire("PrimaryStorage", "p", STORAGE["spec"], going=True)],
        [vm(), STORAGE, wire("Zone", "z", {}, going=True)],
        [vm(), {"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"}}],
    ],
)  # fmt: skip
async def test_a_root_disk_goes_with_what_it_belongs_to(around: list[Wire]) -> None:
    assert list(await OURS(request("DELETE", ROOT, *around))) == []


SAFE = {"deletionPolicy": "Protect"}


async def test_what_is_protected_is_not_deleted() -> None:
    rack = wire("Rack", "r1", {"roomRef": {"name": "attic"}, **SAFE})
    assert await refusals(rack, ROOM) == [
        "Rack r1 is protected; set its spec.deletionPolicy to Direct first"
    ]
    assert await refusals(ROOM, rack) == [
        "Rack r1, which goes with Room attic, is protected; "
        "set its spec.deletionPolicy to Direct first"
    ]
    assert await refusals(wire("Room", "cellar", {}), rack) == []


async def test_protection_holds_although_the_parent_goes() -> None:
    rack = wire("Rack", "r1", {"roomRef": {"name": "attic"}, **SAFE})
    assert await refusals(rack, wire("Room", "attic", {}, going=True))
    assert (
        await refusals({**rack, "metadata": {**rack["metadata"], "deletionTimestamp": "t"}}) == []
    )


async def test_a_vm_is_not_deleted_from_under_its_protected_disk() -> None:
    disk = {"name": "root", "volumeRef": {"name": "web-root"}, "root": True, "owned": True}
    machine = vm(status={"disks": [disk]})
    safe = wire("Volume", "web-root", {"size": 1, **SAFE}, namespace="shop")
    found = await OURS(request("DELETE", machine, safe))
    assert [violation.message for violation in found] == [
        "Volume shop/web-root, which goes with VirtualMachine shop/web, is protected; "
        "set its spec.deletionPolicy to Direct first"
    ]
    assert not await OURS(request("DELETE", machine, ROOT))


@pytest.mark.parametrize("kind", sorted(kinds()))
async def test_every_kind_can_be_protected(kind: str) -> None:
    namespace = "shop" if kinds()[kind].INFO.namespaced else ""
    obj = wire(kind, "one", dict(SAFE), namespace=namespace)
    (found,) = await OURS(request("DELETE", obj))
    assert "is protected" in found.message
    assert kinds()[kind].model_fields["spec"].annotation.model_fields["deletion_policy"]  # type: ignore[union-attr]
