"""The controller's certificate, and how a new one is taken into use."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.wire import CONTROLLER, CONTROLLERS
from common.pki import Authority, CertPair, client_context, server_context
from controller import tls
from controller.cli.output import CommandFailed
from controller.cli.pki import issue_controller

YEAR = 365 * 86400.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca")


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes:
    """A handshake; the server's certificate as the client saw it. Raises SSLError."""
    ours, theirs = socket.socketpair()
    failed: list[ssl.SSLError] = []

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as accepted:
                accepted.recv(1)
        except ssl.SSLError as error:
            failed.append(error)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as connection:
            found = connection.getpeercert(binary_form=True)
            connection.send(b"x")
    finally:
        ours.close()
        thread.join(10)
    assert found is not None
    return found


def test_a_controller_is_known_by_one_name_and_those_it_is_given(authority: Authority) -> None:
    pair = tls.issue(authority, authority.directory, ["10.0.0.7", "x.ns.svc", "x.ns.svc"])
    server = server_context(pair, authority.ca, client_certificates="none")
    client = client_context(authority.ca, None)
    for name in (CONTROLLER, "x.ns.svc", "10.0.0.7"):
        shake(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, client, "host-1.host.kumulus.dev")


def renewals(
    authority: Authority, find: Callable[[], CertPair], server: ssl.SSLContext, now: float = 0.0
) -> tls.Renewals:
    return tls.Renewals(lambda: (authority.ca, find()), (server,), lambda: now)


def test_a_new_certificate_is_used_for_new_connections(authority: Authority) -> None:
    names = ["a.svc"]
    pair = tls.issue(authority, authority.directory, names)
    server = server_context(pair, authority.ca, client_certificates="none")
    client = client_context(authority.ca, None)
    looking = renewals(authority, lambda: tls.issue(authority, authority.directory, names), server)
    before = shake(server, client, CONTROLLER)
    assert looking.look() is False
    assert looking.look() is False
    assert shake(server, client, CONTROLLER) == before
    names.append("b.svc")  # another certificate is due
    assert looking.look() is True
    assert shake(server, client, "b.svc") != before
    assert looking.look() is False


def test_half_a_pair_is_looked_at_again(authority: Authority, tmp_path: Path) -> None:
    pair = tls.issue(authority, authority.directory, [])
    server = server_context(pair, authority.ca, client_certificates="none")
    client = client_context(authority.ca, None)
    looking = renewals(authority, lambda: pair, server)
    looking.look()
    before = shake(server, client, CONTROLLER)
    other = tls.issue(authority, tmp_path / "other", ["new.svc"])
    pair.cert.write_bytes(other.cert.read_bytes())
    with pytest.raises(OSError):
        looking.look()
    assert shake(server, client, CONTROLLER) == before
    pair.key.write_bytes(other.key.read_bytes())
    assert looking.look() is True
    shake(server, client, "new.svc")


@pytest.mark.parametrize(("left", "told"), [(40, False), (20, True)])
def test_an_end_that_is_near_is_told(
    authority: Authority, caplog: pytest.LogCaptureFixture, left: int, told: bool
) -> None:
    pair = tls.issue(authority, authority.directory, [])
    server = server_context(pair, authority.ca, client_certificates="none")
    looking = renewals(authority, lambda: pair, server, time.time() + YEAR - left * 86400)
    with caplog.at_level(logging.ERROR):
        looking.look()
    assert ("ends soon" in caplog.text) is told


def test_the_command_writes_what_a_controller_needs(authority: Authority, tmp_path: Path) -> None:
    out = tmp_path / "out"
    issue_controller(["x.ns.svc"], out, authority.directory)
    assert {path.name for path in out.iterdir()} == {"ca.crt", "controller.crt", "controller.key"}
    assert not (out / "ca.key").exists()
    pair = CertPair(out / "controller.crt", out / "controller.key")
    server = server_context(pair, out / "ca.crt", client_certificates="none")
    shake(server, client_context(out / "ca.crt", None), "x.ns.svc")
    assert CONTROLLERS.encode() in shake(server, client_context(out / "ca.crt", None), CONTROLLER)
    with pytest.raises(CommandFailed, match="no certificate authority"):
        issue_controller([], out, tmp_path / "nowhere")
