"""Volumes and cached images in a directory of the host (primary storage of type Local).

::

    <storage>/cache/<image uid>.<format>     images, read-only, under the volumes made from them
    <storage>/volumes/<volume uid>.qcow2     volumes

A file appears under its name only when it is complete. Nothing else in the storage is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from agents.drivers.base import DriverError
from agents.ops.commands import run
from agents.ops.files import commit, is_temporary, read_json, temporary_for, write_atomically
from agents.ops.locks import KeyedLocks
from agents.ops.qcow2 import checked_virtual_size, read_header
from agents.wire import (
    CachePruneArgs,
    Empty,
    ImageSource,
    StorageArgs,
    StorageRemoveArgs,
    StorageResult,
    VolumeCreateArgs,
    VolumeDeleteArgs,
    VolumeResult,
)

log = logging.getLogger(__name__)

IMAGE_FORMATS = get_args(ImageSource.model_fields["format"].annotation)

Fetch = Callable[[ImageSource, Path], Awaitable[None]]
"""Bring the image to the path: whole and with its checksum verified, or not at all."""
UserOf = Callable[[str], Awaitable[str | None]]
"""The uid of the VM that has the file at a path attached, or None."""


@dataclass(frozen=True)
class Storage:
    """The places in one storage directory."""

    root: Path

    @classmethod
    def at(cls, path: str) -> Storage:
        """Raises DriverError ``invalid`` for a path that points elsewhere than it says."""
        root = Path(path)
        if not root.is_absolute() or {".", ".."} & set(path.split("/")):
            raise DriverError("invalid", f"path: {path!r} must be absolute, without . and ..")
        return cls(root)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    def volume(self, uid: str) -> Path:
        return self.volumes / f"{uid}.qcow2"

    def image(self, uid: str, image_format: str) -> Path:
        return self.cache / f"{uid}.{image_format}"

    def volume_files(self) -> list[Path]:
        """Volumes, and those being made."""
        return _files(self.volumes)

    def images_of(self, uid: str) -> list[Path]:
        return [path for path in _files(self.cache) if path.stem == uid and not is_temporary(path)]

    def leftovers_of(self, uid: str) -> list[Path]:
        """What killed downloads of the image left. Another one must not be under way."""
        return [p for p in _files(self.cache) if is_temporary(p) and _image_of(p) == uid]

    def cached(self) -> list[str]:
        """uids of all images in the cache, whole or not."""
        return sorted({uid for path in _files(self.cache) if (uid := _image_of(path))})

    def vanish(self) -> bool:
        """Remove the directories that are empty. Returns whether no volume can be there now."""
        for directory in (self.cache, self.volumes, self.root):
            # Not empty, a mount point, or gone already: whatever it is, it is not ours to force.
            with contextlib.suppress(OSError):
                directory.rmdir()
        return not self.volumes.exists()

    def ensure(self) -> StorageResult:
        """Make the directories; answer the room in bytes."""
        for directory in (self.root, self.cache, self.volumes):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not os.access(self.volumes, os.W_OK | os.X_OK):
            raise DriverError("invalid", f"{self.root} is not writable for the agent")
        room = os.statvfs(self.root)
        return StorageResult(
            total=room.f_blocks * room.f_frsize, available=room.f_bavail * room.f_frsize
        )


def _files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _image_of(path: Path) -> str:
    """The uid of the image that a file of the cache belongs to; "": it is none of ours."""
    name = Path(path.name[1 : -len(".tmp")]) if is_temporary(path) else Path(path.name)
    return name.stem if name.suffix[1:] in IMAGE_FORMATS else ""


class KnownStorages:
    """The storage directories that this agent was told of, remembered across restarts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._paths: set[str] = set()

    def load(self) -> None:
        self._paths |= set(read_json(self._file) or ())

    def __iter__(self) -> Iterator[Storage]:
        return (Storage(Path(path)) for path in sorted(self._paths))

    def add(self, storage: Storage) -> None:
        if str(storage.root) not in self._paths:
            self._paths.add(str(storage.root))
            self._save()

    def discard(self, storage: Storage) -> None:
        if str(storage.root) in self._paths:
            self._paths.discard(str(storage.root))
            self._save()

    def _save(self) -> None:
        write_atomically(self._file, json.dumps(sorted(self._paths)).encode())

    def owns_volume(self, uid: str, path: str) -> bool:
        """Is ``path`` where volume ``uid`` lies in one of them?"""
        return any(str(storage.volume(uid)) == path for storage in self)


