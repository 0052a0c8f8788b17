"""Downloading a file to a temporary place, hashed on the way.

A broken connection is taken up again where it broke when the server can do that (Range, with
If-Range so that a file that changed meanwhile starts anew). Nothing is kept of a download that
fails.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import aiohttp
from yarl import URL

from agents.drivers.base import Code, DriverError
from agents.ops.files import commit, temporary_for

CHUNK = 2**20
ALGORITHMS = ("sha256", "sha512")
_CHECKSUM = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class DownloadLimits:
    """largest: bytes of a file. connect, stall: seconds to connect, and without a byte coming.
    pause: seconds before a broken download goes on, doubled each time."""

    largest: int = 2**40
    connect: float = 10.0
    stall: float = 60.0
    redirects: int = 5
    attempts: int = 4
    pause: float = 1.0


@dataclass(frozen=True)
class Source:
    """Where to download from. tls, server_name: for an agent of the cloud; None: public rules."""

    url: str
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    @property
    def shown(self) -> str:
        """The URL without what may be secret (user, query)."""
        url = URL(self.url)
        return str(URL.build(scheme=url.scheme, host=url.host or "", port=url.port, path=url.path))


class Sink:
    """The file being written: counts and hashes what it gets. Its methods block."""

    def __init__(self, file: BinaryIO, largest: int) -> None:
        self._file = file
        self._largest = largest
        self._hashes = {name: hashlib.new(name) for name in ALGORITHMS}
        self.size = 0

    def write(self, data: bytes) -> None:
        """Raises DriverError no-space when the file is too large, or the disk full."""
        self.size += len(data)
        self.expect(self.size)
        for digest in self._hashes.values():
            digest.update(data)
        self._file.write(data)

    def expect(self, size: int) -> None:
        """Refuse at once what will not fit. Raises DriverError."""
        if size > self._largest:
            raise DriverError("no-space", f"the file is larger than {self._largest} bytes")

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hashes = {name: hashlib.new(name) for name in ALGORITHMS}
        self.size = 0

    def checksums(self) -> dict[str, str]:
        """algorithm → ``algorithm:hex``."""
        return {name: f"{name}:{digest.hexdigest()}" for name, digest in self._hashes.items()}


@dataclass(frozen=True)
class Downloaded:
    """A complete download, at a temporary path. checksums: algorithm → ``algorithm:hex``."""

    temporary: Path
    size: int
    checksums: dict[str, str]

    def verify(self, expected: str | None) -> None:
        """Raises DriverError ``checksum``; ``invalid`` for one that cannot be checked."""
        if expected is None:
            return
        if not _CHECKSUM.fullmatch(expected):
            raise DriverError("invalid", f"checksum {expected!r} is not sha256:… or sha512:…")
        found = self.checksums[expected.partition(":")[0]]
        if found != expected:
            raise DriverError(
                "checksum",
                f"the file has {found}, not {expected}: it was damaged on the way or is another; "
                "correct the image's url or checksum",
            )

    async def keep(self, path: Path) -> None:
        """Make it durable under its own name, at once or not at all."""
        await asyncio.to_thread(commit, self.temporary, path)


@asynccontextmanager
async def received(
    destination: Path, largest: int, fill: Callable[[Sink], Awaitable[None]]
) -> AsyncIterator[Downloaded]:
    """Let ``fill`` write a file next to ``destination``; ``keep`` it inside the context, else it
    is removed. A leftover of a killed process is overwritten. Raises DriverError."""
    temporary = temporary_for(destination)
    with _disk_errors(destination):
        try:
            with _open(temporary) as file:
                sink = Sink(file, largest)
                await fill(sink)
                await asyncio.to_thread(_flush, file)
            yield Downloaded(temporary, sink.size, sink.checksums())
        finally:
            temporary.unlink(missing_ok=True)


def downloaded(
    source: Source, destination: Path, limits: DownloadLimits | None = None
) -> AbstractAsyncContextManager[Downloaded]:
    """``received`` from a URL. Raises DriverError: unreachable, not-found, no-space, internal."""
    chosen = limits or DownloadLimits()
    return received(destination, chosen.largest, lambda sink: _fetch(source, sink, chosen))


async def _fetch(source: Source, sink: Sink, limits: DownloadLimits) -> None:
    timeout = aiohttp.ClientTimeout(
        total=None, connect=limits.connect, sock_connect=limits.connect, sock_read=limits.stall
    )
    validator: str | None = None
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        for attempt in range(limits.attempts):
            try:
                async with _request(session, source, sink.size, validator, limits) as response:
                    validator = await _receive(response, source, sink)
                    return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if isinstance(error, _Broken):
                    validator = error.validator
                if attempt + 1 == limits.attempts or not _worth_retrying(error):
                    raise _unreachable(source, error) from None
            await asyncio.sleep(limits.pause * 2.0**attempt)


class _Broken(aiohttp.ClientError):
    """A connection that broke in the body. validator: to go on with."""

    def __init__(self, cause: Exception, validator: str | None) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.validator = validator


@asynccontextmanager
async def _request(
    session: aiohttp.ClientSession,
    source: Source,
    offset: int,
    validator: str | None,
    limits: DownloadLimits,
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Accept-Encoding": "identity"}
    if offset and validator is not None:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    async with session.get(
        source.url,
        headers=headers,
        ssl=source.tls or True,
        server_hostname=source.server_name,
        max_redirects=limits.redirects,
    ) as response:
        yield response


async def _receive(response: aiohttp.ClientResponse, source: Source, sink: Sink) -> str | None:
    """The body into the sink. Raises _Broken with what lets another attempt go on."""
    _check_status(response, source)
    if response.status == 206:
        _check_range(response, sink.size)
    elif sink.size:
        await asyncio.to_thread(sink.restart)
    sink.expect(sink.size + (response.content_length or 0))
    validator = _validator(response)
    try:
        async for chunk in response.content.iter_chunked(CHUNK):
            await asyncio.to_thread(sink.write, chunk)
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise _Broken(error, validator) from error
    return validator


def _check_status(response: aiohttp.ClientResponse, source: Source) -> None:
    if response.status in (200, 206):
        return
    code: Code = "not-found" if response.status in (404, 410) else "unreachable"
    if response.status >= 500 or response.status == 429:
        raise aiohttp.ClientConnectionError(f"the server answered {response.status}")
    raise DriverError(code, f"{source.shown} answered {response.status} {response.reason}")


def _check_range(response: aiohttp.ClientResponse, offset: int) -> None:
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != offset:
        raise aiohttp.ClientPayloadError("the server sent another part than it was asked for")


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """What proves that the file is still the same: a strong ETag, or the time of its change."""
    etag = response.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _worth_retrying(error: Exception) -> bool:
    return not isinstance(
        error,
        aiohttp.TooManyRedirects | aiohttp.InvalidURL | aiohttp.ClientConnectorCertificateError,
    )


def _unreachable(source: Source, error: Exception) -> DriverError:
    if isinstance(error, aiohttp.TooManyRedirects):
        said = "it redirects too often"
    elif isinstance(error, TimeoutError):
        said = "it does not answer"
    else:
        said = str(error) or type(error).__name__
    if URL(source.url).query_string:
        said = said.replace(URL(source.url).query_string, "…")
    return DriverError(
        "unreachable", f"{source.shown} cannot be downloaded: {said}; check the URL and the server"
    )


@contextmanager
def _disk_errors(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code: Code = "no-space" if full else "internal"
        raise DriverError(code, f"{destination.parent}: {error.strerror or error}") from None


def _open(path: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o644), "w+b")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
