"""A pretended image store: it accepts any URL and fetches none."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from urllib.parse import urlsplit

from agents.drivers.base import DriverError
from agents.drivers.simulated.machine import Machine
from agents.drivers.simulated.records import StoredImage
from agents.wire import Empty, ImageAddArgs, ImageAddResult, ImageRemoveArgs, StorageResult


class Depot:
    """Rules of a store, over a machine's records. Hosts below ``.invalid`` (RFC 2606: they never
    exist) cannot be reached, as in the real world."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def ensure(self, path: str) -> StorageResult:
        return self._machine.make_storage(path)

    def add(self, resource: str, args: ImageAddArgs) -> ImageAddResult:
        there = self._machine.images.get(resource)
        if there is None and args.adopt is not None:
            there = self._adopt(args.adopt, resource)
        elif there is None:
            there = self._fetch(resource, args)
            self._machine.images.put(resource, there)
        return ImageAddResult(
            file=there.file,
            virtual_size=there.virtual_size,
            actual_size=there.actual,
            checksum=there.checksum,
        )

    def remove(self, resource: str, args: ImageRemoveArgs) -> Empty:
        self._machine.images.drop(resource)
        return Empty()

    def _adopt(self, old: str, new: str) -> StoredImage:
        known = self._machine.images.get(old)
        if known is None:
            raise DriverError("not-found", f"there is no image {old} here")
        self._machine.images.drop(old)
        adopted = replace(known, file=f"{new}.{known.file.rpartition('.')[2]}")
        self._machine.images.put(new, adopted)
        return adopted

    def _fetch(self, resource: str, args: ImageAddArgs) -> StoredImage:
        self._machine.check_storage(args.path)
        host = urlsplit(args.url).hostname or ""
        if host == "invalid" or host.endswith(".invalid"):
            raise DriverError("unreachable", f"{host}: no such host; correct the image's url")
        virtual, actual = self._machine.capacity.image
        if actual > self._machine.available():
            raise DriverError(
                "no-space", f"{args.path} has no {actual} bytes left for image {resource}"
            )
        return StoredImage(
            args.path, f"{resource}.{args.format}", virtual, actual, pretended_checksum(args)
        )


def pretended_checksum(args: ImageAddArgs) -> str:
    """The sha256 that was promised; for lack of one, that of the URL."""
    if args.checksum is not None and args.checksum.startswith("sha256:"):
        return args.checksum
    return "sha256:" + hashlib.sha256(args.url.encode()).hexdigest()
