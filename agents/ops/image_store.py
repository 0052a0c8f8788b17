"""Images in a directory of this machine (backup storage of type HTTP).

::

    <path>/<image uid>.<format>     the image, as it is served
    <path>/.<image uid>.json        what is known of it: without it the image does not count

A file appears under its name only when it is complete and verified. Nothing else in the directory
is touched, or served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import BinaryIO, get_args
from urllib.parse import unquote, urlsplit

from agents.drivers.base import DriverError
from agents.ops.download import (
    CHUNK,
    Downloaded,
    DownloadLimits,
    Sink,
    Source,
    downloaded,
    received,
)
from agents.ops.files import is_temporary, read_json, temporary_for, write_atomically
from agents.ops.qcow2 import checked_virtual_size
from agents.wire import (
    Empty,
    ImageAddArgs,
    ImageAddResult,
    ImageRemoveArgs,
    StorageArgs,
    StorageResult,
)


class ImageStore:
    """The actions on a store's images."""

    def __init__(
        self, known: Path, files: Path | None = None, limits: DownloadLimits | None = None
    ) -> None:
        """known: file that remembers the image directories. files: the one directory from which
        ``file://`` URLs may be read; None: from nowhere."""
        self._known = known
        self._files = files
        self._limits = limits or DownloadLimits()

    async def open(self) -> None:
        """Remove what a killed process left half-made."""
        await asyncio.to_thread(self._sweep)

    async def ensure(self, resource: str, args: StorageArgs) -> StorageResult:
        return await asyncio.to_thread(self._ensure, _directory(args.path))

    async def add(self, resource: str, args: ImageAddArgs) -> ImageAddResult:
        directory = _directory(args.path)
        if not directory.is_dir():
            raise DriverError(
                "not-found", f"{directory} does not exist; store.ensure makes it an image directory"
            )
        if args.adopt is not None:
            return await asyncio.to_thread(_adopt, directory, args.adopt, resource)
        there = await asyncio.to_thread(_known_image, directory, resource)
        if there is not None:
            return there
        image = directory / f"{resource}.{args.format}"
        async with self._obtained(args.url, image) as download:
            download.verify(args.checksum)
            size = await asyncio.to_thread(checked_virtual_size, download.temporary, args.format)
            await download.keep(image)
        result = ImageAddResult(
            file=image.name,
            virtual_size=size,
            actual_size=download.size,
            checksum=download.checksums["sha256"],
        )
        note = result.model_dump_json(by_alias=True).encode()
        await asyncio.to_thread(write_atomically, _note_of(directory, resource), note)
        return result

    async def remove(self, resource: str, args: ImageRemoveArgs) -> Empty:
        await asyncio.to_thread(_remove, _directory(args.path), resource)
        return Empty()

    async def images(self) -> list[str]:
        """uids of the images that are there."""
        return await asyncio.to_thread(self._images)

    async def file(self, name: str) -> Path:
        """The complete image that is served as ``name``. Raises DriverError not-found."""
        found = await asyncio.to_thread(self._find, name)
        if found is None:
            raise DriverError("not-found", f"there is no image {name} here")
        return found

    def _obtained(self, url: str, image: Path) -> AbstractAsyncContextManager[Downloaded]:
        if not url.startswith("file:"):
            return downloaded(Source(url), image, self._limits)
        path = self._local(url)
        return received(image, self._limits.largest, lambda sink: _copy(path, sink))

    def _local(self, url: str) -> Path:
        """The file of a ``file://`` URL, if it may be read. Links are followed first."""
        parts = urlsplit(url)
        path = Path(unquote(parts.path)).resolve()
        if self._files is None or parts.netloc not in ("", "localhost"):
            allowed = False
        else:
            allowed = path.is_relative_to(self._files.resolve())
        if not allowed:
            where = f"from {self._files}" if self._files else "if the agent is given --option files"
            raise DriverError("invalid", f"{url}: file:// URLs are read only {where}")
        return path

    def _ensure(self, directory: Path) -> StorageResult:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DriverError("invalid", f"path: {directory}: {error.strerror}") from None
        if not os.access(directory, os.W_OK | os.X_OK):
            raise DriverError("invalid", f"path: {directory} is not writable for the agent")
        self._remember(directory)
        room = os.statvfs(directory)
        return StorageResult(
            total=room.f_blocks * room.f_frsize, available=room.f_bavail * room.f_frsize
        )

    def _directories(self) -> list[Path]:
        return [Path(path) for path in read_json(self._known) or []]

    def _remember(self, directory: Path) -> None:
        known = self._directories()
        if directory not in known:
            paths = sorted(str(path) for path in [*known, directory])
            write_atomically(self._known, json.dumps(paths).encode())

    def _sweep(self) -> None:
        for directory in self._directories():
            for path in _files(directory):
                if is_temporary(path):
                    path.unlink(missing_ok=True)

    def _images(self) -> list[str]:
        return sorted({uid for directory in self._directories() for uid in _noted(directory)})

    def _find(self, name: str) -> Path | None:
        uid = name.rpartition(".")[0]
        for directory in self._directories():
            known = _known_image(directory, uid)
            if known is not None and known.file == name:
                return directory.resolve() / name
        return None


