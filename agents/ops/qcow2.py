"""What a qcow2 header says, read without running anything over a file that nobody has vetted."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from agents.drivers.base import DriverError

MAGIC = b"QFI\xfb"
# magic, version, backing file offset and length, cluster bits, virtual size
_FIXED = struct.Struct(">4sIQIIQ")
_FEATURES_AT = 72
_EXTERNAL_DATA = 1 << 2
_BACKING_NAME_MAX = 1023


@dataclass(frozen=True)
class Header:
    """virtual_size in bytes. backing: the file it is over, as it is written in the header.

    external_data: the guest's data are in another file.
    """

    virtual_size: int
    backing: str | None
    external_data: bool


def read_header(path: Path) -> Header:
    """Raises DriverError ``invalid`` for what is not a qcow2, FileNotFoundError."""
    with path.open("rb") as file:
        start = file.read(_FEATURES_AT + 8)
        if len(start) < _FIXED.size or not start.startswith(MAGIC):
            raise DriverError("invalid", f"{path.name} is not a qcow2 image")
        _, version, offset, length, _, size = _FIXED.unpack_from(start)
        if version not in (2, 3):
            raise DriverError("invalid", f"{path.name} is qcow2 of unknown version {version}")
        backing = None
        if offset:
            if length > _BACKING_NAME_MAX:
                raise DriverError("invalid", f"{path.name} has a broken qcow2 header")
            file.seek(offset)
            backing = file.read(length).decode(errors="replace")
    return Header(size, backing, version == 3 and _external_data(start))


def _external_data(start: bytes) -> bool:
    features = int.from_bytes(start[_FEATURES_AT : _FEATURES_AT + 8], "big")
    return bool(features & _EXTERNAL_DATA)


def checked_virtual_size(path: Path, image_format: str) -> int:
    """Bytes that a guest will see. Raises DriverError ``invalid`` for an image that would make
    the hypervisor open other files of the host (a backing or an external data file)."""
    if image_format != "qcow2":
        return path.stat().st_size
    header = read_header(path)
    if header.backing is not None or header.external_data:
        raise DriverError(
            "invalid",
            "the image refers to another file (backing or data file), which is not allowed; "
            "flatten it with: qemu-img convert -O qcow2",
        )
    return header.virtual_size
