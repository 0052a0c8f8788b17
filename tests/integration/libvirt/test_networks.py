"""Bridges and DHCP on a real kernel, with busybox as the guest: quick, since nothing boots."""

from __future__ import annotations

import pytest

from agents.wire import Inventory
from tests.integration.libvirt.bench import Bench, Failed, Net, eventually

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

LEASE_SCRIPT = """#!/bin/sh
[ "$1" = bound ] && echo "bound $ip from $serverid gw $router dns $dns mtu $mtu domain $domain"
"""


class Client:
    """A machine with one interface: a port of the bridge, or hung on a wire named ``port``."""

    def __init__(self, bench: Bench, name: str, mac: str) -> None:
        self.bench, self.name, self.mac = bench, name, mac
        self.port = f"p-{name}"

    async def plug(self, bridge: str | None) -> None:
        run = self.bench.host.run
        await run("ip", "netns", "add", self.name)
        await run(
            "ip", "link", "add", self.port, "type", "veth",
            "peer", "name", "eth0", "address", self.mac, "netns", self.name,
        )  # fmt: skip
        await run("ip", "-n", self.name, "link", "set", "eth0", "up")
        await run("ip", "link", "set", self.port, "up", *(("master", bridge) if bridge else ()))

    async def ask(self, tries: int = 4) -> str:
        """What DHCP gave, "" if nothing."""
        script = self.bench.host.root / "lease.sh"
        script.write_text(LEASE_SCRIPT)
        script.chmod(0o755)
        said = await self.bench.host.run(
            "ip", "netns", "exec", self.name, "busybox", "udhcpc", "-i", "eth0", "-n", "-q",
            "-t", str(tries), "-T", "1", "-O", "mtu", "-s", str(script), check=False,
        )  # fmt: skip
        return next((line for line in said.splitlines() if line.startswith("bound")), "")

    async def run(self, *command: str) -> str:
        inside = ("ip", "netns", "exec", self.name)
        return await self.bench.host.run(*inside, *command, check=False)

    async def unplug(self) -> None:
        await self.bench.host.run("ip", "netns", "del", self.name)


async def test_a_known_nic_gets_its_address_and_an_unknown_one_none(bench: Bench) -> None:
    net = Net(bench, 31, "brknown")
    await net.ensure(7)
    known = Client(bench, "known", net.nic(7).mac)
    stranger = Client(bench, "stranger", "52:54:00:99:99:99")
    for client in (known, stranger):
        await client.plug(net.bridge)
    assert await known.ask() == (
        f"bound {net.ip(7)} from {net.ip(2)} gw {net.ip(1)} dns 192.0.2.53 mtu 1450 "
        "domain guests.example"
    )
    assert await stranger.ask(2) == ""
    for client in (known, stranger):
        await client.unplug()
    await net.release(7)
    assert await bench.inventory() == Inventory()


async def test_an_address_can_be_given_to_another_nic_at_once(bench: Bench) -> None:
    """The server must forget the old NIC's lease with its entry."""
    net = Net(bench, 32, "bragain")
    await net.ensure(8)
    await net.ensure(9)
    first = Client(bench, "first", net.nic(9).mac)
    await first.plug(net.bridge)
    assert net.ip(9) in await first.ask()
    await net.release(9)
    second = Client(bench, "second", "52:54:00:32:00:aa")
    lease = net.lease(9).model_copy(update={"mac": second.mac})
    await bench.do("network.ensure", net.uid, net.args(lease))
    await second.plug(net.bridge)
    assert net.ip(9) in await second.ask()
    assert await first.ask(2) == ""
    for client in (first, second):
        await client.unplug()
    await net.release()
    assert await bench.inventory() == Inventory()


async def test_two_subnets_share_a_bridge_and_the_last_one_takes_it_along(bench: Bench) -> None:
    one = Net(bench, 33, "brshared")
    two = Net(bench, 34, "brshared", l2=one.l2)
    clients = []
    for net in (one, two):
        await net.ensure(3)
        client = Client(bench, f"c{net.number}", net.nic(3).mac)
        await client.plug("brshared")
        assert net.ip(3) in await client.ask()
        clients.append(client)
    for client in clients:
        await client.unplug()
    await one.release(3)
    assert (await bench.inventory()).bridges == [one.l2]
    await two.release(3)
    assert await bench.inventory() == Inventory()