def _directory(path: str) -> Path:
    """Raises DriverError ``invalid`` for a path that points elsewhere than it says."""
    if {".", ".."} & set(path.split("/")):
        raise DriverError("invalid", f"path: {path!r} must not contain . or ..")
    return Path(path)


def _note_of(directory: Path, uid: str) -> Path:
    return directory / f".{uid}.json"


def _known_image(directory: Path, uid: str) -> ImageAddResult | None:
    """What is known of a complete image: its note, and a regular file (no link) of that size."""
    note = read_json(_note_of(directory, uid)) if _plain(uid) else None
    if note is None:
        return None
    result = ImageAddResult.model_validate(note)
    with contextlib.suppress(FileNotFoundError):
        found = (directory / result.file).lstat()
        if stat.S_ISREG(found.st_mode) and found.st_size == result.actual_size:
            return result
    return None


def _adopt(directory: Path, old: str, new: str) -> ImageAddResult:
    """Give a stored image to another uid. It has both names until the new one is complete, so that
    whoever is killed here begins anew."""
    there = _known_image(directory, new)
    if there is None:
        known = _known_image(directory, old)
        if known is None:
            raise DriverError("not-found", f"there is no image {old} in {directory}")
        file = f"{new}.{known.file.rpartition('.')[2]}"
        with contextlib.suppress(FileExistsError):
            (directory / file).hardlink_to(directory / known.file)
        there = known.model_copy(update={"file": file})
        write_atomically(_note_of(directory, new), there.model_dump_json(by_alias=True).encode())
    _remove(directory, old)
    return there


def _noted(directory: Path) -> list[str]:
    """uids of the complete images in a directory."""
    uids = [p.name[1 : -len(".json")] for p in _files(directory) if p.match(".*.json")]
    return [uid for uid in uids if _known_image(directory, uid) is not None]


def _remove(directory: Path, uid: str) -> None:
    # The note first: from then on the image does not count, whatever happens.
    _note_of(directory, uid).unlink(missing_ok=True)
    for image_format in get_args(ImageAddArgs.model_fields["format"].annotation):
        image = directory / f"{uid}.{image_format}"
        image.unlink(missing_ok=True)
        temporary_for(image).unlink(missing_ok=True)


async def _copy(path: Path, sink: Sink) -> None:
    """Raises DriverError ``not-found`` for what is not a readable file."""
    file, size = await asyncio.to_thread(_open_regular, path)
    with file:
        sink.expect(size)
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            await asyncio.to_thread(sink.write, chunk)


def _open_regular(path: Path) -> tuple[BinaryIO, int]:
    """The file and its size. Non-blocking, for opening a pipe would wait for its other end."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb")
    except OSError as error:
        raise DriverError("not-found", f"{path}: {error.strerror}") from None
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise DriverError("not-found", f"{path} is not a regular file")
    return file, found.st_size


def _files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _plain(uid: str) -> bool:
    return "/" not in uid and uid not in ("", ".", "..")
