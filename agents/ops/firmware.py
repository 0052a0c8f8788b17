"""The guest's firmware: is there what it asks for?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agents.drivers.base import DriverError
from agents.drivers.domain import EFI
from agents.wire import VmArgs

PACKAGES = {"x86_64": "ovmf", "aarch64": "qemu-efi-aarch64"}


async def check_firmware(
    args: VmArgs, firmwares: Callable[[str], Awaitable[frozenset[str]]]
) -> None:
    """Raises DriverError ``unsupported`` if the host has none. ``firmwares``: architecture → what
    the hypervisor can find."""
    if args.boot_mode == "UEFI" and EFI not in await firmwares(args.architecture):
        raise DriverError(
            "unsupported",
            f"boot mode UEFI: the host has no UEFI firmware for {args.architecture} guests; "
            f"apt-get install {PACKAGES[args.architecture]}, or give the VM the system tag "
            "bootMode::BIOS",
        )
