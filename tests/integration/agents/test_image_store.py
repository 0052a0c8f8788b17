"""Images come whole and verified, or not at all, whatever the server and the clock do."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents.drivers.base import DriverError
from agents.ops.download import DownloadLimits
from agents.ops.image_store import ImageStore
from agents.wire import ImageAddArgs, ImageAddResult, ImageRemoveArgs, StorageArgs
from tests.integration.agents.web import BadServer, bad_server, files_in, qcow2, sha256

GIB = 2**30
CONTENT = qcow2(5 * GIB, os.urandom(3_000_000))
LIMITS = DownloadLimits(stall=0.3, pause=0.01, largest=10_000_000)


@pytest.fixture
async def server() -> AsyncIterator[BadServer]:
    async with bad_server(CONTENT) as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
async def store(tmp_path: Path, directory: Path) -> ImageStore:
    (tmp_path / "allowed").mkdir()
    made = ImageStore(tmp_path / "known.json", tmp_path / "allowed", LIMITS)
    await made.open()
    room = await made.ensure("bs", StorageArgs(path=str(directory)))
    assert 0 < room.available <= room.total
    return made


def args(directory: Path, url: str, **changes: Any) -> ImageAddArgs:
    return ImageAddArgs(path=str(directory), url=url, **changes)


async def refused(store: ImageStore, wanted: ImageAddArgs) -> DriverError:
    with pytest.raises(DriverError) as error:
        await store.add("i", wanted)
    assert files_in(Path(wanted.path)) == [], "something was left behind"
    return error.value


async def test_downloaded_verified_kept(
    store: ImageStore, server: BadServer, directory: Path
) -> None:
    wanted = args(directory, server.url, checksum=sha256(CONTENT))
    added = await store.add("i", wanted)
    assert added == ImageAddResult(file="i.qcow2", virtual_size=5 * GIB, actual_size=len(CONTENT),
                                   checksum=sha256(CONTENT))  # fmt: skip
    path = await store.file("i.qcow2")
    assert path.read_bytes() == CONTENT
    assert await store.images() == ["i"]
    assert await store.add("i", wanted) == added
    assert len(server.asked) == 1, "it was downloaded again"


async def test_sha512(store: ImageStore, server: BadServer, directory: Path) -> None:
    checksum = "sha512:" + hashlib.sha512(CONTENT).hexdigest()
    added = await store.add("i", args(directory, server.url, checksum=checksum))
    assert added.checksum == sha256(CONTENT)


async def test_a_raw_image_is_as_large_as_its_file(
    store: ImageStore, server: BadServer, directory: Path
) -> None:
    added = await store.add("i", args(directory, server.url, format="raw"))
    assert added.virtual_size == added.actual_size == len(CONTENT) and added.file == "i.raw"


async def test_removed(store: ImageStore, server: BadServer, directory: Path) -> None:
    await store.add("i", args(directory, server.url))
    for _ in range(2):
        await store.remove("i", ImageRemoveArgs(path=str(directory)))
    assert files_in(directory) == [] and await store.images() == []
    with pytest.raises(DriverError, match="no image"):
        await store.file("i.qcow2")


async def test_another_file_than_promised(
    store: ImageStore, server: BadServer, directory: Path
) -> None:
    error = await refused(store, args(directory, server.url, checksum=sha256(b"another")))
    assert error.code == "checksum" and sha256(CONTENT) in error.message
    error = await refused(store, args(directory, server.url, checksum="md5:abc"))
    assert error.code == "invalid"


async def test_not_an_image(store: ImageStore, directory: Path) -> None:
    async with bad_server(b"<html>Not found</html>") as server:
        error = await refused(store, args(directory, server.url))
    assert error.code == "invalid"


async def test_an_image_that_would_read_the_hosts_files(store: ImageStore, directory: Path) -> None:
    async with bad_server(qcow2(GIB, backing="/etc/shadow")) as server:
        error = await refused(store, args(directory, server.url))
    assert error.code == "invalid" and "qemu-img convert" in error.message


async def test_a_broken_connection_is_taken_up_where_it_broke(
    store: ImageStore, directory: Path
) -> None:
    async with bad_server(CONTENT, cuts=2) as server:
        added = await store.add("i", args(directory, server.url, checksum=sha256(CONTENT)))
    assert added.actual_size == len(CONTENT)
    assert server.asked[0] is None and len(server.asked) == 3
    offsets = [int(r.removeprefix("bytes=").removesuffix("-")) for r in server.asked if r]
    assert offsets == sorted(offsets) and offsets[0] > 0


async def test_a_server_that_knows_no_ranges(store: ImageStore, directory: Path) -> None:
    async with bad_server(CONTENT, cuts=2, ranges=False) as server:
        added = await store.add("i", args(directory, server.url, checksum=sha256(CONTENT)))
    assert added.actual_size == len(CONTENT)


async def test_a_file_that_changes_meanwhile_starts_anew(
    store: ImageStore, directory: Path
) -> None:
    async with bad_server(CONTENT, cuts=1, etags=['"old"', '"new"']) as server:
        await store.add("i", args(directory, server.url, checksum=sha256(CONTENT)))
    assert len(server.asked) == 2 and server.asked[1] is not None


async def test_a_server_that_always_breaks_off(store: ImageStore, directory: Path) -> None:
    async with bad_server(CONTENT, cuts=99) as server:
        error = await refused(store, args(directory, server.url))
    assert error.code == "unreachable" and len(server.asked) == LIMITS.attempts


async def test_a_server_that_stalls(store: ImageStore, directory: Path) -> None:
    async with bad_server(CONTENT, cuts=1, stall=True) as server:
        added = await store.add("i", args(directory, server.url, checksum=sha256(CONTENT)))
    assert added.actual_size == len(CONTENT) and len(server.asked) == 2


async def test_server_errors_pass_and_client_errors_do_not(
    store: ImageStore, directory: Path
) -> None:
    async with bad_server(CONTENT, errors=[503, 429]) as server:
        await store.add("i", args(directory, server.url))
        await store.remove("i", ImageRemoveArgs(path=str(directory)))
        server.errors, server.asked = [404], []
        error = await refused(store, args(directory, server.url))
        assert error.code == "not-found" and len(server.asked) == 1
        server.errors = [403]
        assert "403" in (await refused(store, args(directory, server.url))).message


async def test_redirects_are_followed_but_not_for_ever(
    store: ImageStore, server: BadServer, directory: Path
) -> None:
    around = server.url.replace("/file", "/around")
    assert "redirects" in (await refused(store, args(directory, around))).message
    await store.add("i", args(directory, server.url.replace("/file", "/elsewhere")))


async def test_too_large(tmp_path: Path, server: BadServer, directory: Path) -> None:
    small = ImageStore(tmp_path / "known", None, DownloadLimits(largest=1_000_000))
    await small.ensure("bs", StorageArgs(path=str(directory)))
    assert (await refused(small, args(directory, server.url))).code == "no-space"


async def test_nobody_there(store: ImageStore, directory: Path) -> None:
    error = await refused(store, args(directory, "http://127.0.0.1:1/x?token=hunter2"))
    assert error.code == "unreachable" and "hunter2" not in error.message


async def test_cancelled(store: ImageStore, directory: Path) -> None:
    async with bad_server(CONTENT, cuts=99, stall=True) as server:
        adding = asyncio.create_task(store.add("i", args(directory, server.url)))
        while not server.asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
    assert files_in(directory) == []


async def test_local_files_only_from_where_they_may_come(
    store: ImageStore, tmp_path: Path, directory: Path
) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    secret.write_bytes(CONTENT)
    (allowed / "image").write_bytes(CONTENT)
    (allowed / "link").symlink_to(secret)
    os.mkfifo(allowed / "pipe")
    added = await store.add("i", args(directory, f"file://{allowed}/image"))
    assert added.checksum == sha256(CONTENT)
    await store.remove("i", ImageRemoveArgs(path=str(directory)))
    for path in (secret, f"{allowed}/../secret", allowed / "link", "/etc/passwd"):
        assert (await refused(store, args(directory, f"file://{path}"))).code == "invalid"
    elsewhere = await refused(store, args(directory, f"file://elsewhere{allowed}/image"))
    assert elsewhere.code == "invalid"
    for path in (allowed / "none", allowed / "pipe", allowed):
        async with asyncio.timeout(5):
            assert (await refused(store, args(directory, f"file://{path}"))).code == "not-found"


async def test_no_local_files_unless_allowed(tmp_path: Path, directory: Path) -> None:
    store = ImageStore(tmp_path / "known")
    await store.ensure("bs", StorageArgs(path=str(directory)))
    assert "--option files" in (await refused(store, args(directory, "file:///etc/passwd"))).message


async def test_only_images_are_served(
    store: ImageStore, server: BadServer, tmp_path: Path, directory: Path
) -> None:
    await store.add("i", args(directory, server.url))
    (directory / "stray.qcow2").write_bytes(b"not ours")
    (tmp_path / "out.qcow2").write_bytes(CONTENT)
    hostile = ("../out.qcow2", "stray.qcow2", ".i.json", "i.json", "i", "", "..", "/etc/passwd",
               "i.raw", "images/i.qcow2", "i.qcow2/")  # fmt: skip
    for name in hostile:
        with pytest.raises(DriverError) as error:
            await store.file(name)
        assert error.value.code == "not-found"
    (directory / "i.qcow2").unlink()
    (directory / "i.qcow2").symlink_to(tmp_path / "out.qcow2")
    with pytest.raises(DriverError):
        await store.file("i.qcow2")
    assert await store.images() == []


async def test_leftovers_of_a_killed_process_go(
    store: ImageStore, server: BadServer, tmp_path: Path, directory: Path
) -> None:
    await store.add("i", args(directory, server.url))
    (directory / ".j.qcow2.tmp").write_bytes(b"half")
    again = ImageStore(tmp_path / "known.json", None, LIMITS)
    await again.open()
    assert files_in(directory) == [".i.json", "i.qcow2"]
    assert await again.images() == ["i"]


async def test_a_damaged_image_is_downloaded_again(
    store: ImageStore, server: BadServer, directory: Path
) -> None:
    added = await store.add("i", args(directory, server.url))
    os.truncate(directory / "i.qcow2", 10)
    assert await store.images() == []
    assert await store.add("i", args(directory, server.url)) == added
    assert len(server.asked) == 2


async def test_paths_that_cannot_be(store: ImageStore, tmp_path: Path) -> None:
    for path in ("/tmp/../etc", "/proc/nothing", str(tmp_path / "known.json" / "x")):
        with pytest.raises(DriverError) as error:
            await store.ensure("bs", StorageArgs(path=path))
        assert error.value.code == "invalid" and "path" in error.value.message
    with pytest.raises(DriverError) as error:
        await store.add("i", args(tmp_path / "none", "http://127.0.0.1:1/"))
    assert error.value.code == "not-found"


@pytest.mark.parametrize("killed", ["no", "before the note", "after the note"])
async def test_an_image_is_given_to_another_whoever_is_killed(
    store: ImageStore, server: BadServer, directory: Path, killed: str
) -> None:
    added = await store.add("old", args(directory, server.url))
    if killed != "no":
        (directory / "new.qcow2").hardlink_to(directory / "old.qcow2")
    if killed == "after the note":
        note = added.model_copy(update={"file": "new.qcow2"}).model_dump_json(by_alias=True)
        (directory / ".new.json").write_text(note)
    wanted = args(directory, "http://nowhere.invalid/", adopt="old")
    adopted = await store.add("new", wanted)
    assert adopted == added.model_copy(update={"file": "new.qcow2"})
    assert await store.images() == ["new"]
    assert (await store.file("new.qcow2")).read_bytes() == CONTENT
    assert await store.add("new", wanted) == adopted
    assert sorted(files_in(directory)) == [".new.json", "new.qcow2"]
    with pytest.raises(DriverError, match="no image old"):
        await store.add("third", wanted)
