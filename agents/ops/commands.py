"""Running programs: an argument list, never a shell; always with a timeout."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio.subprocess import DEVNULL, PIPE, Process

from agents.drivers.base import Code, DriverError

log = logging.getLogger(__name__)

PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "qemu-img": "qemu-utils",
}
SAID_AT_MOST = 500


async def run(
    *command: str, stdin: str | None = None, seconds: float = 30.0, code: Code = "hypervisor"
) -> str:
    """Run ``command`` and answer its standard output.

    The program is killed when ``seconds`` run out or the caller is cancelled.
    Raises DriverError: ``code`` with what the program said, ``no-space``, ``timeout``, or
    ``unsupported`` when it is not installed.
    """
    process = await _spawn(command, stdin is not None)
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except TimeoutError:
        raise DriverError("timeout", f"{command[0]} took longer than {seconds:g} s") from None
    finally:
        await _reap(process)
    if process.returncode:
        raise _failure(command, process.returncode, err.decode(errors="replace"), code)
    return out.decode(errors="replace")


async def _spawn(command: tuple[str, ...], feed: bool) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE if feed else DEVNULL, stdout=PIPE, stderr=PIPE
        )
    except FileNotFoundError:
        package = PACKAGES.get(command[0], command[0])
        raise DriverError(
            "unsupported", f"{command[0]} is not installed on this host: apt-get install {package}"
        ) from None


async def _reap(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _failure(command: tuple[str, ...], status: int, said: str, code: Code) -> DriverError:
    said = " ".join(said.split())[-SAID_AT_MOST:] or f"exit status {status}"
    log.debug("command failed", extra={"command": command[0], "status": status, "said": said})
    if "No space left" in said:
        return DriverError("no-space", f"{command[0]}: {said}")
    return DriverError(code, f"{command[0]}: {said}")
