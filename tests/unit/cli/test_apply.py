"""The built-in apply."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.up import apply
from controller.up.kube import MERGE_PATCH, ApiError

LEAVES = st.integers() | st.text(max_size=3) | st.booleans() | st.lists(st.integers(), max_size=2)
TREES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), TREES, max_size=4)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386, as its appendix writes it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


@given(last=OBJECTS, new=OBJECTS)
def test_patch_brings_the_last_manifest_to_the_new_one(last: Any, new: Any) -> None:
    assert merge(last, apply.merge_patch(last, new)) == new


@given(last=OBJECTS, new=OBJECTS, others=st.dictionaries(st.sampled_from("xyz"), LEAVES))
def test_patch_leaves_alone_what_others_set(last: Any, new: Any, others: Any) -> None:
    assert merge({**last, **others}, apply.merge_patch(last, new)) == {**new, **others}


@given(last=OBJECTS, new=OBJECTS)
def test_changes_is_what_merging_does(last: Any, new: Any) -> None:
    patch = apply.merge_patch(last, new)
    assert apply.changes(last, patch) == (merge(last, patch) != last)


class Server:
    """As much of an API server as apply talks to: one kind, objects by path."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.requests: list[str] = []

    def get(self, path: str) -> Any:
        if path == "/apis/kumulus.dev/v1alpha1":
            return {"resources": [
                {"kind": "Zone", "name": "zones", "namespaced": False},
                {"kind": "Zone", "name": "zones/status", "namespaced": False},
                {"kind": "Volume", "name": "volumes", "namespaced": True},
            ]}  # fmt: skip
        if path not in self.objects:
            raise ApiError("not found", 404)
        return copy.deepcopy(self.objects[path])

    def request(self, method: str, path: str, body: Any, content_type: str = "") -> None:
        self.requests.append(method)
        if method == "POST":
            self.objects[f"{path}/{body['metadata']['name']}"] = copy.deepcopy(body)
        else:
            assert (method, content_type) == ("PATCH", MERGE_PATCH)
            self.objects[path] = merge(self.objects[path], body)


def zone(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kumulus.dev/v1alpha1", "kind": "Zone", "metadata": {"name": "z"},
        "spec": spec,
    }  # fmt: skip


PATH = "/apis/kumulus.dev/v1alpha1/zones/z"


def run(server: Server, *manifests: dict[str, Any]) -> None:
    apply.apply_all(server, manifests)  # type: ignore[arg-type]


def test_creates_then_leaves_alone_then_changes() -> None:
    server = Server()
    run(server, zone(default=True))
    run(server, zone(default=True))
    assert server.requests == ["POST"]
    run(server, zone(description="x"))
    assert server.requests == ["POST", "PATCH"]
    assert server.objects[PATH]["spec"] == {"description": "x"}
    noted = server.objects[PATH]["metadata"]["annotations"][apply.LAST_APPLIED]
    assert json.loads(noted) == zone(description="x")


def test_keeps_what_a_user_added() -> None:
    server = Server()
    run(server, zone(default=True))
    server.objects[PATH]["spec"]["state"] = "Disabled"
    server.objects[PATH]["metadata"]["labels"] = {"mine": "yes"}
    run(server, zone(default=False))
    assert server.objects[PATH]["spec"] == {"default": False, "state": "Disabled"}
    assert server.objects[PATH]["metadata"]["labels"] == {"mine": "yes"}


def test_namespaced_objects_go_to_their_namespace() -> None:
    server = Server()
    volume = {**zone(), "kind": "Volume"}
    run(server, volume, {**volume, "metadata": {"name": "v", "namespace": "shop"}})
    assert sorted(server.objects) == [
        "/apis/kumulus.dev/v1alpha1/namespaces/default/volumes/z",
        "/apis/kumulus.dev/v1alpha1/namespaces/shop/volumes/v",
    ]


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ApiError, match=r"no kind Moon in kumulus\.dev/v1alpha1"):
        run(Server(), {**zone(), "kind": "Moon"})
