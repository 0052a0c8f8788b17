"""KEP-5866: server-side sharded list and watch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controller.apiserver.shards import fnv1a_64
from tests.conformance.client import Cluster
from tests.conformance.conftest import Widgets
from tests.conformance.pages import kep

LOW = "shardRange(object.metadata.uid, '0x0000000000000000', '0x8000000000000000')"
HIGH = "shardRange(object.metadata.uid, '0x8000000000000000', '0x10000000000000000')"
NAMES = [f"w{number:02}" for number in range(12)]


@pytest.fixture(autouse=True)
def supported(cluster: Cluster) -> None:
    """A server with the feature refuses a malformed selector; others ignore the parameter."""
    reply = cluster.get("/api/v1/configmaps", shardSelector="nonsense")
    if reply.code == 200:
        pytest.skip("this server has no server-side sharding")
    assert "invalid shard selector" in reply.message


@pytest.fixture
def uids(widgets: Widgets) -> Iterator[dict[str, str]]:
    found = {}
    for at, name in enumerate(NAMES):
        wire = widgets.create(name, {"size": 1}, labels={"parity": str(at % 2)})
        found[name] = wire["metadata"]["uid"]
    yield found


def of(uids: dict[str, str], *, high: bool) -> list[str]:
    return [name for name in NAMES if (fnv1a_64(uids[name]) >= 1 << 63) == high]


@kep(5866)
def test_a_list_has_the_objects_of_the_shard(widgets: Widgets, uids: dict[str, str]) -> None:
    assert widgets.names(shardSelector=LOW) == of(uids, high=False)
    assert widgets.names(shardSelector=HIGH) == of(uids, high=True)
    assert widgets.names(shardSelector=f"{LOW} || {HIGH}") == NAMES


@kep(5866)
def test_shards_go_with_other_selectors(widgets: Widgets, uids: dict[str, str]) -> None:
    odd = [name for name in of(uids, high=True) if NAMES.index(name) % 2]
    assert widgets.names(shardSelector=HIGH, labelSelector="parity=1") == odd
    first = of(uids, high=True)[0] if of(uids, high=True) else "none"
    chosen = {"fieldSelector": f"metadata.name={first}"}
    assert widgets.names(shardSelector=LOW, **chosen) == []


@kep(5866)
def test_shards_are_paged(widgets: Widgets, uids: dict[str, str]) -> None:
    found: list[str] = []
    token = ""
    while True:
        query = {"shardSelector": LOW, "limit": 2, **({"continue": token} if token else {})}
        page = widgets.cluster.get(widgets.path, **query).ok()
        assert len(page["items"]) <= 2
        found += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert found == of(uids, high=False)


@kep(5866)
def test_a_watch_has_the_changes_of_the_shard(widgets: Widgets, uids: dict[str, str]) -> None:
    version = widgets.cluster.get(widgets.path).ok()["metadata"]["resourceVersion"]
    for name in NAMES:
        widgets.cluster.merge(widgets.at(name), {"spec": {"size": 2}}).ok()
    widgets.cluster.delete(widgets.path).ok()
    query = {"resourceVersion": version, "shardSelector": HIGH}
    events = widgets.cluster.watch(widgets.path, **query)
    seen = [(e["type"], e["object"]["metadata"]["name"]) for e in events if e["type"] != "BOOKMARK"]
    mine = of(uids, high=True)
    assert seen == [*(("MODIFIED", name) for name in mine), *(("DELETED", name) for name in mine)]


@kep(5866)
def test_an_object_that_leaves_a_selector_leaves_the_shard(
    widgets: Widgets, uids: dict[str, str]
) -> None:
    version = widgets.cluster.get(widgets.path).ok()["metadata"]["resourceVersion"]
    for name in NAMES:
        widgets.cluster.merge(widgets.at(name), {"metadata": {"labels": {"parity": "x"}}}).ok()
    query = {"resourceVersion": version, "shardSelector": LOW, "labelSelector": "parity=0"}
    events = widgets.cluster.watch(widgets.path, **query)
    left = [name for name in of(uids, high=False) if NAMES.index(name) % 2 == 0]
    seen = [(e["type"], e["object"]["metadata"]["name"]) for e in events if e["type"] != "BOOKMARK"]
    assert seen == [("DELETED", name) for name in left]


@kep(5866)
def test_a_watch_list_begins_with_the_objects_of_the_shard(
    widgets: Widgets, uids: dict[str, str]
) -> None:
    query = {
        "shardSelector": LOW, "sendInitialEvents": "true", "allowWatchBookmarks": "true",
        "resourceVersionMatch": "NotOlderThan",
    }  # fmt: skip
    events = widgets.cluster.watch(widgets.path, **query)
    mine = of(uids, high=False)
    assert [e["type"] for e in events[: len(mine) + 1]] == ["ADDED"] * len(mine) + ["BOOKMARK"]
    assert sorted(e["object"]["metadata"]["name"] for e in events[: len(mine)]) == mine


@kep(5866)
def test_the_namespace_may_decide(widgets: Widgets, uids: dict[str, str]) -> None:
    low = LOW.replace("uid", "namespace")
    expected = NAMES if fnv1a_64(widgets.namespace) < 1 << 63 else []
    assert widgets.names(shardSelector=low) == expected


@kep(5866)
def test_the_list_says_which_shard_it_is(cluster: Cluster, namespace: str) -> None:
    """Of built-in kinds: upstream's custom resources are filtered without saying so."""
    found = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps", shardSelector=HIGH).ok()
    assert found["metadata"]["shardInfo"] == {"selector": HIGH}
    plain = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps").ok()
    assert "shardInfo" not in plain["metadata"]


@kep(5866)
@pytest.mark.parametrize(
    "selector",
    [
        " ",
        "foo",
        "true",
        f"{LOW} && {HIGH}",
        f"{LOW} ||",
        f"!{LOW}",
        LOW.replace("uid", "name"),
        f"{LOW} || {HIGH.replace('uid', 'namespace')}",
        LOW.replace("0x8", "0xG"),
        LOW.replace("0x8", "8"),
        LOW.replace("0x8000000000000000", "0x0000000000000000"),
        "shardRange(object.metadata.uid, '0x0', '0x8')",
        "shardRange(object.metadata.uid, '0x0000000000000000')",
    ],
)
@pytest.mark.parametrize("watch", ["", "1"])
def test_what_is_malformed_is_refused(widgets: Widgets, selector: str, watch: str) -> None:
    """400 here; 0.36.4 upstream answers 500 with the same words."""
    query = {"shardSelector": selector, **({"watch": watch, "timeoutSeconds": 1} if watch else {})}
    reply = widgets.cluster.get(widgets.path, **query)
    assert reply.code in (400, 500)
    assert reply.message.startswith("invalid shard selector: ")
