"""A guest with UEFI firmware: libvirt finds it, it runs, and its variables go with the VM."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from tests.integration.libvirt.bench import Bench, Guest

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
]
DESCRIPTORS = Path("/usr/share/qemu/firmware")


@pytest.mark.skipif(
    not list(DESCRIPTORS.glob("*edk2-x86_64*.json")),
    reason="there is no UEFI firmware; `make test` as root installs it (package ovmf)",
)
async def test_a_guest_starts_with_uefi(bench: Bench) -> None:
    guest = Guest(bench)
    await guest.make_disk()
    args = guest.args().model_copy(update={"boot_mode": "UEFI"})
    assert (await bench.do("vm.start", guest.uid, args)).state == "Running"
    xml = await bench.host.run("virsh", "dumpxml", guest.uid)
    os_ = fromstring(xml).find("os")
    assert os_ is not None and "OVMF" in (os_.findtext("loader") or ""), xml
    variables = os_.findtext("nvram") or ""
    assert await _there(bench, variables)
    await guest.says("BdsDxe")  # the firmware's own boot manager, on the serial console
    assert (await bench.ping()).vms[guest.uid] == "Running"
    await bench.do("vm.destroy", guest.uid)
    assert not await _there(bench, variables)
    await guest.delete_disk()


async def _there(bench: Bench, path: str) -> bool:
    """In the host's own view of the file system."""
    return "there" in await bench.host.run("stat", "-c", "there", path, check=False)
