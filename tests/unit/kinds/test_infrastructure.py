"""Zones, clusters, hosts, storage, networks and images."""

from __future__ import annotations

from itertools import pairwise

import pytest

from agents.wire import Ping
from controller.agentlink.client import Endpoint
from tests.support.fakes import Fault
from tests.unit.kinds.world import GI, World, cloud, running_vm, vm_spec

pytestmark = pytest.mark.looptime


def _message(world: World, kind: str, name: str) -> str:
    ready = world.get(kind, name).condition("Ready")
    return f"{ready.reason}: {ready.message}" if ready is not None else ""


# -- zone, cluster, offerings


async def test_disabled_is_a_state_not_a_problem() -> None:
    async with cloud(1) as world:
        for kind, name in (("Zone", "z"), ("Cluster", "c"), ("DiskOffering", "ten")):
            await world.change(kind, name, state="Disabled")
            await world.until(lambda k=kind, n=name: world.get(k, n).status.state == "Disabled")  # type: ignore[misc]
            await world.until(lambda k=kind, n=name: world.get(k, n).ready)  # type: ignore[misc]


async def test_a_cluster_counts_its_hosts() -> None:
    async with cloud(3) as world:
        await world.until(lambda: world.get("Cluster", "c").status.connected_hosts == 3)
        world.agents.agents["host-2"].down = True
        await world.until(lambda: world.get("Cluster", "c").status.connected_hosts == 2)
        assert world.get("Cluster", "c").status.hosts == 3
        await world.delete("Host", "host-3")
        await world.until(lambda: world.get("Cluster", "c").status.hosts == 2)


async def test_an_unknown_strategy_stalls_the_offering() -> None:
    async with cloud(1) as world:
        await world.apply(
            "InstanceOffering", "odd", cpu=1, memory="1Gi", allocatorStrategy="Astrology"
        )
        await world.until(lambda: "no allocator strategy 'Astrology'" in _message(
            world, "InstanceOffering", "odd"))  # fmt: skip
        assert "LeastVmPreferred" in _message(world, "InstanceOffering", "odd")


# -- host


async def test_a_host_reports_its_facts_and_offers_its_capacity() -> None:
    async with cloud(1, cpu=8, memory=16 * GI) as world:
        host = world.host("host-1").status
        assert (host.state, host.status, host.cpu, host.memory) == (
            "Enabled", "Connected", 8, "16Gi"
        )  # fmt: skip
        assert (host.available_cpu, host.available_memory) == (80, "15Gi")  # ratio 10; 1Gi kept
        await running_vm(world)
        await world.until(lambda: world.host("host-1").status.vms == 1, seconds=30)
        assert world.host("host-1").status.available_memory == "14Gi"


async def test_another_reservation_changes_the_capacity() -> None:
    async with cloud(1, cpu=8, memory=16 * GI) as world:
        await world.change("Host", "host-1", reservedMemory="4Gi", reservedCpu=2)
        await world.until(lambda: world.host("host-1").status.available_memory == "12Gi", 5)
        assert world.host("host-1").status.available_cpu == 60


async def test_a_host_of_another_architecture_is_refused() -> None:
    async with cloud(1) as world:
        world.agents.add("arm").architecture = "aarch64"
        await world.apply("Host", "arm", clusterRef={"name": "c"}, managementIp="192.0.2.9")
        await world.until(lambda: "host arm is aarch64" in _message(world, "Host", "arm"))
        assert world.host("arm").status.status == "Connecting"
        world.agents.agents["arm"].architecture = "x86_64"
        await world.until(lambda: world.host("arm").ready, seconds=30)


async def test_a_host_whose_agent_is_not_there_yet_connects_when_it_is() -> None:
    async with cloud(1) as world:
        await world.apply("Host", "late", clusterRef={"name": "c"}, managementIp="192.0.2.9")
        await world.settle(100)
        assert world.host("late").status.status == "Connecting"
        said = _message(world, "Host", "late")
        assert said == "Connecting: late does not answer (3 pings missed)", "the cause is named"
        world.agents.add("late")
        await world.until(lambda: world.host("late").ready, seconds=30)


async def test_a_missed_first_ping_costs_a_second() -> None:
    async with cloud(1) as world:
        for kind, spec in (
            ("Host", {"clusterRef": {"name": "c"}}),
            ("BackupStorage", {"path": "/more"}),
        ):
            name = f"late-{kind.lower()}"
            agent = world.agents.add(name)
            agent.down = True
            await world.apply(kind, name, managementIp="192.0.2.9", **spec)
            await world.settle(0.5)
            agent.down = False
            await world.until(lambda k=kind, n=name: world.get(k, n).ready, seconds=2)  # type: ignore[misc]


