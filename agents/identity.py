"""Who an agent is to its clients: one certificate per agent, chosen by TLS server name.

A process that serves several agents shows each client the certificate of the agent that it asked
for (SNI); the handlers later see which one that was. Certificates are files in a directory
(``<name>.<role>.crt`` and ``.key``, with ``ca.crt`` beside them), or, for the simulator, issued
from a certificate authority when they are first asked for.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from aiohttp import web

from agents.drivers.base import AgentId
from common.pki import Authority, CertPair, Peer, client_context, server_context

log = logging.getLogger(__name__)
_SERVER_NAME = re.compile(r"([a-z0-9]([a-z0-9.-]{0,180}[a-z0-9])?)\.(host|store)\.kumulus\.dev")


class NoCertificate(Exception):
    """An agent's certificate is missing. The message names the files."""


class Certificates(Protocol):
    """Where certificates come from."""

    @property
    def ca(self) -> Path:
        """The authority that peers must be from."""

    def pair(self, agent: AgentId) -> CertPair | None:
        """The agent's certificate for serving and calling; None: not an agent of ours."""

    def fallback(self) -> CertPair:
        """Shown to clients that name no agent: probes and metrics scrapers."""


class DirectoryCertificates:
    """Certificates that somebody put into a directory: one agent's or several's."""

    def __init__(self, directory: Path, agents: Iterable[AgentId]) -> None:
        """Raises NoCertificate."""
        self._pairs = {agent: _find(directory, agent) for agent in agents}
        self._ca = directory / "ca.crt"
        if not self._ca.is_file():
            raise NoCertificate(f"{self._ca} is missing: put the cloud's CA certificate there")

    @property
    def ca(self) -> Path:
        return self._ca

    def pair(self, agent: AgentId) -> CertPair | None:
        return self._pairs.get(agent)

    def fallback(self) -> CertPair:
        return next(iter(self._pairs.values()))


class MintedCertificates:
    """Certificates issued on demand, for any name: who holds the CA's key may pose as anyone."""

    def __init__(self, ca_directory: Path, directory: Path, most: int = 10_000) -> None:
        """directory: where issued certificates are kept. Raises FileNotFoundError without a CA.

        most: agents that it poses as; further names are unknown.
        """
        self._authority = Authority.load(ca_directory)
        self._directory = directory
        self._most = most
        self._pairs: dict[AgentId, CertPair] = {}

    @property
    def ca(self) -> Path:
        return self._authority.ca

    def pair(self, agent: AgentId) -> CertPair | None:
        if agent not in self._pairs:
            if len(self._pairs) >= self._most:
                return None
            self._pairs[agent] = self._authority.issue(
                self._directory,
                f"{agent.name}.{agent.role}",
                common_name=agent.server_name[:64],
                dns=[agent.server_name],
                server=True,
                client=True,
            )
        return self._pairs[agent]

    def fallback(self) -> CertPair:
        return self._authority.issue(
            self._directory,
            "agents",
            common_name="kumulus agents",
            dns=["localhost"],
            ips=["127.0.0.1", "::1"],
            server=True,
        )


class Identities:
    """TLS contexts of the agents of this process."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._servers: dict[AgentId, ssl.SSLContext] = {}
        self._clients: dict[AgentId, ssl.SSLContext] = {}
        self._agents: dict[ssl.SSLContext, AgentId] = {}

    def server_tls(self) -> ssl.SSLContext:
        """For listening: verifies a client's certificate if it shows one; picks ours by SNI."""
        context = self._context(self._certificates.fallback())
        context.sni_callback = self._choose
        return context

    def client_tls(self, agent: AgentId) -> ssl.SSLContext:
        """For calling others as ``agent``. Raises NoCertificate."""
        if agent not in self._clients:
            pair = self._certificates.pair(agent)
            if pair is None:
                raise NoCertificate(f"no certificate for {agent.server_name}")
            self._clients[agent] = client_context(self._certificates.ca, pair)
        return self._clients[agent]

    def agent_of(self, request: web.Request) -> AgentId | None:
        """The agent that the client asked for by TLS server name; None: it named none of ours."""
        transport = request.transport
        found = transport.get_extra_info("ssl_object") if transport is not None else None
        return None if found is None else self._agents.get(found.context)

    def _choose(
        self, tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> int | None:
        """The handshake's callback. Returning None goes on; unknown names get the fallback."""
        agent = parse_server_name(name or "")
        if agent is None:
            return None
        try:
            context = self._server(agent)
        except (OSError, ssl.SSLError, ValueError):
            log.exception("no TLS for %s", agent.server_name)
            return int(ssl.ALERT_DESCRIPTION_INTERNAL_ERROR)
        if context is not None:
            tls.context = context
        return None

    def _server(self, agent: AgentId) -> ssl.SSLContext | None:
        if agent not in self._servers:
            pair = self._certificates.pair(agent)
            if pair is None:
                return None
            context = self._context(pair)
            self._servers[agent] = context
            self._agents[context] = agent
        return self._servers[agent]

    def _context(self, pair: CertPair) -> ssl.SSLContext:
        return server_context(pair, self._certificates.ca, client_certificates="optional")


def parse_server_name(name: str) -> AgentId | None:
    """``host-1.host.kumulus.dev`` → host-1, host. None for names that are no agent's."""
    match = _SERVER_NAME.fullmatch(name.lower())
    if match is None:
        return None
    return AgentId(match[1], "host" if match[3] == "host" else "store")


def is_host(peer: Peer) -> bool:
    """Is the client a host's agent?"""
    agents = (parse_server_name(name) for name in peer.dns)
    return any(agent is not None and agent.role == "host" for agent in agents)


def _find(directory: Path, agent: AgentId) -> CertPair:
    stem = f"{agent.name}.{agent.role}"
    pair = CertPair(directory / f"{stem}.crt", directory / f"{stem}.key")
    missing = [str(path) for path in (pair.cert, pair.key) if not path.is_file()]
    if missing:
        raise NoCertificate(
            f"{' and '.join(missing)} missing: the agent needs a certificate for "
            f"{agent.server_name}, signed by the cloud's CA"
        )
    return pair
