"""A host fetching an image from a store, over mutual TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

from yarl import URL

from agents.ops.download import DownloadLimits, Source, downloaded
from agents.wire import ImageSource, server_name


async def fetch_image(
    source: ImageSource,
    destination: Path,
    ssl_context: ssl.SSLContext,
    *,
    limits: DownloadLimits | None = None,
) -> None:
    """Bring the image to ``destination``: whole and with its checksum verified, or not at all.

    ssl_context shows the host's certificate; the server must be the store that ``source`` names,
    wherever it listens. The directory exists. A leftover of a killed process is overwritten;
    nothing is left behind by a failure. Raises DriverError: unreachable, not-found, checksum,
    no-space.
    """
    where = Source(
        image_url(source), tls=ssl_context, server_name=server_name(source.store, "store")
    )
    async with downloaded(where, destination, limits) as download:
        download.verify(source.checksum)
        await download.keep(destination)


def image_url(source: ImageSource) -> str:
    """Where the store serves the image."""
    path = f"/v1/agents/{source.store}/images/{source.file}"
    return str(URL.build(scheme="https", host=source.address, port=source.port, path=path))