class Volumes:
    """The actions on storage, volumes and cached images. Creations from one image take turns."""

    def __init__(self, known: KnownStorages, fetch: Fetch, user_of: UserOf) -> None:
        self._known = known
        self._fetch = fetch
        self._user_of = user_of
        self._images = KeyedLocks()

    async def ensure_storage(self, _: str, args: StorageArgs) -> StorageResult:
        return (await self._storage(args.path))[1]

    async def remove_storage(self, _: str, args: StorageRemoveArgs) -> Empty:
        """Volumes, the images under them, and whatever else is there, stay: that is no error."""
        storage = Storage.at(args.path)
        # An image whose download has only begun has no file yet; its lock tells of it.
        under_way = self._images.held()
        for uid in sorted(under_way.union(await asyncio.to_thread(storage.cached))):
            async with self._images.hold(uid):
                await asyncio.to_thread(_prune, storage, uid)
        if await asyncio.to_thread(storage.vanish):
            await asyncio.to_thread(self._known.discard, storage)
        return Empty()

    async def create(self, uid: str, args: VolumeCreateArgs) -> VolumeResult:
        storage = (await self._storage(args.path))[0]
        target = storage.volume(uid)
        if not await asyncio.to_thread(target.exists):
            if args.adopt is not None:
                await self._adopt(storage.volume(args.adopt), target)
            elif args.image is None:
                await _create(target, args.size)
            else:
                await self._create_over(storage, args.image, target, args.size)
        header = await asyncio.to_thread(read_header, target)
        return VolumeResult(path=str(target), size=header.virtual_size)

    async def _adopt(self, source: Path, target: Path) -> None:
        """Give a volume's data to another, in one step: they are at one place or at the other."""
        await self._refuse_used(source)
        try:
            await asyncio.to_thread(commit, source, target)
        except FileNotFoundError:
            raise DriverError(
                "not-found", f"there are no data of volume {source.stem} in {source.parent}"
            ) from None

    async def _refuse_used(self, path: Path) -> None:
        user = await self._user_of(str(path))
        if user is not None:
            raise DriverError(
                "conflict", f"the volume is attached to VM {user}; stop it or detach the volume"
            )

    async def _create_over(
        self, storage: Storage, image: ImageSource, target: Path, size: int
    ) -> None:
        """The lock keeps the image from being fetched twice, and from being pruned meanwhile."""
        if image.format == "iso":
            raise DriverError("invalid", "image: an ISO cannot be a root disk; use qcow2 or raw")
        async with self._images.hold(image.uid):
            cached = storage.image(image.uid, image.format)
            if not await asyncio.to_thread(cached.exists):
                await self._fetch(image, cached)
            virtual_size = await asyncio.to_thread(checked_virtual_size, cached, image.format)
            if size < virtual_size:
                raise DriverError(
                    "invalid",
                    f"size: {size} bytes is less than the image's {virtual_size}; make the disk "
                    "at least that large",
                )
            await _create(target, size, cached, image.format)

    async def delete(self, uid: str, args: VolumeDeleteArgs) -> Empty:
        target = Storage.at(args.path).volume(uid)
        await self._refuse_used(target)
        await asyncio.to_thread(_remove, target, temporary_for(target))
        return Empty()

    async def prune(self, uid: str, args: CachePruneArgs) -> Empty:
        """An image that volumes are based on stays; that is no error."""
        storage = Storage.at(args.path)
        async with self._images.hold(uid):
            await asyncio.to_thread(_prune, storage, uid)
        return Empty()

    async def inventory(self) -> tuple[list[str], list[str]]:
        """The uids of the volumes and of the cached images."""
        return await asyncio.to_thread(self._inventory)

    def _inventory(self) -> tuple[list[str], list[str]]:
        volumes, images = [], []
        for storage in self._known:
            volumes += [p.stem for p in storage.volume_files() if not is_temporary(p)]
            images += [p.stem for p in _files(storage.cache) if not is_temporary(p)]
        return sorted(volumes), sorted(images)

    async def tidy(self) -> None:
        """At the start, before any work: remove what a killed agent left half-made."""
        await asyncio.to_thread(self._tidy)

    def _tidy(self) -> None:
        for storage in self._known:
            _remove(*filter(is_temporary, storage.volume_files()))

    async def _storage(self, path: str) -> tuple[Storage, StorageResult]:
        storage = Storage.at(path)
        try:
            room = await asyncio.to_thread(storage.ensure)
            await asyncio.to_thread(self._known.add, storage)
        except OSError as error:
            raise DriverError("invalid", f"path: {path}: {error.strerror}") from error
        return storage, room


async def _create(
    target: Path, size: int, backing: Path | None = None, backing_format: str = "qcow2"
) -> None:
    """An empty qcow2, or one over ``backing``, under its name once it is whole."""
    temporary = temporary_for(target)
    base = [] if backing is None else ["-b", str(backing), "-F", backing_format]
    await run("qemu-img", "create", "-q", "-f", "qcow2", *base, str(temporary), str(size))
    await asyncio.to_thread(commit, temporary, target)


def _prune(storage: Storage, uid: str) -> None:
    _remove(*storage.leftovers_of(uid))
    images = storage.images_of(uid)
    used = {_backing(path) for path in storage.volume_files()}
    for image in images:
        if str(image) in used:
            log.info("cached image kept: volumes are based on it", extra={"image": uid})
        else:
            _remove(image)


def _backing(volume: Path) -> str | None:
    try:
        return read_header(volume).backing
    except (DriverError, FileNotFoundError):
        return None


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
