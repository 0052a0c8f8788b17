"""Certificates say who is who; logs carry their context; a taken port is named."""

from __future__ import annotations

import json
import logging
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from common import logs
from common.pki import Authority, Peer, client_context, peer_of, server_context
from common.web import PortTaken, add_probes, serve


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "pki")


async def _who_am_i(request: web.Request) -> web.Response:
    peer = peer_of(request)
    if peer is None:
        return web.json_response(None)
    return web.json_response(
        {"cn": peer.common_name, "o": sorted(peer.organizations), "dns": sorted(peer.dns)}
    )


async def test_mutual_tls_tells_the_server_who_calls(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue(tmp_path, "s", common_name="s", dns=["s.example"], server=True)
    client = authority.issue(
        tmp_path, "c", common_name="c", organizations=["ops", "dev"], dns=["c.example"], client=True
    )
    app = web.Application()
    app.router.add_get("/", _who_am_i)
    context = server_context(server, authority.ca, client_certificates="optional")
    running = await serve(app, "127.0.0.1", 0, flag="--port", ssl_context=context)
    url = f"https://127.0.0.1:{running.port}/"
    try:
        async with aiohttp.ClientSession() as session:
            known = client_context(authority.ca, client)
            async with session.get(url, ssl=known, server_hostname="s.example") as reply:
                assert await reply.json() == {"cn": "c", "o": ["dev", "ops"], "dns": ["c.example"]}
        async with aiohttp.ClientSession() as session:
            unknown = client_context(authority.ca, None)
            async with session.get(url, ssl=unknown, server_hostname="s.example") as reply:
                assert await reply.json() is None
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(url, ssl=unknown, server_hostname="other.example")
    finally:
        await running.close()


async def test_a_stranger_is_refused(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue(tmp_path, "s", common_name="s", dns=["s.example"], server=True)
    stranger = Authority.create(tmp_path / "other").issue(
        tmp_path, "x", common_name="x", client=True
    )
    context = server_context(server, authority.ca, client_certificates="required")
    running = await serve(web.Application(), "127.0.0.1", 0, flag="--port", ssl_context=context)
    try:
        async with aiohttp.ClientSession() as session:
            for pair in (None, stranger):
                with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                    await session.get(
                        f"https://127.0.0.1:{running.port}/",
                        ssl=client_context(authority.ca, pair),
                        server_hostname="s.example",
                    )
    finally:
        await running.close()


def test_keys_are_private_and_kept(authority: Authority, tmp_path: Path) -> None:
    first = authority.issue(tmp_path, "s", common_name="s", dns=["a"], server=True)
    before = first.cert.read_bytes()
    assert first.key.stat().st_mode & 0o777 == 0o600
    assert (authority.directory / "ca.key").stat().st_mode & 0o777 == 0o600
    assert Authority.create(authority.directory).certificate == authority.certificate
    authority.issue(tmp_path, "s", common_name="s", dns=["a"], server=True)
    assert first.cert.read_bytes() == before
    authority.issue(tmp_path, "s", common_name="s", dns=["b"], server=True)
    assert first.cert.read_bytes() != before


def test_peer_of_plain_certificate() -> None:
    from common.pki import _peer

    assert _peer({}) == Peer("", frozenset(), frozenset())


async def test_a_taken_port_names_port_and_flag() -> None:
    first = await serve(web.Application(), "127.0.0.1", 0, flag="--a")
    try:
        with pytest.raises(PortTaken, match=rf"port {first.port} .*--api-port"):
            await serve(web.Application(), "127.0.0.1", first.port, flag="--api-port")
    finally:
        await first.close()


async def test_probes() -> None:
    state: list[bool | str] = ["waiting for the API"]
    app = web.Application()
    add_probes(app, lambda: state[0])
    running = await serve(app, "127.0.0.1", 0, flag="--port")
    base = f"http://127.0.0.1:{running.port}"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/readyz") as reply:
                assert (reply.status, await reply.text()) == (503, "waiting for the API")
            state[0] = True
            async with session.get(f"{base}/readyz") as reply:
                assert reply.status == 200
            async with session.get(f"{base}/healthz") as reply:
                assert reply.status == 200
            async with session.get(f"{base}/metrics") as reply:
                assert "python_info" in await reply.text()
    finally:
        await running.close()


def _record(message: str, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "t", **extra})


def test_records_carry_bound_and_own_fields() -> None:
    with logs.bind(kind="Zone", name="z"), logs.bind(operation="1"):
        entry = json.loads(logs.JsonFormatter().format(_record("hello", host="h")))
    assert {k: entry[k] for k in ("kind", "name", "operation", "host", "message")} == {
        "kind": "Zone",
        "name": "z",
        "operation": "1",
        "host": "h",
        "message": "hello",
    }
    outside = json.loads(logs.JsonFormatter().format(_record("bye")))
    assert "kind" not in outside


def test_text_ends_with_fields() -> None:
    with logs.bind(kind="Zone"):
        assert logs.TextFormatter().format(_record("hello")).endswith("INFO    hello kind=Zone")
