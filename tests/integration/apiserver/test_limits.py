"""What a client cannot do to the server: be slow, send too much, wait for ever."""

from __future__ import annotations

import json
import socket

from tests.conformance.client import MERGE
from tests.conformance.conftest import Widgets

MEBIBYTE = 2**20
CHANGES = 24


def test_a_watcher_that_does_not_read_is_dropped_with_410(widgets: Widgets) -> None:
    """Its queue has a bound in bytes (16 MiB): see also the store's unit tests."""
    made = widgets.create("x", {"size": 1, "free": {"x": ""}})
    connection = widgets.cluster.connection()
    try:
        connection.connect()
        assert connection.sock is not None
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**17)
        since = made["metadata"]["resourceVersion"]
        connection.request("GET", f"{widgets.path}?watch=1&resourceVersion={since}")
        answer = connection.getresponse()
        for number in range(CHANGES):
            patch = {"spec": {"free": {"x": f"{number:03}" * (MEBIBYTE // 3)}}}
            widgets.cluster("PATCH", widgets.at("x"), patch, content=MERGE).ok()
        events = [json.loads(line) for line in answer]
    finally:
        connection.close()
    assert events[-1]["type"] == "ERROR"
    assert (events[-1]["object"]["code"], events[-1]["object"]["reason"]) == (410, "Expired")
    assert len(events) < CHANGES


def test_a_body_that_does_not_come_ends_at_the_deadline(widgets: Widgets) -> None:
    connection = widgets.cluster.connection()
    try:
        connection.putrequest("POST", f"{widgets.path}?timeout=500ms")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b'{"metadata":')
        answer = connection.getresponse()
        status = json.loads(answer.read())
    finally:
        connection.close()
    assert (answer.status, status["reason"]) == (504, "Timeout")


def test_a_timeout_must_be_a_duration(widgets: Widgets) -> None:
    for good in ("10s", "1m30s", "0", ""):
        assert widgets.cluster("GET", widgets.path, query={"timeout": good}).code == 200
    refused = widgets.cluster("GET", widgets.path, query={"timeout": "soon"})
    assert refused.code == 400
    assert "invalid timeout" in refused.message


def test_headers_and_paths_are_bounded(widgets: Widgets) -> None:
    long = "x" * 70_000
    assert widgets.cluster("GET", widgets.path, headers={"X-Long": long}).code in (400, 431)
    assert widgets.cluster("GET", f"{widgets.path}/{long}").code in (400, 414)
    assert widgets.names() == []
