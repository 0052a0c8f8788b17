"""Domain XML: what goes in comes out, and nothing else can be smuggled in."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

from hypothesis import given
from hypothesis import strategies as st

from agents.drivers import kvm_probe
from agents.drivers.domain import Machinery, devices_of, disk_xml, domain_xml, is_vm, nic_xml
from agents.wire import Disk, NicDevice, VmArgs

UID = "6f1c7a2e-0000-4000-8000-0123456789ab"
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))


def args(name: str = "web", namespace: str = "shop") -> VmArgs:
    return VmArgs(
        name=name,
        namespace=namespace,
        cpu=2,
        memory=256 << 20,
        disks=[Disk(volume=UID, path="/s/volumes/a.qcow2", device="vda")],
        nics=[NicDevice(mac="52:54:00:00:00:01", bridge="br0", device="vnic1", mtu=1450)],
    )


def machinery(seed: Path | None = None) -> Machinery:
    return Machinery("qemu", Path("/k/console.log"), seed)


def test_a_definition_has_what_was_asked() -> None:
    xml = domain_xml(UID, args(), machinery(Path("/k/seed.iso")))
    root = fromstring(xml)
    assert root.get("type") == "qemu"
    assert root.findtext("uuid") == UID
    assert root.findtext("memory") == str(256 << 20)
    assert root.findtext("vcpu") == "2"
    found = devices_of(xml)
    assert found.disks == {"vda": "/s/volumes/a.qcow2", "hda": "/k/seed.iso"}
    assert found.nics == {"52:54:00:00:00:01": "vnic1"}
    mtu = root.find("./devices/interface/mtu")
    assert mtu is not None
    assert mtu.get("size") == "1450"
    log = root.find("./devices/serial/log")
    assert log is not None
    assert log.get("file") == "/k/console.log"
    assert is_vm(xml)


def test_without_a_seed_there_is_no_cdrom() -> None:
    assert "cdrom" not in domain_xml(UID, args(), machinery())


def test_other_domains_are_not_ours() -> None:
    assert not is_vm("<domain><name>x</name></domain>")
    assert not is_vm(kvm_probe.probe_xml(Path("/p")))


@given(TEXT, TEXT)
def test_names_stay_names(name: str, namespace: str) -> None:
    root = fromstring(domain_xml(UID, args(name, namespace), machinery()))
    own = root.find("./metadata/*")
    assert own is not None
    assert (own.get("name"), own.get("namespace")) == (name, namespace)
    assert len(root.findall("./devices/disk")) == 1
    assert len(root.findall("./devices/interface")) == 1


def test_what_is_plugged_is_what_a_definition_has() -> None:
    disk, nic = args().disks[0], args().nics[0]
    whole = fromstring(domain_xml(UID, args(), machinery()))
    found = whole.find("./devices/disk"), whole.find("./devices/interface")
    for element, alone in zip(found, (disk_xml(disk), nic_xml(nic)), strict=True):
        assert element is not None
        assert [e.items() for e in element.iter()] == [e.items() for e in fromstring(alone).iter()]


def test_serials_fit_virtio() -> None:
    serial = fromstring(disk_xml(args().disks[0])).findtext("serial")
    assert serial == UID.replace("-", "")[:20]


def test_the_probe_is_a_boot_sector() -> None:
    image = kvm_probe.disk_image()
    assert len(image) == kvm_probe.DISK_BYTES
    assert image[:206] == kvm_probe.CODE
    assert image[510:512] == b"\x55\xaa"
