"""Volumes with the real qemu-img and a fetch that fails, is killed, or works."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from agents.drivers.base import DriverError
from agents.ops.commands import run
from agents.ops.qcow2 import read_header
from agents.ops.volume import KnownStorages, Volumes
from agents.wire import (
    CachePruneArgs,
    ImageSource,
    StorageArgs,
    StorageRemoveArgs,
    VolumeCreateArgs,
    VolumeDeleteArgs,
)

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="no qemu-img here")
SIZE = 8 << 20


def image(uid: str = "image-1") -> ImageSource:
    return ImageSource(
        uid=uid, store="s", address="a", port=1, file="f", format="qcow2",
        checksum="sha256:0", virtual_size=SIZE,
    )  # fmt: skip


class Host:
    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "storage")
        self.root = Path(self.path)
        self.fetched: list[str] = []
        self.user: str | None = None
        self.failure: Exception | None = None
        self.known = KnownStorages(directory / "storages.json")
        self.known.load()
        self.volumes = Volumes(self.known, self._fetch, self._user_of)

    async def _fetch(self, source: ImageSource, destination: Path) -> None:
        self.fetched.append(source.uid)
        if self.failure is not None:
            raise self.failure
        await run("qemu-img", "create", "-q", "-f", "qcow2", str(destination), str(SIZE))

    async def _user_of(self, path: str) -> str | None:
        return self.user

    def create_args(self, size: int = SIZE, source: ImageSource | None = None) -> VolumeCreateArgs:
        return VolumeCreateArgs(path=self.path, size=size, image=source)

    def names(self) -> list[str]:
        return sorted(p.name for p in self.root.rglob("*") if p.is_file())


async def test_an_empty_volume_has_its_size_and_stays(tmp_path: Path) -> None:
    host = Host(tmp_path)
    made = await host.volumes.create("v1", host.create_args(SIZE))
    assert made.size == SIZE
    again = await host.volumes.create("v1", host.create_args(2 * SIZE))
    assert again == made, "what exists is answered as it is"


async def test_volumes_of_one_image_share_one_download(tmp_path: Path) -> None:
    host = Host(tmp_path)
    args = host.create_args(2 * SIZE, image())
    made = await asyncio.gather(*(host.volumes.create(f"v{n}", args) for n in range(4)))
    assert host.fetched == ["image-1"]
    assert {v.size for v in made} == {2 * SIZE}
    backing = {read_header(Path(v.path)).backing for v in made}
    assert backing == {str(host.root / "cache/image-1.qcow2")}


async def test_a_failed_download_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.failure = DriverError("checksum", "wrong")
    with pytest.raises(DriverError, match="wrong"):
        await host.volumes.create("v1", host.create_args(SIZE, image()))
    assert host.names() == []
    host.failure = None
    await host.volumes.create("v1", host.create_args(SIZE, image()))
    assert host.names() == ["image-1.qcow2", "v1.qcow2"]


async def test_too_small_a_disk_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with pytest.raises(DriverError, match="less than the image's"):
        await host.volumes.create("v1", host.create_args(SIZE - 512, image()))


async def test_an_image_goes_when_no_volume_is_based_on_it(tmp_path: Path) -> None:
    host = Host(tmp_path)
    prune = CachePruneArgs(path=host.path)
    await host.volumes.create("v1", host.create_args(SIZE, image()))
    await host.volumes.create("v2", host.create_args(SIZE, image("image-2")))
    await host.volumes.prune("image-1", prune)
    assert (await host.volumes.inventory())[1] == ["image-1", "image-2"]
    for _ in range(2):
        await host.volumes.delete("v1", VolumeDeleteArgs(path=host.path))
        await host.volumes.prune("image-1", prune)
    assert await host.volumes.inventory() == (["v2"], ["image-2"])


async def test_storage_that_is_removed_leaves_nothing_of_ours(tmp_path: Path) -> None:
    host = Host(tmp_path)
    remove = StorageRemoveArgs(path=host.path)
    await host.volumes.create("v1", host.create_args(SIZE, image()))
    await host.volumes.create("v2", host.create_args(SIZE, image("image-2")))
    (host.root / "cache/.image-3.qcow2.tmp").write_bytes(b"half")
    await host.volumes.delete("v2", VolumeDeleteArgs(path=host.path))
    await host.volumes.remove_storage("ps", remove)
    assert host.names() == ["image-1.qcow2", "v1.qcow2"], "volumes and what is under them stay"
    assert await host.volumes.inventory() == (["v1"], ["image-1"])
    await host.volumes.delete("v1", VolumeDeleteArgs(path=host.path))
    for _ in range(2):
        await host.volumes.remove_storage("ps", remove)
        assert not host.root.exists()
    assert list(host.known) == []
    assert tmp_path.exists()


async def test_what_others_keep_in_removed_storage_stays(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await host.volumes.ensure_storage("ps", StorageArgs(path=host.path))
    for name in ("notes", "cache/notes", "cache/notes.txt"):
        (host.root / name).write_bytes(b"somebody's")
    await host.volumes.remove_storage("ps", StorageRemoveArgs(path=host.path))
    assert host.names() == ["notes", "notes", "notes.txt"]
    assert list(host.known) == [], "no volume can be there any more"


async def test_removing_storage_waits_for_a_download(tmp_path: Path) -> None:
    """Its half-made file is not taken away under it."""
    host = Host(tmp_path)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slow(source: ImageSource, destination: Path) -> None:
        half = destination.with_name(f".{destination.name}.tmp")
        half.write_bytes(b"half")
        under_way.set()
        await go_on.wait()
        assert half.exists()
        half.unlink()
        await host._fetch(source, destination)

    volumes = Volumes(host.known, slow, host._user_of)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        made = tasks.create_task(volumes.create("v1", host.create_args(SIZE, image())))
        await under_way.wait()
        tasks.create_task(volumes.remove_storage("ps", StorageRemoveArgs(path=host.path)))
        await asyncio.to_thread(lambda: None)
        go_on.set()
    assert Path(made.result().path).exists()
    assert host.names() == ["image-1.qcow2", "v1.qcow2"]


async def test_a_volume_in_use_stays(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await host.volumes.create("v1", host.create_args())
    host.user = "vm-1"
    with pytest.raises(DriverError, match="attached to VM vm-1"):
        await host.volumes.delete("v1", VolumeDeleteArgs(path=host.path))
    assert host.names() == ["v1.qcow2"]


async def test_leftovers_go_at_the_next_start_and_nothing_else(tmp_path: Path) -> None:
    host = Host(tmp_path)
    room = await host.volumes.ensure_storage("ps", StorageArgs(path=host.path))
    assert 0 < room.available <= room.total
    (host.root / "volumes/.v9.qcow2.tmp").write_bytes(b"half")
    (host.root / "other").write_bytes(b"somebody's")
    again = Host(tmp_path)
    await again.volumes.tidy()
    assert again.names() == ["other"]
    assert await again.volumes.inventory() == ([], [])


@pytest.mark.parametrize("path", ["/a/../b", "/./a", "/a/.."])
async def test_paths_mean_what_they_say(tmp_path: Path, path: str) -> None:
    host = Host(tmp_path)
    with pytest.raises(DriverError, match="path"):
        await host.volumes.delete("v1", VolumeDeleteArgs(path=path))


async def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(DriverError) as caught:
        await run("sleep", "30", seconds=0.05)
    assert caught.value.code == "timeout"


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="apt-get install") as caught:
        await run("no-such-program-here")
    assert caught.value.code == "unsupported"


async def test_data_are_given_to_another_volume_once(tmp_path: Path) -> None:
    host = Host(tmp_path)
    old = await host.volumes.create("old", host.create_args(2 * SIZE))
    content = Path(old.path).read_bytes()
    args = VolumeCreateArgs(path=host.path, size=1, adopt="old")
    new = await host.volumes.create("new", args)
    assert new.size == 2 * SIZE, "the data say how large it is"
    assert Path(new.path).read_bytes() == content and host.names() == ["new.qcow2"]
    assert await host.volumes.create("new", args) == new
    with pytest.raises(DriverError, match="no data of volume old") as gone:
        await host.volumes.create("third", args)
    assert gone.value.code == "not-found" and host.names() == ["new.qcow2"]


async def test_data_in_use_are_given_to_nobody(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await host.volumes.create("old", host.create_args())
    host.user = "vm-1"
    with pytest.raises(DriverError, match="attached to VM vm-1"):
        await host.volumes.create("new", VolumeCreateArgs(path=host.path, size=1, adopt="old"))
    assert host.names() == ["old.qcow2"]
