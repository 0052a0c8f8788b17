"""What DHCP is told: nothing from the wire gets into a configuration unparsed."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.drivers.base import DriverError
from agents.ops.subnet import (
    Entry,
    Subnet,
    dnsmasq_config,
    dnsmasq_hosts,
    fresh_leases,
    interface_name,
    isolation_rules,
    parse_lease,
    parse_subnet,
    with_entry,
    without_mac,
)
from agents.wire import Lease, NetworkArgs

ARGS = NetworkArgs(
    bridge_id="l2",
    bridge="br0",
    cidr="10.1.0.0/24",
    gateway="10.1.0.1",
    dns=["192.0.2.1", "192.0.2.2"],
    dns_domain="example.org",
    mtu=1450,
    dhcp_server="10.1.0.2",
)
MACS = st.integers(0, 2**48 - 1).map(
    lambda n: ":".join(f"{n:012x}"[i : i + 2] for i in range(0, 12, 2))
)
ENTRIES = st.builds(Entry, MACS, st.integers(1, 50).map(lambda n: IPv4Address("10.1.0.0") + n))


def subnet(**changes: object) -> Subnet:
    return parse_subnet("net-1", ARGS.model_copy(update=changes))


def test_the_configuration_says_what_was_asked() -> None:
    config = dnsmasq_config(subnet(), Path("/d")).splitlines()
    assert "dhcp-range=10.1.0.0,static,255.255.255.0,86400" in config
    assert "dhcp-option=option:router,10.1.0.1" in config
    assert "dhcp-option=option:dns-server,192.0.2.1,192.0.2.2" in config
    assert "dhcp-option=option:mtu,1450" in config
    assert "dhcp-option=option:domain-name,example.org" in config
    assert "port=0" in config, "no DNS"


def test_without_gateway_and_dns_the_options_are_sent_empty() -> None:
    """Otherwise dnsmasq would name itself."""
    config = dnsmasq_config(subnet(gateway=None, dns=[], dns_domain=None), Path("/d")).splitlines()
    assert "dhcp-option=option:router" in config
    assert "dhcp-option=option:dns-server" in config
    assert not any("domain-name" in line for line in config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cidr", "10.1.0.0/24\ndhcp-script=/bin/sh"),
        ("gateway", "10.1.0.1\n"),
        ("dns", ["192.0.2.1,x"]),
        ("dns_domain", "example.org\ndhcp-script=/tmp/x"),
        ("dns_domain", "exa mple"),
        ("dhcp_server", "10.2.0.2"),
        ("dhcp_server", "10.1.0.1"),
        ("mtu", 100),
        ("lease_seconds", 1),
        ("physical_interface", 'eth0" drop'),
        ("physical_interface", "-batch"),
        ("physical_interface", ".."),
    ],
)
def test_what_cannot_be_is_refused(field: str, value: object) -> None:
    with pytest.raises(DriverError) as caught:
        subnet(**{field: value})
    assert caught.value.code == "invalid"


@pytest.mark.parametrize(
    "lease",
    [
        Lease(mac="52:54:00:00:00:01,set:x", ip="10.1.0.5"),
        Lease(mac="52:54:00:00:00:01\n", ip="10.1.0.5"),
        Lease(mac="52:54:00:00:00:01", ip="10.2.0.5"),
        Lease(mac="52:54:00:00:00:01", ip="10.1.0.5", hostname="a,b"),
    ],
)
def test_a_lease_that_cannot_be_is_refused(lease: Lease) -> None:
    with pytest.raises(DriverError):
        parse_lease(subnet(), lease)


@given(st.text(min_size=1, max_size=20))
def test_a_name_that_passes_is_one_word_and_no_option(name: str) -> None:
    try:
        interface_name("bridge", name)
    except DriverError:
        return
    assert len(name.split()) == 1
    assert len(name) <= 15
    assert not name.startswith(("-", "."))
    assert not set(name) & set("/\"'\n;{}")


@given(st.lists(ENTRIES, max_size=30))
def test_macs_and_addresses_stay_unique_and_the_last_one_wins(added: list[Entry]) -> None:
    entries: tuple[Entry, ...] = ()
    for entry in added:
        entries = with_entry(entries, entry)
        assert entry in entries
        assert with_entry(entries, entry) == entries, "adding twice is adding once"
    assert len({e.mac for e in entries}) == len({e.ip for e in entries}) == len(entries)
    for entry in added:
        entries = without_mac(entries, entry.mac)
    assert entries == ()


@given(st.lists(ENTRIES, max_size=20), st.lists(ENTRIES, max_size=20))
def test_only_leases_that_still_hold_stay(leased: list[Entry], wanted: list[Entry]) -> None:
    file = "".join(f"1790000000 {e.mac} {e.ip} * *\n" for e in leased)
    kept = fresh_leases(file, wanted)
    pairs = {(e.mac, e.ip) for e in wanted}
    assert kept == "".join(
        f"1790000000 {e.mac} {e.ip} * *\n" for e in leased if (e.mac, e.ip) in pairs
    )
    assert fresh_leases(kept, wanted) == kept


def test_hosts_are_written_one_a_line() -> None:
    entries = [
        Entry("52:54:00:00:00:01", IPv4Address("10.1.0.5"), "web"),
        Entry("52:54:00:00:00:02", IPv4Address("10.1.0.6")),
    ]
    assert dnsmasq_hosts(entries) == (
        "52:54:00:00:00:01,10.1.0.5,web\n52:54:00:00:00:02,10.1.0.6\n"
    )


def test_isolation_is_only_where_there_is_hardware() -> None:
    assert isolation_rules(subnet()) == ""
    assert isolation_rules(subnet(physical_interface="eth1", dhcp_server=None)) == ""
    rules = isolation_rules(subnet(physical_interface="eth1"))
    assert rules.count("drop") == 6
    assert 'iifname "eth1" udp dport { 67, 68 } drop' in rules
    assert 'oifname "eth1" arp saddr ip 10.1.0.2 drop' in rules


@given(st.uuids())
def test_names_fit_the_kernel(uid: object) -> None:
    made = parse_subnet(str(uid), ARGS)
    assert len(made.port) <= 15
    assert interface_name("port", made.port) == made.port