async def test_a_silent_agent_is_pinged_less_and_less_often() -> None:
    async with cloud(1) as world:
        world.agents.add("late").down = True
        pinged: list[float] = []
        ping = world.agents.ping

        async def noted(endpoint: Endpoint) -> Ping:
            if endpoint.name == "late":
                pinged.append(world.clock.monotonic())
            return await ping(endpoint)

        world.agents.ping = noted  # type: ignore[method-assign]
        await world.apply("Host", "late", clusterRef={"name": "c"}, managementIp="192.0.2.9")
        await world.settle(60)
        pauses = [after - before for before, after in pairwise(pinged)]
        assert pauses[:7] == pytest.approx([1, 2, 4, 8, 10, 10, 10], rel=0.15)
        world.agents.agents["late"].down = False
        await world.until(lambda: world.host("late").ready, seconds=30)
        first = len(pinged)
        await world.settle(35)
        world.agents.agents["late"].down = True
        await world.until(lambda: world.host("late").status.status == "Disconnected", seconds=60)
        assert len(pinged) - first == 6, "every 10 s while it counts as connected"
        await world.until(lambda: len(pinged) == first + 8, seconds=5)


async def test_pings_that_find_nothing_new_write_nothing() -> None:
    async with cloud(2) as world:
        await running_vm(world)
        await world.settle(60)
        writes, pings = len(world.objects.writes), world.agents.pings
        await world.settle(100)
        assert world.objects.writes[writes:] == []
        assert world.agents.pings - pings in range(24, 36)  # two hosts and a store, every 10 s


async def test_a_host_that_stays_away_is_not_written_for_ever() -> None:
    async with cloud(1) as world:
        world.agents.agents["host-1"].down = True
        await world.until(lambda: world.host("host-1").status.status == "Disconnected")
        assert world.host("host-1").status.missed_pings == 3
        writes = len(world.objects.writes)
        await world.settle(100)
        assert world.objects.writes[writes:] == []
        world.agents.agents["host-1"].down = False
        await world.until(lambda: world.host("host-1").ready, seconds=30)
        assert world.events.reasons("host-1")[-2:] == ["Disconnected", "Connected"]


async def test_an_upgraded_agent_is_connected_anew() -> None:
    async with cloud(1) as world:
        agent = world.agents.agents["host-1"]
        agent.version = "0.2.0"
        await world.until(lambda: world.host("host-1").status.agent_version == "0.2.0", 30)
        assert world.host("host-1").ready


# -- storage


async def test_primary_storage_sums_up_its_hosts() -> None:
    async with cloud(2, disk=100 * GI) as world:
        ps = world.get("PrimaryStorage", "ps")
        assert ps.status.total_capacity == "198Gi"  # 1Gi is kept on each
        assert ps.status.hosts == 2
        await running_vm(world)
        await world.until(
            lambda: world.get("PrimaryStorage", "ps").status.available_capacity == "196Gi", 60
        )


async def test_another_reservation_changes_what_storage_offers() -> None:
    async with cloud(2, disk=100 * GI) as world:
        await world.change("PrimaryStorage", "ps", reservedCapacity="20Gi")
        await world.until(
            lambda: world.get("PrimaryStorage", "ps").status.total_capacity == "160Gi", 10
        )


async def test_storage_that_one_host_cannot_make_serves_the_others() -> None:
    async with cloud(1) as world:
        world.agents.faults = [Fault("storage.ensure", host="host-2", message="read-only disk")]
        world.agents.add("host-2")
        await world.apply("Host", "host-2", clusterRef={"name": "c"}, managementIp="192.0.2.2")
        await world.until(lambda: "read-only disk" in _message(world, "PrimaryStorage", "ps"))
        assert world.get("PrimaryStorage", "ps").ready
        vm = await running_vm(world)
        assert world.domains() == {vm.uid: "host-1"}


async def test_storage_without_hosts_says_so() -> None:
    async with cloud(1) as world:
        await world.apply("PrimaryStorage", "lonely", zoneRef={"name": "z"}, path="/x")
        await world.until(lambda: "none; set clusterRefs" in _message(
            world, "PrimaryStorage", "lonely"))  # fmt: skip


async def test_a_detached_cluster_takes_no_new_disks() -> None:
    async with cloud(1) as world:
        await world.change("PrimaryStorage", "ps", clusterRefs=[])
        await world.until(lambda: not _pools(world), seconds=10)


