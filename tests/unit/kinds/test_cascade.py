"""The cascade over the real kinds: what the preview says is what the deletion then does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.cascade.preview import Node, preview
from controller.cli.cascade import planned
from controller.keys import Key
from controller.kinds.vm_model import wanted_disks
from controller.reconcile.deletion import holds_in
from tests.unit.core.fakes import in_virtual_time
from tests.unit.kinds.world import World, cloud, running_vm, vm_spec

Manifest = tuple[str, str, dict[str, Any]]


def ref(name: str) -> dict[str, str]:
    return {"name": name}


@dataclass(frozen=True)
class Plan:
    """Manifests in order, what is deleted, and who is protected."""

    manifests: list[Manifest]
    target: tuple[str, str]
    protected: frozenset[tuple[str, str]]

    @property
    def hosts(self) -> list[str]:
        return [name for kind, name, _ in self.manifests if kind == "Host"]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """One or two zones with clusters, hosts, storage and networks; VMs and volumes across them."""
    found: list[Manifest] = [
        ("BackupStorage", "images", {"managementIp": "192.0.2.100", "path": "/images"}),
        ("Image", "img", {"backupStorageRef": ref("images"), "url": "http://x.test/a.qcow2",
                          **draw(policies)}),
        ("InstanceOffering", "small", {"cpu": 1, "memory": "1Gi"}),
    ]  # fmt: skip
    zones = ["z0", "z1"][: draw(st.integers(1, 2))]
    for zone in zones:
        found += draw(a_zone(zone))
    networks = [name for kind, name, _ in found if kind == "L3Network"]
    hosts = [name for kind, name, _ in found if kind == "Host"]
    for n in range(draw(st.integers(0, 2))):
        size = {"size": "1Gi", "hostRef": ref(draw(st.sampled_from(hosts)))}
        found.append(("Volume", f"v{n}", size | draw(policies)))
    for n in range(draw(st.integers(0, 3))):
        found.append(("VirtualMachine", f"vm{n}", draw(a_vm(networks))))
    safe = st.sets(st.sampled_from([(kind, name) for kind, name, _ in found]), max_size=1)
    protected = draw(safe) if draw(st.integers(0, 3)) == 0 else set()
    kind = draw(st.sampled_from(sorted({kind for kind, _, _ in found})))
    target = draw(st.sampled_from([(k, name) for k, name, _ in found if k == kind]))
    return Plan(found, target, frozenset(protected))


policies = st.sampled_from([{}, {}, {"deletionPolicy": "Delay"}])


@st.composite
def a_zone(draw: st.DrawFn, zone: str) -> list[Manifest]:
    found: list[Manifest] = [("Zone", zone, {})]
    clusters = [f"{zone}-c{i}" for i in range(draw(st.integers(1, 2)))]
    for cluster in clusters:
        spec = {"zoneRef": ref(zone), "hypervisorType": "Simulator"}
        found.append(("Cluster", cluster, spec))
        for i in range(draw(st.integers(1, 2))):
            address = {"clusterRef": ref(cluster), "managementIp": "192.0.2.1"}
            found.append(("Host", f"{cluster}-h{i}", address))
    some = st.lists(st.sampled_from(clusters), min_size=1, unique=True)
    attached = {"zoneRef": ref(zone), "clusterRefs": [ref(c) for c in draw(some)]}
    found.append(("PrimaryStorage", f"{zone}-ps", {**attached, "path": f"/{zone}"}))
    everywhere = {"zoneRef": ref(zone), "clusterRefs": [ref(c) for c in clusters]}
    found.append(("L2Network", f"{zone}-l2", everywhere))
    for i in range(draw(st.integers(1, 2))):
        subnet = {"l2NetworkRef": ref(f"{zone}-l2"), "cidr": f"10.{i}.0.0/24"}
        found.append(("L3Network", f"{zone}-n{i}", subnet))
    return found


@st.composite
def a_vm(draw: st.DrawFn, networks: list[str]) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(networks), max_size=2, unique=True))
    nics = [{"name": f"eth{i}", "l3NetworkRef": ref(name)} for i, name in enumerate(names)]
    disks = draw(st.lists(st.sampled_from([True, False]), max_size=2))
    data = [{"name": f"d{i}", "size": "1Gi", "deleteWithVm": own} for i, own in enumerate(disks)]
    power = draw(st.sampled_from(["Running", "Stopped"]))
    return vm_spec(nics=nics, dataDisks=data, powerState=power, **draw(policies))


def keys(world: World) -> set[Key]:
    return {k for kind in world.registry.models for k in world.store.keys(kind)}


def shown_for(world: World, key: Key) -> Node:
    """What the deletion is based on, and what the command shows from a listing, are the same."""
    plan = preview(world.store, key, holds_in(world.store, world.registry.actuators))
    listing = [{**world.objects._raw[k], "kind": k.kind} for k in sorted(keys(world))]
    assert planned(key, listing, world.registry) == plan
    return plan


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(plans())
def test_a_deletion_does_what_its_preview_says(plan: Plan) -> None:
    async def scenario() -> None:
        world = World()
        try:
            await built(world, plan)
            await deleted(world, plan)
        finally:
            await world.close()

    in_virtual_time(scenario)


async def built(world: World, plan: Plan) -> None:
    for host in (*plan.hosts, "images"):
        world.agents.add(host)
    for kind, name, spec in plan.manifests:
        await world.apply(kind, name, **spec)
    await world.settle(90)
    for kind, name in plan.protected:
        await world.change(kind, name, deletionPolicy="Protect")
    await world.settle(1)


async def deleted(world: World, plan: Plan) -> None:
    before, target = keys(world), world.key(*plan.target)
    shown = shown_for(world, target)
    kept = {n.key for n in shown.walk() if n.effect == "trash"}
    await world.delete(*plan.target)
    await world.settle(200)
    if shown.refused():
        assert keys(world) == before, "all or nothing"
        held = world.get(*plan.target).condition("Ready")
        assert held.reason == "DeletionBlocked"
        assert all(str(node.key) in held.message for node in shown.refused())
        for kind, name in plan.protected:
            await world.change(kind, name, deletionPolicy="Direct")
        await world.settle(200)
    items = {k for k in keys(world) if k.kind == "TrashItem"}
    assert before - keys(world) == set(shown.deleted())
    assert keys(world) - before == items | disks_of(world, before)
    assert {i.spec.subject.name for i in world.store.list("TrashItem")} == (
        {target.name} if kept and has_data(shown) else set()
    )
    nobody_holds(world, before - keys(world))


def disks_of(world: World, before: set[Key]) -> set[Key]:
    """Volumes that are new: a VM that no host could take may find one when a network is gone."""
    vms = [vm for vm in world.store.list("VirtualMachine") if not vm.deleting]
    disks = {disk.volume for vm in vms for disk in wanted_disks(vm)}
    return {k for k in keys(world) - before if k.kind == "Volume" and k.name in disks}


def has_data(shown: Node) -> bool:
    """Is there anything to keep? Of a VM that was never made there is not."""
    return shown.key.kind == "Image" or shown.key.kind == "Volume" or bool(shown.children)


def nobody_holds(world: World, gone: set[Key]) -> None:
    """Who lives on has let go: no status refers to what is gone."""
    for key in keys(world):
        held = [t for r, t in world.store.targets(key) if r.path[0] == "status" and t in gone]
        kept = [t for t in held if t.kind in ("VirtualMachine", "InstanceOffering", "Image")]
        assert held == kept, f"{key} still holds {held}"


ZSTACK = {
    # (what is deleted, who is looked at): what becomes of them
    ("Zone", "VirtualMachine"): "delete",
    ("Zone", "Cluster"): "delete",
    ("Zone", "Host"): "delete",
    ("Zone", "PrimaryStorage"): "delete",
    ("Zone", "L2Network"): "delete",
    ("Zone", "L3Network"): "delete",
    ("Zone", "Volume"): "delete",
    ("Zone", "BackupStorage"): None,
    ("Cluster", "VirtualMachine"): "stop",
    ("Cluster", "Host"): "delete",
    ("Cluster", "PrimaryStorage"): None,
    ("Host", "VirtualMachine"): "stop",
    ("PrimaryStorage", "VirtualMachine"): "delete",
    ("PrimaryStorage", "Volume"): "delete",
    ("L2Network", "L3Network"): "delete",
    ("L2Network", "VirtualMachine"): "detach",
    ("L3Network", "VirtualMachine"): "detach",
    ("BackupStorage", "Image"): "delete",
    ("BackupStorage", "VirtualMachine"): None,
    ("InstanceOffering", "VirtualMachine"): None,
    ("DiskOffering", "Volume"): None,
    ("Image", "VirtualMachine"): None,
    ("Image", "Volume"): None,
    ("VirtualMachine", "Volume"): "delete",
}
NAMES = {
    "Zone": "z", "Cluster": "c", "Host": "host-1", "PrimaryStorage": "ps", "L2Network": "l2",
    "L3Network": "net", "BackupStorage": "images", "InstanceOffering": "small",
    "DiskOffering": "ten", "Image": "img", "VirtualMachine": "vm", "Volume": "vm-root",
}  # fmt: skip


@pytest.mark.looptime
async def test_the_previews_are_zstack_s_tables() -> None:
    async with cloud(hosts=1) as world:
        await running_vm(world)
        await world.apply("Volume", "data", diskOfferingRef=ref("ten"), hostRef=ref("host-1"))
        await world.settle()
        for (parent, child), effect in ZSTACK.items():
            shown = shown_for(world, world.key(parent, NAMES[parent]))
            found = {n.key: n.effect for n in shown.walk()}
            assert found.get(world.key(child, NAMES[child])) == effect, (parent, child)


@pytest.mark.looptime
async def test_what_is_protected_holds_up_what_it_would_go_with() -> None:
    async with cloud() as world:
        await running_vm(world)
        await world.change("Volume", "vm-root", deletionPolicy="Protect")
        before = keys(world)
        await world.delete("VirtualMachine", "vm")
        await world.settle(60)
        assert keys(world) == before
        held = world.vm().condition("Ready")
        assert held is not None and held.reason == "DeletionBlocked"
        assert "Volume/default/vm-root" in held.message
        assert world.vm().uid in world.domains(), "it still runs"
        await world.change("Volume", "vm-root", deletionPolicy="Direct")
        await world.until(lambda: world.get("VirtualMachine", "vm") is None)
        assert world.leftovers() == []
