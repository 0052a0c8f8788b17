"""kopf and the kubernetes client against the embedded server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.client import Cluster
from tests.conformance.conftest import Widgets, eventually
from tests.support.apiserver import ApiServerProcess

OPERATOR = textwrap.dedent(
    """
    import kopf, pathlib, sys

    LOG = pathlib.Path(sys.argv[-1]) if False else pathlib.Path(__import__("os").environ["SEEN"])

    @kopf.on.event("conformance.kumulus.dev", "v1", "widgets")
    def seen(type, name, **_):
        with LOG.open("a") as file:
            file.write(f"{type} {name}\\n")

    @kopf.on.create("conformance.kumulus.dev", "v1", "widgets")
    def made(patch, body, **_):
        patch.status["ready"] = True
        kopf.info(body, reason="Made", message="made by the operator")
    """
)


def test_a_kopf_operator_runs(
    widgets: Widgets, api_server: ApiServerProcess, tmp_path: Path
) -> None:
    seen, script = tmp_path / "seen", tmp_path / "operator.py"
    script.write_text(OPERATOR)
    widgets.create("before")
    with (tmp_path / "log").open("w") as log:
        operator = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "-A", "--standalone", str(script)],
            env={"KUBECONFIG": str(api_server.kubeconfig), "SEEN": str(seen), "PATH": "/usr/bin"},
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        eventually(lambda: _ready(widgets, "before"), 30)
        widgets.create("after")
        eventually(lambda: _ready(widgets, "after"), 30)
        widgets.cluster.delete(widgets.at("after")).ok()
        eventually(lambda: "DELETED after" in seen.read_text())
        eventually(lambda: "made by the operator" in _events(widgets))
    finally:
        operator.terminate()
        code = operator.wait(20)
    text = (tmp_path / "log").read_text()
    assert code == 0, text
    assert "Traceback" not in text
    assert {"None before", "ADDED after"} <= set(seen.read_text().splitlines())


def _ready(widgets: Widgets, name: str) -> bool:
    found = widgets.cluster.get(widgets.at(name)).json
    return bool(found.get("status", {}).get("ready"))


def _events(widgets: Widgets) -> str:
    return widgets.cluster.get("/api/v1/namespaces/default/events").text


def test_the_kubernetes_client_creates_and_watches(
    widgets: Widgets, api_server: ApiServerProcess
) -> None:
    from kubernetes import client, config, watch

    api = config.new_client_from_config(str(api_server.kubeconfig))
    custom = client.CustomObjectsApi(api)
    place = ("conformance.kumulus.dev", "v1", "default", "widgets")
    made = custom.create_namespaced_custom_object(*place, widgets.make("a"))
    custom.create_namespaced_custom_object(*place, widgets.make("b"))
    names = []
    for event in watch.Watch().stream(
        custom.list_namespaced_custom_object, *place,
        resource_version=made["metadata"]["resourceVersion"], timeout_seconds=1,
    ):  # fmt: skip
        names.append((event["type"], event["object"]["metadata"]["name"]))
    assert names == [("ADDED", "b")]
    core = client.CoreV1Api(api)
    core.create_namespaced_config_map(
        "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c"), data={"a": "b"})
    )
    assert core.read_namespaced_config_map("c", "default").data == {"a": "b"}
    with pytest.raises(client.ApiException) as refused:
        custom.get_namespaced_custom_object(*place, "none")
    assert refused.value.status == 404
    lease = client.V1Lease(
        metadata=client.V1ObjectMeta(name="l"),
        spec=client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=15),
    )
    leases = client.CoordinationV1Api(api)
    found = leases.create_namespaced_lease("default", lease)
    found.spec.holder_identity = "you"
    assert leases.replace_namespaced_lease("l", "default", found).spec.holder_identity == "you"
    with pytest.raises(client.ApiException) as conflict:
        leases.replace_namespaced_lease("l", "default", found)
    assert conflict.value.status == 409


async def test_the_asynchronous_client_watches(
    widgets: Widgets, api_server: ApiServerProcess
) -> None:
    from kubernetes.aio import client, config, watch

    configuration = client.Configuration()
    await config.load_kube_config(str(api_server.kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        custom = client.CustomObjectsApi(api)
        place = ("conformance.kumulus.dev", "v1", "default", "widgets")
        seen: list[tuple[str, str]] = []

        async def follow() -> None:
            stream = watch.Watch().stream(
                custom.list_namespaced_custom_object, *place, timeout_seconds=20
            )
            async for event in stream:
                wire: dict[str, Any] = event["object"]
                seen.append((event["type"], wire["metadata"]["name"]))
                if event["type"] == "DELETED":
                    stream.resp.close()  # or its connection ends with a warning, whenever that is
                    break

        await custom.create_namespaced_custom_object(*place, widgets.make("a"))
        task = asyncio.create_task(follow())
        async with asyncio.timeout(20):
            while not seen:
                await asyncio.sleep(0.02)
            await custom.delete_namespaced_custom_object(*place, "a")
            await task
    assert seen == [("ADDED", "a"), ("DELETED", "a")]


def test_two_versions_of_events_are_one_event(widgets: Widgets) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reason": "Grown",
        "note": "it has grown",
        "type": "Normal",
        "action": "Grow",
        "reportingController": "kumulus.dev/controller",
        "reportingInstance": "one",
        "regarding": {"kind": "Widget", "name": "x", "namespace": "default"},
    }
    post = widgets.cluster.post
    post("/apis/events.k8s.io/v1/namespaces/default/events", event).ok()
    core = widgets.cluster.get("/api/v1/namespaces/default/events/e").ok()
    assert core["involvedObject"]["name"] == "x"
    assert core["message"] == "it has grown"
    assert core["reportingComponent"] == "kumulus.dev/controller"
    selected = widgets.cluster.get(
        "/api/v1/namespaces/default/events", fieldSelector="involvedObject.name=x"
    ).ok()
    assert len(selected["items"]) == 1


def test_data_outlive_the_process(widgets: Widgets, api_server: ApiServerProcess) -> None:
    found = widgets.create("x", {"size": 3})
    api_server.stop()
    started = time.monotonic()
    api_server.start()
    assert time.monotonic() - started < 10
    widgets = Widgets(Cluster(api_server.kubeconfig), "default")
    again = widgets.cluster.get(widgets.at("x")).ok()
    assert again == found
    later = widgets.create("y")
    assert int(later["metadata"]["resourceVersion"]) > int(found["metadata"]["resourceVersion"])