def _pools(world: World) -> list[str]:
    return [scope for scope in world.ledger.capacity if scope.startswith("storage/")]


async def test_backup_storage_that_was_silent_comes_back() -> None:
    async with cloud(1) as world:
        agent = world.agents.agents["images"]
        agent.down = True
        await world.until(lambda: world.get("BackupStorage", "images").status.status
                          == "Disconnected", 60)  # fmt: skip
        assert not world.get("BackupStorage", "images").ready
        agent.down = False
        await world.until(lambda: world.get("BackupStorage", "images").ready, seconds=30)


# -- images


async def test_an_image_shows_what_was_stored() -> None:
    async with cloud(1) as world:
        image = world.get("Image", "img").status
        assert (image.state, image.size) == ("Ready", "2Gi")
        assert image.checksum.startswith("sha256:")
        assert image.actual_size > 0


async def test_an_image_that_cannot_be_fetched_says_why_and_is_tried_again() -> None:
    async with cloud(1) as world:
        world.agents.faults = [Fault("image.add", times=1, code="checksum", message="wrong sum")]
        spec = {"backupStorageRef": {"name": "images"}, "url": "http://x.test/c.qcow2"}
        await world.apply("Image", "bad", **spec)
        await world.until(lambda: "wrong sum" in _message(world, "Image", "bad"), seconds=10)
        assert world.get("Image", "bad").status.state == "Error"
        await world.settle(30)
        assert world.get("Image", "bad").status.state == "Error"
        await world.until(lambda: world.get("Image", "bad").ready, seconds=60)


async def test_deleting_an_image_removes_its_bits() -> None:
    async with cloud(1) as world:
        stored = world.agents.agents["images"].machine
        assert len(stored.inventory().images) == 1
        await world.delete("Image", "img")
        await world.until(lambda: world.get("Image", "img") is None)
        assert stored.inventory().images == []


async def test_deleting_an_image_while_it_is_fetched() -> None:
    async with cloud(1) as world:
        spec = {"backupStorageRef": {"name": "images"}, "url": "http://x.test/c.qcow2"}
        world.agents.delay = 5.0
        await world.apply("Image", "new", **spec)
        await world.until(lambda: world.get("Image", "new").status.state == "Downloading")
        await world.delete("Image", "new")
        await world.until(lambda: world.get("Image", "new") is None)
        assert len(world.agents.agents["images"].machine.inventory().images) == 1


# -- networks


async def test_a_subnet_counts_its_addresses() -> None:
    async with cloud(1) as world:
        net = world.get("L3Network", "net").status
        assert (net.total_ips, net.used_ips, net.dhcp_server) == (40, 0, "10.0.0.10")
        await running_vm(world)
        await world.until(lambda: world.get("L3Network", "net").status.used_ips == 1, 30)


async def test_without_ranges_all_addresses_but_gateway_and_edges_are_given_out() -> None:
    async with cloud(1) as world:
        await world.apply(
            "L3Network", "all", l2NetworkRef={"name": "l2"}, cidr="10.3.0.0/29",
            gateway="10.3.0.1", dhcp={"enabled": False},
        )  # fmt: skip
        await world.until(lambda: world.get("L3Network", "all").ready)
        net = world.get("L3Network", "all").status
        assert (net.total_ips, net.dhcp_server) == (5, "")


async def test_switching_dhcp_off_frees_its_address() -> None:
    async with cloud(1) as world:
        await world.change("L3Network", "net", dhcp={"enabled": False})
        await world.until(lambda: world.get("L3Network", "net").status.dhcp_server == "", 10)
        assert world.ledger.values == {}


async def test_a_vms_network_decides_where_it_can_run() -> None:
    async with cloud(1) as world:
        world.agents.add("other")
        await world.apply("Cluster", "c2", zoneRef={"name": "z"}, hypervisorType="Simulator")
        await world.apply("Host", "other", clusterRef={"name": "c2"}, managementIp="192.0.2.7")
        await world.change("Host", "host-1", state="Disabled")
        await world.apply("VirtualMachine", "vm", **vm_spec())
        await world.settle()
        said = _message(world, "VirtualMachine", "vm")
        assert "other: L2 network l2 is not attached to cluster c2" in said
        assert "host-1: Disabled" in said
        both = [{"name": "c"}, {"name": "c2"}]
        await world.change("PrimaryStorage", "ps", clusterRefs=both)
        await world.change("L2Network", "l2", clusterRefs=both)
        await world.until(lambda: world.vm().status.state == "Running", seconds=10)
        assert list(world.domains().values()) == ["other"]
