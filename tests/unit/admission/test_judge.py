"""What is let in and what is not, by comparison with the objects around."""

from __future__ import annotations

from typing import Any

import pytest

from controller.admission import Judge
from tests.support.lookup import Objects, Wire, request, wire

judge = Judge()
ZONE = wire("Zone", "z1", {})
CLUSTER = wire("Cluster", "c1", {"zoneRef": {"name": "z1"}, "architecture": "x86_64"})
HOST = wire("Host", "h1", {"clusterRef": {"name": "c1"}, "managementIp": "192.0.2.1"})
IMAGE = wire("Image", "i1", {"backupStorageRef": {"name": "b"}, "url": "http://x/y",
                             "architecture": "x86_64"}, status={"virtualSize": 2**31})  # fmt: skip
L3 = wire("L3Network", "l3", {"l2NetworkRef": {"name": "l2"}, "cidr": "10.77.0.0/24",
                              "gateway": "10.77.0.1"})  # fmt: skip
ROOT = wire("Volume", "other-root", {"type": "Root", "size": 1}, namespace="default")
AROUND = (ZONE, CLUSTER, HOST, IMAGE, L3, ROOT)


def vm(**spec: Any) -> Wire:
    base = {"imageRef": {"name": "i1"}, "cpu": 1, "memory": "1Gi"}
    return wire("VirtualMachine", "web", base | spec, namespace="default")


def nic(ip: str, network: str = "l3") -> dict[str, Any]:
    return {"name": "eth0", "l3NetworkRef": {"name": network}, "ip": ip}


def place(**refs: str) -> Wire:
    return vm(placement={f"{kind}Ref": {"name": name} for kind, name in refs.items()})


async def fields(*args: Any, **more: Any) -> list[str]:
    return [found.field for found in await judge(request(*args, **more))]


@pytest.mark.parametrize(
    ("obj", "field", "message"),
    [
        (vm(nics=[nic("10.78.0.5")]), "spec.nics[0].ip",
         "10.78.0.5 is no host's address in 10.77.0.0/24 of L3 network l3"),
        (vm(nics=[nic("10.77.0.255")]), "spec.nics[0].ip",
         "10.77.0.255 is no host's address in 10.77.0.0/24 of L3 network l3"),
        (vm(nics=[nic("10.77.0.1")]), "spec.nics[0].ip",
         "10.77.0.1 is the gateway of L3 network l3"),
        (vm(rootDisk={"size": "1Gi"}), "spec.rootDisk.size", "the image needs 2Gi, more than 1Gi"),
        (vm(dataDisks=[{"name": "d", "volumeRef": {"name": "other-root"}}]),
         "spec.dataDisks[0].volumeRef", "volume other-root is a VM's root disk, not a data disk"),
        (place(host="h1", cluster="c2"), "spec.placement.hostRef",
         "host h1 is in cluster c1, not in c2"),
        (place(host="h1", zone="z2"), "spec.placement.hostRef",
         "cluster c1 is in zone z1, not in z2"),
        (place(cluster="c1", zone="z2"), "spec.placement.clusterRef",
         "cluster c1 is in zone z1, not in z2"),
        (wire("L2Network", "n", {"zoneRef": {"name": "z2"}, "clusterRefs": [{"name": "c1"}]}),
         "spec.clusterRefs[0]", "cluster c1 is in zone z1, not in z2"),
        (wire("PrimaryStorage", "p", {"zoneRef": {"name": "z2"}, "path": "/p",
                                      "clusterRefs": [{"name": "gone"}, {"name": "c1"}]}),
         "spec.clusterRefs[1]", "cluster c1 is in zone z1, not in z2"),
        (wire("L3Network", "new", {"l2NetworkRef": {"name": "l2"}, "cidr": "10.77.0.128/25"}),
         "spec.cidr", "10.77.0.128/25 overlaps 10.77.0.0/24 of L3 network l3 on the same L2 "
                      "network"),
    ],
)  # fmt: skip
async def test_what_cannot_work_is_refused(obj: Wire, field: str, message: str) -> None:
    found = await judge(request("CREATE", obj, *AROUND))
    assert [(v.field, v.message) for v in found] == [(field, message)]
    assert list(await judge(request("CREATE", obj))) == [], "nothing around: it may all come yet"


