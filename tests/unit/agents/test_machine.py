"""The pretended hypervisor refuses what a real one would, and every action may come twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.drivers.base import DriverError
from agents.drivers.simulated.depot import Depot
from agents.drivers.simulated.machine import Capacity, Machine
from agents.drivers.simulated.usage import memory_of
from agents.drivers.simulator import _actions
from agents.wire import (
    ACTIONS,
    CachePruneArgs,
    Disk,
    ImageAddArgs,
    ImageRemoveArgs,
    ImageSource,
    Lease,
    NetworkArgs,
    NetworkReleaseArgs,
    NicDevice,
    StorageRemoveArgs,
    VmArgs,
    VolumeCreateArgs,
    VolumeDeleteArgs,
)

GIB = 2**30
IMAGE = ImageSource(uid="img", store="s", address="a", port=1, file="img.qcow2", format="qcow2",
                    checksum="sha256:0", virtual_size=GIB)  # fmt: skip


def nic(n: int, bridge: str = "br0", mac: str | None = None) -> NicDevice:
    return NicDevice(mac=mac or f"fa:00:00:00:00:{n:02x}", bridge=bridge, device=f"tap{n}")


def disk(volume: str, device: str = "vda") -> Disk:
    return Disk(volume=volume, path=f"/ks/volumes/{volume}.qcow2", device=device)


def vm(*disks: Disk, nics: tuple[NicDevice, ...] = (), **changes: Any) -> VmArgs:
    fields: dict[str, Any] = {"name": "web", "namespace": "default", "cpu": 1, "memory": GIB}
    return VmArgs(**{**fields, "disks": list(disks), "nics": list(nics), **changes})


def network(lease: tuple[str, str] | None = None, **changes: Any) -> NetworkArgs:
    fields: dict[str, Any] = {"bridge_id": "l2", "bridge": "br0", "cidr": "10.0.0.0/24",
                              "dhcp_server": "10.0.0.2"}  # fmt: skip
    given = Lease(mac=lease[0], ip=lease[1]) if lease else None
    return NetworkArgs(**{**fields, "lease": given, **changes})


def machine(**capacity: Any) -> Machine:
    """With storage, a bridge and volumes v0 to v9."""
    made = Machine(Capacity(**capacity))
    made.make_storage("/ks")
    made.network_ensure("l3", network())
    for n in range(10):
        made.volume_create(f"v{n}", VolumeCreateArgs(path="/ks", size=GIB))
    return made


def fails(code: str, work: Any, *args: Any) -> str:
    with pytest.raises(DriverError) as error:
        work(*args)
    assert error.value.code == code, error.value.message
    return error.value.message


def test_a_guest_runs_pauses_and_is_gone() -> None:
    m = machine()
    assert m.vm_start("a", vm(disk("v0"), nics=(nic(1),))).state == "Running"
    assert m.vm_pause("a").state == m.vm_pause("a").state == "Paused"
    assert m.vm_start("a", vm(disk("v0"))).state == "Paused"  # left as it is
    fails("conflict", m.vm_reboot, "a")
    assert m.vm_resume("a").state == "Running"
    assert m.vm_reboot("a").state == "Running"
    assert m.power() == {"a": "Running"}
    assert m.inventory().taps == ["tap1"]
    assert m.vm_remove("a").state == m.vm_remove("a").state == "Stopped"
    assert m.power() == {} and m.inventory().taps == []
    assert len(m.inventory().volumes) == 10


def test_created_paused() -> None:
    assert machine().vm_start("a", vm(disk("v0"), paused=True)).state == "Paused"


def test_a_guest_needs_what_it_is_made_of() -> None:
    m = machine()
    assert "/ks/volumes/none" in fails("not-found", m.vm_start, "a", vm(disk("none")))
    wrong = disk("v0").model_copy(update={"path": "/elsewhere"})
    fails("not-found", m.vm_start, "a", vm(wrong))
    assert "br9" in fails("not-found", m.vm_start, "a", vm(disk("v0"), nics=(nic(1, "br9"),)))
    fails("invalid", m.vm_start, "a", vm())
    for work in (m.vm_reboot, m.vm_pause, m.vm_resume):
        fails("not-found", work, "a")
    assert m.power() == {}


def test_what_is_taken_cannot_be_taken_again() -> None:
    m = machine()
    m.vm_start("a", vm(disk("v0"), nics=(nic(1),)))
    assert "VM a" in fails("conflict", m.vm_start, "b", vm(disk("v0")))
    mac = nic(2, mac=nic(1).mac)
    assert "VM a" in fails("conflict", m.vm_start, "b", vm(disk("v1"), nics=(mac,)))
    tap = nic(1, mac="fa:00:00:00:00:99")
    fails("conflict", m.vm_start, "b", vm(disk("v1"), nics=(tap,)))
    fails("conflict", m.volume_delete, "v0", VolumeDeleteArgs(path="/ks"))
    m.network_ensure("other", network(bridge="br1", bridge_id="l2b", cidr="10.1.0.0/24"))
    assert m.vm_start("b", vm(disk("v1"), nics=(nic(3, "br1", nic(1).mac),))).state == "Running"


def test_memory_runs_out() -> None:
    m = machine(memory=4 * GIB)
    for n in range(4):
        m.vm_start(f"a{n}", vm(disk(f"v{n}")))
    assert "another host" in fails("hypervisor", m.vm_start, "a4", vm(disk("v4")))
    m.vm_remove("a0")
    m.vm_start("a4", vm(disk("v4")))
    assert machine(memory=GIB, memory_overcommit=3).vm_start("a", vm(disk("v0"), memory=3 * GIB))


def test_a_restarted_machine_has_its_guests_defined_and_off() -> None:
    m = machine()
    m.vm_start("a", vm(disk("v0")))
    m.boot("next")
    assert m.power() == {"a": "Stopped"}
    fails("conflict", m.vm_pause, "a")
    assert m.vm_start("a", vm(disk("v0"))).state == "Running"
    m.crash("a")
    assert m.power() == {"a": "Crashed"}
    fails("not-found", m.crash, "b")


def test_disks_and_nics_are_plugged() -> None:
    m = machine()
    m.vm_start("a", vm(disk("v0"), nics=(nic(1),)))
    m.vm_start("b", vm(disk("v2")))
    for _ in range(2):
        m.vm_attach_disk("a", disk("v1", "vdb"))
        m.vm_attach_nic("a", nic(2))
    fails("conflict", m.vm_attach_disk, "a", disk("v3", "vdb"))
    fails("conflict", m.vm_attach_disk, "a", disk("v2", "vdc"))
    fails("not-found", m.vm_attach_disk, "a", disk("none", "vdc"))
    fails("conflict", m.vm_attach_nic, "b", nic(9, mac=nic(2).mac))
    fails("conflict", m.volume_delete, "v1", VolumeDeleteArgs(path="/ks"))
    for _ in range(2):
        m.vm_detach_disk("a", disk("v1", "vdb"))
        m.vm_detach_nic("a", nic(2))
    m.volume_delete("v1", VolumeDeleteArgs(path="/ks"))
    fails("conflict", m.vm_detach_disk, "a", disk("v0"))
    assert m.inventory().taps == ["tap1"]


def test_volumes() -> None:
    m = Machine(Capacity(disk=GIB, image=(GIB, 600 * 2**20)))
    args = VolumeCreateArgs(path="/ks", size=GIB, image=IMAGE)
    assert "storage.ensure" in fails("not-found", m.volume_create, "v", args)
    m.make_storage("/ks")
    small = args.model_copy(update={"size": GIB - 1})
    fails("invalid", m.volume_create, "v", small)
    made = m.volume_create("v", args)
    assert m.volume_create("v", small) == made  # what exists is returned
    assert m.inventory().images == ["img"] and m.available() < 500 * 2**20
    other = IMAGE.model_copy(update={"uid": "img2"})
    message = fails("no-space", m.volume_create, "w", args.model_copy(update={"image": other}))
    assert "free some" in message and m.inventory().volumes == ["v"]
    m.image_prune("img", CachePruneArgs(path="/ks"))
    assert m.inventory().images == ["img"]  # a volume is over it
    m.volume_delete("v", VolumeDeleteArgs(path="/ks"))
    m.volume_delete("v", VolumeDeleteArgs(path="/ks"))
    m.image_prune("img", CachePruneArgs(path="/ks"))
    assert m.inventory().images == [] and m.available() == GIB
    m.volume_create("v", args)
    m.storage_remove("ps", StorageRemoveArgs(path="/ks"))
    assert m.inventory().images == ["img"] and m.inventory().volumes == ["v"]
    m.volume_delete("v", VolumeDeleteArgs(path="/ks"))
    for _ in range(2):
        m.storage_remove("ps", StorageRemoveArgs(path="/ks"))
        assert m.inventory().images == []
    fails("not-found", m.volume_create, "v", args)
    fails("invalid", m.storage_remove, "ps", StorageRemoveArgs(path="/ks/.."))
    fails("invalid", m.make_storage, "/ks/../etc")


def test_networks() -> None:
    m = Machine(Capacity())
    m.network_ensure("l3", network(("m1", "10.0.0.10")))
    m.network_ensure("l3", network(("m2", "10.0.0.11")))
    m.network_ensure("l3", network(("m2", "10.0.0.11")))
    assert m.inventory().dhcp == ["l3/m1", "l3/m2"]
    assert "m1" in fails("conflict", m.network_ensure, "l3", network(("m3", "10.0.0.10")))
    fails("invalid", m.network_ensure, "l3", network(("m3", "10.9.0.1")))
    fails("invalid", m.network_ensure, "l3", network(("m3", "nonsense")))
    fails("invalid", m.network_ensure, "l3", network(cidr="10.0.0.1/24"))
    fails("conflict", m.network_ensure, "l3b", network(bridge_id="another"))
    release = NetworkReleaseArgs(bridge_id="l2", bridge="br0", mac="m1")
    m.network_release("l3", release)
    m.network_release("l3", release)
    assert m.inventory().dhcp == ["l3/m2"] and m.inventory().bridges == ["br0"]
    m.network_release("l3", release.model_copy(update={"mac": "m2"}))
    assert m.inventory().dhcp == [] and m.inventory().bridges == []


def test_a_bridge_stays_while_it_is_used() -> None:
    m = machine()
    m.network_ensure("second", network(cidr="10.1.0.0/24"))
    m.vm_start("a", vm(disk("v0"), nics=(nic(1),)))
    everything = NetworkReleaseArgs(bridge_id="l2", bridge="br0")
    m.network_release("l3", everything)
    m.network_release("second", everything)
    assert m.inventory().bridges == ["br0"]
    m.vm_remove("a")
    m.network_release("second", everything)
    assert m.inventory().bridges == []


def test_a_store() -> None:
    m = Machine(Capacity(disk=GIB, image=(2 * GIB, 600 * 2**20)))
    depot = Depot(m)
    args = ImageAddArgs(path="/bs", url="https://images.example/debian.qcow2", format="qcow2")
    fails("not-found", depot.add, "i", args)
    assert depot.ensure("/bs").total == GIB
    added = depot.add("i", args)
    assert (added.file, added.virtual_size) == ("i.qcow2", 2 * GIB)
    assert depot.add("i", args) == added and len(added.checksum) == 71
    promised = args.model_copy(update={"checksum": "sha256:" + "1" * 64})
    fails("no-space", depot.add, "j", promised)
    depot.remove("i", ImageRemoveArgs(path="/bs"))
    depot.remove("i", ImageRemoveArgs(path="/bs"))
    assert depot.add("j", promised).checksum == promised.checksum
    nowhere = args.model_copy(update={"url": "https://nowhere.invalid/x"})
    assert "nowhere.invalid" in fails("unreachable", depot.add, "k", nowhere)


def test_every_action_is_done() -> None:
    assert set(_actions(Machine(Capacity()))._handlers) == set(ACTIONS)


volumes = st.sampled_from([f"v{n}" for n in range(4)])
uids = st.sampled_from(["a", "b", "c"])
nics = st.builds(nic, st.integers(1, 3), st.sampled_from(["br0", "br1"]))
calls = st.one_of(
    st.tuples(st.just("vm_start"), uids,
              st.builds(lambda d, n: vm(disk(d), nics=tuple(n)), volumes,
                        st.lists(nics, max_size=2))),
    st.tuples(st.sampled_from(["vm_pause", "vm_resume", "vm_reboot", "vm_remove", "crash"]), uids),
    st.tuples(st.just("boot"), st.just("boot-2")),
    st.tuples(st.sampled_from(["vm_attach_disk", "vm_detach_disk"]), uids,
              st.builds(disk, volumes, st.sampled_from(["vda", "vdb"]))),
    st.tuples(st.sampled_from(["vm_attach_nic", "vm_detach_nic"]), uids, nics),
    st.tuples(st.just("volume_create"), volumes,
              st.builds(VolumeCreateArgs, path=st.just("/ks"), size=st.just(GIB),
                        image=st.sampled_from([None, IMAGE]))),
    st.tuples(st.just("volume_delete"), volumes, st.just(VolumeDeleteArgs(path="/ks"))),
    st.tuples(st.just("image_prune"), st.just("img"), st.just(CachePruneArgs(path="/ks"))),
    st.tuples(st.just("storage_remove"), st.just("ps"), st.just(StorageRemoveArgs(path="/ks"))),
    st.tuples(st.just("network_ensure"), st.sampled_from(["l3", "l3b"]),
              st.builds(lambda n, b: network((f"m{n}", f"10.0.0.{n}"), bridge=b, bridge_id=b),
                        st.integers(1, 3), st.sampled_from(["br0", "br1"]))),
    st.tuples(st.just("network_release"), st.sampled_from(["l3", "l3b"]),
              st.builds(lambda n, b: NetworkReleaseArgs(bridge_id=b, bridge=b, mac=f"m{n}"),
                        st.integers(1, 3), st.sampled_from(["br0", "br1"]))),
)  # fmt: skip


def attempt(m: Machine, call: tuple[Any, ...]) -> Any:
    try:
        return getattr(m, call[0])(*call[1:])
    except DriverError as error:
        return error.code


def state(m: Machine) -> dict[str, dict[str, object]]:
    return {shelf.kind: dict(shelf.items()) for shelf in m._shelves()}


@given(st.lists(calls, max_size=40))
@settings(max_examples=200, deadline=None)
def test_twice_is_once_and_what_is_saved_is_all(sequence: list[tuple[Any, ...]]) -> None:
    m = machine()
    m.network_ensure("l3b", network(bridge="br1", bridge_id="br1"))
    saved = {(kind, key): record for kind, key, record in m.changes()}
    for call in sequence:
        before = state(m)
        outcome = attempt(m, call)
        after = state(m)
        if isinstance(outcome, str):
            assert after == before, "a refused action changed something"
        assert attempt(m, call) == outcome
        assert state(m) == after
        saved |= {(kind, key): record for kind, key, record in m.changes()}
        invariants(m)
    copy = Machine(Capacity())
    for (kind, key), record in saved.items():
        if record is not None:
            copy.load(kind, key, record)
    assert state(copy) == state(m)
    assert copy.changes() == []
    invariants(copy)


def invariants(m: Machine) -> None:
    """What no sequence of actions may break."""
    used = [uid for _, domain in m.vms.items() for uid in domain.disks.values()]
    assert len(used) == len(set(used)) and set(used) <= set(m.volumes)
    nics = [port for _, domain in m.vms.items() for port in domain.nics]
    ports = [(port.bridge, port.mac) for port in nics]
    assert len(ports) == len(set(ports)) and {bridge for bridge, _ in ports} <= set(m.bridges)
    assert len(nics) == len({port.device for port in nics})
    addresses = [address for _, address in m.addresses.items()]
    assert len({(a.network, a.ip) for a in addresses}) == len(addresses)
    assert {a.network for a in addresses} <= set(m.subnets)
    assert {subnet.bridge for _, subnet in m.subnets.items()} <= set(m.bridges)
    # The index says what the records say.
    assert set(m.usage.disks) == set(used) and set(m.usage.ports) == set(ports)
    assert +m.usage.on_bridge == Counter(bridge for bridge, _ in ports)
    assert m.usage.memory == sum(memory_of(domain) for _, domain in m.vms.items())
    stored = [record.actual for shelf in (m.volumes, m.images) for _, record in shelf.items()]
    assert m.usage.bytes == sum(stored)
