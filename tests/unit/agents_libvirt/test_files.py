"""qcow2 headers, seeds, facts, interfaces: what is read and written without a hypervisor."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.drivers.base import DriverError
from agents.ops import facts
from agents.ops.links import (
    BRIDGE_ALIAS,
    DHCP_ALIAS,
    idle_bridges,
    parse_links,
    stable_mac,
)
from agents.ops.qcow2 import checked_virtual_size, read_header


def header(size: int, backing: bytes = b"", features: int = 0, version: int = 3) -> bytes:
    fixed = struct.pack(
        ">4sIQIIQ", b"QFI\xfb", version, 104 if backing else 0, len(backing), 16, size
    )
    return fixed.ljust(72, b"\0") + struct.pack(">Q", features).ljust(32, b"\0") + backing


def test_a_plain_image_has_its_size(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    image.write_bytes(header(1 << 30))
    assert checked_virtual_size(image, "qcow2") == 1 << 30


def test_a_volume_tells_its_backing_file(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    image.write_bytes(header(1 << 20, b"/s/cache/x.qcow2"))
    assert read_header(image).backing == "/s/cache/x.qcow2"


@pytest.mark.parametrize("content", [header(1, b"/etc/shadow"), header(1, features=4)])
def test_an_image_that_refers_to_other_files_is_refused(tmp_path: Path, content: bytes) -> None:
    image = tmp_path / "a.qcow2"
    image.write_bytes(content)
    with pytest.raises(DriverError, match="refers to another file"):
        checked_virtual_size(image, "qcow2")


def test_a_raw_image_is_as_large_as_its_file(tmp_path: Path) -> None:
    image = tmp_path / "a.raw"
    image.write_bytes(b"x" * 1000)
    assert checked_virtual_size(image, "raw") == 1000


@given(st.binary(max_size=200))
def test_anything_else_is_no_qcow2(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory, "a")
        image.write_bytes(content)
        with pytest.raises(DriverError) as caught:
            read_header(image)
        assert caught.value.code == "invalid"


def test_the_seed_holds_what_cloud_init_reads(tmp_path: Path) -> None:
    pycdlib = pytest.importorskip("pycdlib")
    from agents.ops.seed import write_seed

    file = tmp_path / "seed.iso"
    write_seed(file, "uid-1", "web-1", "#cloud-config\nusers: []\n# ü\n")
    assert file.stat().st_mode & 0o777 == 0o600, "user data may hold secrets"
    iso = pycdlib.PyCdlib()
    iso.open(str(file))
    try:
        assert iso.pvd.volume_identifier.decode().strip() == "cidata"
        assert _read(iso, "/meta-data") == "instance-id: uid-1\nlocal-hostname: web-1\n"
        assert _read(iso, "/user-data") == "#cloud-config\nusers: []\n# ü\n"
    finally:
        iso.close()
    assert [p.name for p in tmp_path.iterdir()] == ["seed.iso"]


def _read(iso: object, path: str) -> str:
    out = io.BytesIO()
    iso.get_file_from_iso_fp(out, rr_path=path)  # type: ignore[attr-defined]
    return out.getvalue().decode()


def test_facts_of_a_machine(tmp_path: Path) -> None:
    for name, text in {
        "proc/cpuinfo": "physical id\t: 0\nmodel name\t: Fast CPU\n\nphysical id\t: 1\n",
        "proc/meminfo": "MemTotal:  1024 kB\nMemFree: 1 kB\n",
        "proc/sys/kernel/random/boot_id": "boot-1\n",
        "etc/os-release": 'NAME=x\nPRETTY_NAME="Some Linux 12"\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    machine = facts.machine_at(tmp_path)
    assert machine.memory == 1 << 20
    assert machine.cpu_sockets == 2
    assert machine.cpu_model == "Fast CPU"
    assert machine.operating_system == "Some Linux 12"
    assert facts.facts_of(machine, "KVM", "7.2.0").boot_id == "boot-1"


def links(*entries: dict[str, object]) -> str:
    return json.dumps(entries)


BRIDGE = {"ifname": "br0", "linkinfo": {"info_kind": "bridge"}, "ifalias": f"{BRIDGE_ALIAS}l2-1"}
TAP = {"ifname": "vnic0", "linkinfo": {"info_kind": "tun"}, "master": "br0"}
SERVER = {
    "ifname": "kd-1",
    "linkinfo": {"info_kind": "veth"},
    "master": "br0",
    "ifalias": f"{DHCP_ALIAS}l3-1",
}
HARDWARE = {"ifname": "eth1", "master": "br0"}


@pytest.mark.parametrize(
    ("ports", "used", "idle"),
    [
        ([], [], ["br0"]),
        ([HARDWARE], [], ["br0"]),
        ([TAP], [], []),
        ([HARDWARE, TAP], [], []),
        ([], ["br0"], []),
    ],
)
def test_a_bridge_goes_with_its_last_user(
    ports: list[dict[str, object]], used: list[str], idle: list[str]
) -> None:
    assert idle_bridges(parse_links(links(BRIDGE, *ports)), used) == idle


def test_a_bridge_that_is_not_ours_never_goes() -> None:
    assert idle_bridges(parse_links(links({**BRIDGE, "ifalias": "office"})), []) == []
    found = parse_links(links(SERVER))
    assert found["kd-1"].uid_after(DHCP_ALIAS) == "l3-1"
    assert found["kd-1"].uid_after(BRIDGE_ALIAS) is None


@given(st.text(), st.text())
def test_made_up_macs_are_local_unicast(a: str, b: str) -> None:
    mac = stable_mac(a, b)
    assert mac == stable_mac(a, b)
    assert int(mac[:2], 16) & 0b11 == 0b10
