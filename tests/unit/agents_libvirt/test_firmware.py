"""The guest's firmware: asked of libvirt, or refused with what to install."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from agents.drivers.base import DriverError
from agents.drivers.domain import NAMESPACE, Machinery, domain_xml, firmwares_of
from agents.wire import Empty, VmArgs
from tests.unit.agents_libvirt.test_vm import UID, Host

CAPABILITIES = """<domainCapabilities><path>/usr/bin/qemu-system-x86_64</path>
<os supported='yes'><enum name='firmware'>{values}</enum>
<loader supported='yes'><enum name='type'><value>rom</value></enum></loader></os>
</domainCapabilities>"""


def xml_of(**more: object) -> str:
    args = VmArgs(name="web", namespace="shop", cpu=1, memory=1 << 27, disks=[], **more)  # type: ignore[arg-type]
    return domain_xml(UID, args, Machinery("qemu", Path("/k/console.log")))


def test_uefi_is_left_to_libvirt_to_find() -> None:
    os_ = fromstring(xml_of(boot_mode="UEFI")).find("os")
    assert os_ is not None and os_.get("firmware") == "efi"
    for mode in ("BIOS", None):
        os_ = fromstring(xml_of(boot_mode=mode)).find("os")
        assert os_ is not None and os_.get("firmware") is None


def test_the_hostname_is_in_the_definition() -> None:
    own = fromstring(xml_of(hostname="frontend")).find(f"./metadata/{{{NAMESPACE}}}vm")
    assert own is not None and own.get("hostname") == "frontend"


@pytest.mark.parametrize(
    ("values", "found"),
    [("<value>bios</value><value>efi</value>", {"bios", "efi"}), ("", set())],
)
def test_capabilities_say_which_firmware_there_is(values: str, found: set[str]) -> None:
    assert firmwares_of(CAPABILITIES.format(values=values)) == found
    assert firmwares_of("<domainCapabilities/>") == frozenset()


@pytest.mark.looptime
async def test_a_host_without_firmware_says_what_to_install(tmp_path: Path) -> None:
    pytest.importorskip("pycdlib")
    host = Host(tmp_path)
    host.hypervisor.firmware = frozenset({"bios"})
    with pytest.raises(DriverError, match="apt-get install ovmf") as caught:
        await host.vms.start(UID, host.args(boot_mode="UEFI"))
    assert caught.value.code == "unsupported" and "bootMode::BIOS" in caught.value.message
    assert host.hypervisor.domains == {} and host.files() == set()
    await host.vms.start(UID, host.args(boot_mode="BIOS"))
    host.hypervisor.firmware = frozenset({"efi"})
    await host.vms.destroy(UID, Empty())
    await host.vms.start(UID, host.args(boot_mode="UEFI"))
    assert 'firmware="efi"' in str(host.hypervisor.domains[UID].live)
