"""The controller's certificate: who it is to agents and API servers, and how it is renewed.

It is a client's (organisation ``kumulus:controllers``) and a server's at once. Agents know the
callback server by the name CONTROLLER, wherever it is, so that all replicas can share one
certificate; API servers know the webhook by the name that they were told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from prometheus_client import Gauge

from agents.wire import CONTROLLER, CONTROLLERS
from common.pki import Authority, CertPair

log = logging.getLogger(__name__)

STEM = "controller"
LOOK_SECONDS = 60.0
WARN_SECONDS = 30 * 86400.0
EXPIRY = Gauge(
    "kumulus_certificate_expiry_timestamp_seconds", "When the controller's certificate ends."
)


def pair_in(directory: Path) -> CertPair:
    """Where the controller's certificate and key are, or are to be put."""
    return CertPair(directory / f"{STEM}.crt", directory / f"{STEM}.key")


def issue(authority: Authority, directory: Path, names: Iterable[str]) -> CertPair:
    """``controller.crt`` and ``.key`` in ``directory``. ``names``: host names and IP addresses that
    others call the controller by."""
    unique = sorted(set(names))
    return authority.issue(
        directory,
        STEM,
        common_name="kumulus-controller",
        organizations=(CONTROLLERS,),
        dns=(CONTROLLER, *(name for name in unique if not is_address(name))),
        ips=[name for name in unique if is_address(name)],
        server=True,
        client=True,
    )


def is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ip_address(name)
        return True
    return False


@dataclass
class Renewals:
    """Takes new certificates into use, and makes them where it can: without a restart, for
    connections that begin from then on.

    ``find``: the CA's certificate and our pair; it may renew the pair. ``contexts``: what uses
    them. A pair that does not fit together (half of it has been written) is looked at again.
    """

    find: Callable[[], tuple[Path, CertPair]]
    contexts: Collection[ssl.SSLContext]
    now: Callable[[], float] = time.time
    _used: tuple[bytes, ...] = field(default=(), init=False)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except (OSError, ValueError) as error:  # SSLError is an OSError
                log.warning("certificates not renewed", extra={"why": str(error)})
            except Exception:
                log.exception("certificates not renewed")
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> bool:
        """Take what is new; was anything? Raises OSError and ValueError."""
        ca, pair = self.find()
        found = tuple(path.read_bytes() for path in (ca, pair.cert, pair.key))
        if found == self._used:
            return False
        first = not self._used
        if not first:
            # A pair that does not fit would spoil a context that is in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair.cert, pair.key)
            for context in self.contexts:
                context.load_cert_chain(pair.cert, pair.key)
                context.load_verify_locations(ca)
        self._used = found
        self._tell(found[1], first=first)
        return not first

    def _tell(self, pem: bytes, *, first: bool) -> None:
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
        EXPIRY.set(end.timestamp())
        if end.timestamp() - self.now() < WARN_SECONDS:
            log.error("the certificate ends soon; renew it", extra={"end": end.isoformat()})
        elif not first:
            log.info("a new certificate is in use", extra={"end": end.isoformat()})