async def test_dhcp_stays_on_its_side_of_the_hardware_port(bench: Bench) -> None:
    """A veth stands in for the hardware; beyond it lives another DHCP server and a NIC that this
    host's server knows: neither may be heard across, while other traffic passes."""
    net = Net(bench, 35, "brphys", physical="hw0")
    await bench.host.run("ip", "link", "add", "hw0", "type", "veth", "peer", "name", "w0")
    await bench.host.run("ip", "link", "set", "w0", "up")
    await net.ensure(4)
    inside = Client(bench, "inside", net.nic(4).mac)
    await inside.plug(net.bridge)
    outside = Client(bench, "outside", net.nic(5).mac)
    await net.ensure(5)
    await outside.plug(None)
    await bench.host.run("ip", "link", "add", "wire", "type", "bridge")
    for port in ("w0", outside.port):
        await bench.host.run("ip", "link", "set", port, "master", "wire", "up")
    await bench.host.run("ip", "link", "set", "wire", "up")
    assert net.ip(4) in await inside.ask()
    assert await outside.ask(2) == "", "the host's DHCP server answered beyond its hardware port"
    await inside.run("ip", "address", "add", f"{net.ip(4)}/24", "dev", "eth0")
    await outside.run("ip", "address", "add", f"{net.ip(5)}/24", "dev", "eth0")
    ping = ("busybox", "ping", "-c1", "-W2")
    assert "1 packets received" in await inside.run(*ping, net.ip(5)), "guests reach the network"
    assert "1 packets received" in await inside.run(*ping, net.ip(2)), "the server is there inside"
    assert "1 packets received" not in await outside.run(*ping, net.ip(2)), "but not outside"
    for client in (inside, outside):
        await client.unplug()
    await net.release()
    await bench.host.run("ip", "link", "del", "wire")
    links = await bench.host.run("ip", "-br", "link")
    assert "hw0" in links, "the hardware stays"
    assert "brphys" not in links
    await bench.host.run("ip", "link", "del", "hw0")
    assert (await bench.host.run("nft", "list", "ruleset")).strip() == ""


async def test_hardware_that_carries_an_address_is_not_taken(bench: Bench) -> None:
    net = Net(bench, 36, "brbusy", physical="busy0")
    await bench.host.run("ip", "link", "add", "busy0", "type", "veth", "peer", "name", "busy1")
    await bench.host.run("ip", "address", "add", "192.0.2.7/24", "dev", "busy0")
    with pytest.raises(Failed, match=r"conflict: busy0 carries 192\.0\.2\.7/24"):
        await net.ensure(4)
    await net.release()
    assert "192.0.2.7" in await bench.host.run("ip", "address", "show", "busy0")
    await bench.host.run("ip", "link", "del", "busy0")
    assert await bench.inventory() == Inventory()


async def test_an_administrators_bridge_is_used_and_left(bench: Bench) -> None:
    net = Net(bench, 37, "bradmin")
    await bench.host.run("ip", "link", "add", "bradmin", "type", "bridge")
    await net.ensure(4)
    await net.release(4)
    assert "bradmin" in await bench.host.run("ip", "-br", "link")
    await bench.host.run("ip", "link", "del", "bradmin")


async def test_dhcp_outlives_the_agent_and_comes_back_with_the_host(bench: Bench) -> None:
    net = Net(bench, 38, "brkept")
    await net.ensure(4)
    before = await bench.host.run("ip", "netns", "pids", net.netns)
    bench.host.kill_agent()
    await bench.host.start_agent()
    assert await bench.host.run("ip", "netns", "pids", net.netns) == before != ""

    bench.host.kill_agent()  # and the host with it: all that the kernel held is gone
    await bench.host.run("kill", "-9", before.strip())
    await bench.host.run("ip", "netns", "del", net.netns)
    await bench.host.run("ip", "link", "del", "brkept")
    await bench.host.start_agent()
    client = Client(bench, "back", net.nic(4).mac)
    await client.plug(net.bridge)
    assert net.ip(4) in await client.ask()
    await client.unplug()
    await net.release(4)
    assert await bench.inventory() == Inventory()


async def test_a_dead_server_is_noticed_and_started_again(bench: Bench) -> None:
    net = Net(bench, 39, "brdead")
    await net.ensure(4)
    pid = (await bench.host.run("ip", "netns", "pids", net.netns)).strip()
    await bench.host.run("kill", "-9", pid)
    await eventually(lambda: _no_entries(bench), "the inventory says that nothing answers")
    await net.ensure(4)
    assert (await bench.inventory()).dhcp == [f"{net.uid}/{net.nic(4).mac}"]
    await net.release(4)


async def _no_entries(bench: Bench) -> bool:
    return (await bench.inventory()).dhcp == []
