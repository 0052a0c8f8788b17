"""Who gets in, what is bounded, where files lie."""

from __future__ import annotations

import ssl
import stat
import urllib.error
import urllib.request

import pytest

from common import pki
from tests.conformance.conftest import Widgets
from tests.support.apiserver import ApiServerProcess


def _get(server: ApiServerProcess, path: str, pair: pki.CertPair | None, **headers: str) -> int:
    context = ssl.create_default_context(cafile=str(server.pki / "ca.crt"))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    request = urllib.request.Request(server.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_strangers_see_health_and_version_alone(api_server: ApiServerProcess) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert _get(api_server, path, None) == 200
    for path in ("/api/v1/namespaces", "/apis", "/metrics", "/openapi/v2", "/api/v1/secrets"):
        assert _get(api_server, path, None) == 401
        assert _get(api_server, path, None, Authorization="Bearer guessed") == 401


def test_a_certificate_alone_is_no_permission(api_server: ApiServerProcess) -> None:
    """An agent's certificate is of the same authority; it may not use the API."""
    authority = pki.Authority.load(api_server.pki)
    agent = authority.issue(api_server.pki, "agent", common_name="host-1", client=True)
    assert _get(api_server, "/api/v1/secrets", agent) == 403
    member = authority.issue(
        api_server.pki, "controller", common_name="controller",
        organizations=("kumulus:controllers",), client=True,
    )  # fmt: skip
    assert _get(api_server, "/apis", member) == 200
    # What a controller may do, its roles say, and here are none.
    assert _get(api_server, "/api/v1/events", member) == 403


def test_files_are_their_owners_alone(api_server: ApiServerProcess, widgets: Widgets) -> None:
    for path in (
        api_server.kubeconfig,
        api_server.directory / "apiserver.db",
        api_server.pki / "ca.key",
        api_server.pki / "admin.key",
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_body_may_not_be_larger_than_3_mib(widgets: Widgets) -> None:
    spec = {"size": 1, "free": {"x": "y" * (3 * 2**20)}}
    reply = widgets.cluster.post(widgets.path, widgets.make("x", spec))
    assert (reply.code, reply.json["reason"]) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/%2e%2e/secrets",
        "/apis//v1/x",
        "/api/v1/namespaces//configmaps",
        "/apis/conformance.kumulus.dev/v1/namespaces/default/widgets/a/b/c/d",
        "/apis/conformance.kumulus.dev/v1/widgets?labelSelector=%ff%00",
        "/apis/conformance.kumulus.dev/v1/widgets?fieldSelector=%5c%5c%3d",
        "/apis/conformance.kumulus.dev/v1/widgets?limit=99999999999999999999999",
        "/apis/conformance.kumulus.dev/v1/widgets?continue=eyJydiI6MX0",
        "/apis/conformance.kumulus.dev/v1/widgets?resourceVersion=%C2%B2",
    ],
)
def test_odd_requests_are_answered_plainly(widgets: Widgets, path: str) -> None:
    reply = widgets.cluster.get(path)
    assert reply.code < 500, reply.text
    assert "Traceback" not in reply.text


def test_large_lists_are_compressed_for_those_who_ask(widgets: Widgets) -> None:
    for at in range(3):
        widgets.create(f"x{at}", {"size": 1, "free": {"x": "y" * 60_000}})
    asked = widgets.cluster("GET", widgets.path, headers={"Accept-Encoding": "gzip"})
    assert asked.headers["content-encoding"] == "gzip"
    plain = widgets.cluster("GET", widgets.path)
    assert "content-encoding" not in plain.headers


def test_metrics_count_requests(widgets: Widgets) -> None:
    widgets.create("x")
    text = widgets.cluster.get("/metrics").text
    line = (
        'kumulus_apiserver_requests_total{code="201",resource="widgets.conformance.kumulus.dev",'
        'verb="create"} 1.0'
    )
    assert line in text