@pytest.mark.parametrize(
    "obj",
    [
        vm(nics=[nic("10.77.0.9"), {**nic("10.78.0.9", "absent"), "name": "eth1"}]),
        vm(rootDisk={"size": "2Gi"}),
        place(host="h1", cluster="c1", zone="z1"),
        place(host="absent", zone="z1"),
        wire("L3Network", "new", {"l2NetworkRef": {"name": "l2"}, "cidr": "10.77.1.0/24"}),
        wire("L3Network", "new", {"l2NetworkRef": {"name": "l2b"}, "cidr": "10.77.0.0/24"}),
        wire("L2Network", "n", {"zoneRef": {"name": "z1"}, "clusterRefs": [{"name": "c1"}]}),
    ],
)
async def test_what_can_work_is_let_in(obj: Wire) -> None:
    assert list(await judge(request("CREATE", obj, *AROUND))) == []


async def test_an_image_that_does_not_boot_or_fit() -> None:
    data = wire("Image", "i1", IMAGE["spec"] | {"mediaType": "DataVolumeTemplate"})
    arm = wire("Image", "i1", IMAGE["spec"] | {"architecture": "aarch64"})
    assert await fields("CREATE", vm(), data) == ["spec.imageRef"]
    assert await fields("CREATE", place(cluster="c1"), arm, CLUSTER) == ["spec.imageRef"]
    assert await fields("CREATE", vm(), arm, CLUSTER) == []


async def test_one_default_zone() -> None:
    default = wire("Zone", "z1", {"default": True})
    second = wire("Zone", "z2", {"default": True})
    found = await judge(request("CREATE", second, default))
    assert [v.field for v in found] == ["spec.default"]
    assert "zone z1 is the default already" in found[0].message
    assert await fields("CREATE", wire("Zone", "z2", {"default": False}), default) == []
    going = wire("Zone", "z1", {"default": True}, going=True)
    assert await fields("CREATE", second, going) == []
    changed = wire("Zone", "z1", {"default": True, "state": "Disabled"})
    assert await fields("UPDATE", changed, old=default) == [], "it is itself the default"
    assert await fields("UPDATE", second, default, old=wire("Zone", "z2", {})) == ["spec.default"]


async def test_an_update_is_refused_only_for_what_it_makes_wrong() -> None:
    stranded = vm(nics=[nic("10.78.0.5")])
    stopped = vm(nics=[nic("10.78.0.5")], powerState="Stopped")
    worse = vm(nics=[nic("10.79.0.5")])
    assert await fields("UPDATE", stopped, L3, old=stranded) == []
    assert await fields("UPDATE", worse, L3, old=stranded) == ["spec.nics[0].ip"]


async def test_labels_and_finalizers_of_an_invalid_object_can_change() -> None:
    bad = vm(cpu="many")
    labelled = {**bad, "metadata": {**bad["metadata"], "labels": {"a": "b"}}}
    assert await fields("UPDATE", labelled, old=bad) == []
    assert await fields("UPDATE", vm(cpu="more"), old=bad) == ["spec.cpu"]
    going = wire("VirtualMachine", "web", {}, namespace="default", going=True)
    assert await fields("UPDATE", going, old=bad) == []


@pytest.mark.parametrize(
    "other",
    [{"group": ""}, {"kind": "Unknown"}, {"subresource": "status"}, {"group": "example.org"}],
)
async def test_what_is_not_ours_is_not_judged(other: dict[str, str]) -> None:
    assert list(await judge(request("CREATE", vm(cpu="many"), **other))) == []


async def test_names_have_a_limit() -> None:
    long = wire("Zone", "z" * 64, {})
    found = await judge(request("CREATE", long))
    assert [(v.field, v.message) for v in found] == [
        ("metadata.name", "may not be longer than 63 characters")
    ]
    assert await fields("CREATE", wire("Zone", "z" * 63, {})) == []
    changed = wire("Zone", "z" * 64, {"state": "Disabled"})
    assert await fields("UPDATE", changed, old=long) == [], "it has its name already"


async def test_a_spec_that_cannot_be_parsed_reads_nothing() -> None:
    asked = request("CREATE", vm(cpu="many"), *AROUND)
    await judge(asked)
    assert isinstance(asked.lookup, Objects)
    assert asked.lookup.reads == 0
