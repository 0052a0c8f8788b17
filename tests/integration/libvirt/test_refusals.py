"""What an agent does not do, whoever asks."""

from __future__ import annotations

from uuid import uuid4

import pytest

from agents.wire import Disk, VmArgs, VmStopArgs, VolumeCreateArgs, VolumeDeleteArgs
from tests.integration.libvirt.bench import DISK_BYTES, Bench, Failed, Guest

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

FOREIGN = """<domain type='qemu'><name>foreign</name><uuid>{}</uuid>
<memory>65536</memory><os><type>hvm</type></os></domain>"""


def stolen(path: str) -> VmArgs:
    disk = Disk(volume=str(uuid4()), path=path, device="vda", format="raw")
    return VmArgs(name="thief", namespace="tests", cpu=1, memory=128 << 20, disks=[disk])


async def test_a_domain_of_somebody_else_is_left_alone(bench: Bench) -> None:
    uid = str(uuid4())
    file = bench.host.root / "foreign.xml"
    file.write_text(FOREIGN.format(uid))
    await bench.host.run("virsh", "define", str(file))
    for action, args in (("vm.destroy", None), ("vm.stop", VmStopArgs())):
        with pytest.raises(Failed, match=r"conflict: .*Kumulus did not define it"):
            await bench.do(action, uid, args)
    assert uid not in (await bench.ping()).vms
    assert uid in await bench.host.run("virsh", "list", "--all", "--uuid")
    await bench.host.run("virsh", "undefine", "foreign")


@pytest.mark.parametrize("path", ["/etc/shadow", "/dev/vda", "/tmp/../etc/shadow"])
async def test_a_guest_gets_no_file_but_volumes(bench: Bench, path: str) -> None:
    with pytest.raises(Failed, match=r"invalid: .*is no volume"):
        await bench.do("vm.start", str(uuid4()), stolen(path))


async def test_a_volume_in_use_is_not_deleted(bench: Bench) -> None:
    guest = Guest(bench)
    await guest.make_disk()
    await bench.do("vm.start", guest.uid, guest.args())
    with pytest.raises(Failed, match=f"conflict: .*attached to VM {guest.uid}"):
        await guest.delete_disk()
    await bench.do("vm.destroy", guest.uid)
    await guest.delete_disk()
    assert (await bench.inventory()).volumes == []


async def test_an_image_that_is_not_what_it_should_be_is_not_kept(bench: Bench) -> None:
    image = await bench.stored_image()
    wrong = image.model_copy(update={"uid": str(uuid4()), "checksum": "sha256:" + "0" * 64})
    guest = Guest(bench)
    args = VolumeCreateArgs(path=guest.storage, size=DISK_BYTES, image=wrong)
    with pytest.raises(Failed, match="checksum"):
        await bench.do("volume.create", guest.root, args)
    left = [p.name for p in (bench.host.storage / "cache").iterdir()]
    assert not any(wrong.uid in name for name in left)
    assert guest.root not in (await bench.inventory()).volumes


async def test_a_disk_smaller_than_its_image_is_refused(bench: Bench) -> None:
    image = await bench.stored_image()
    guest = Guest(bench)
    args = VolumeCreateArgs(path=guest.storage, size=1 << 20, image=image)
    with pytest.raises(Failed, match=r"invalid: size: .* less than the image's"):
        await bench.do("volume.create", guest.root, args)


async def test_a_path_that_points_elsewhere_is_refused(bench: Bench) -> None:
    with pytest.raises(Failed, match="invalid: path"):
        await bench.do("volume.delete", str(uuid4()), VolumeDeleteArgs(path="/var/../etc"))
