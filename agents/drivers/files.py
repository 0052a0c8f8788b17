"""The driver of an image store: a directory of this machine, served over HTTPS.

Options: ``files``, the one directory from which ``file://`` URLs may be read; ``largest``, the
bytes that an image may have (1 TiB).
"""

from __future__ import annotations

from pathlib import Path

from agents.drivers.base import Actions, DriverContext, DriverError
from agents.ops.download import DownloadLimits
from agents.ops.facts import boot_id, facts_of, read_machine
from agents.ops.image_store import ImageStore
from agents.wire import (
    AGENT_VERSION,
    Facts,
    ImageAddArgs,
    ImageRemoveArgs,
    Inventory,
    Ping,
    StorageArgs,
    Wire,
)


class FilesDriver:
    """Implements drivers.base.Driver for role store."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._boot_id = boot_id()
        self._actions = Actions()
        self._actions.on("store.ensure", StorageArgs, store.ensure)
        self._actions.on("image.add", ImageAddArgs, store.add)
        self._actions.on("image.remove", ImageRemoveArgs, store.remove)

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        return None

    async def execute(self, action: str, resource: str, args: Wire) -> Wire:
        return await self._actions.run(action, resource, args)

    async def ping(self) -> Ping:
        return Ping(boot_id=self._boot_id)

    async def facts(self) -> Facts:
        return facts_of(await read_machine(), "none", AGENT_VERSION)

    async def inventory(self) -> Inventory:
        return Inventory(images=await self._store.images())

    async def image_file(self, file: str) -> Path:
        return await self._store.file(file)


def files(context: DriverContext) -> FilesDriver:
    """DriverFactory."""
    if context.agent.role != "store":
        raise DriverError("unsupported", "the driver files serves stores; a host needs libvirt")
    allowed = context.options.get("files")
    largest = context.options.get("largest", str(DownloadLimits.largest))
    if not largest.isdecimal():
        raise DriverError("invalid", f"option largest: {largest!r} is no number of bytes")
    store = ImageStore(
        context.data_dir / "stores.json",
        Path(allowed) if allowed else None,
        DownloadLimits(largest=int(largest)),
    )
    return FilesDriver(store)
