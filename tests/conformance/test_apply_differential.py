"""Who owns what after the same writes: the embedded server against the upstream one (KEP-555)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conformance import pages
from tests.conformance.client import MERGE, Cluster, Reply
from tests.conformance.conftest import DEFINITIONS, GIVEN, definition, eventually
from tests.conformance.pages import page
from tests.support.apiserver import embedded_cluster
from tests.support.reference import reference_cluster

GROUP = "differential.kumulus.dev"
PATH = f"/apis/{GROUP}/v1/namespaces/default/gadgets"
APPLY = "application/apply-patch+yaml"
NUMBER = {"type": "integer"}
ITEM = {"k": {"type": "string"}, "p": {"type": "integer", "default": 1}, "v": NUMBER}
SPEC = {
    "size": NUMBER,
    "mode": {"type": "string", "default": "A"},
    "port": {"x-kubernetes-int-or-string": True},
    "text": {"type": "string", "nullable": True},
    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "map": {"type": "object", "additionalProperties": NUMBER},
    "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": NUMBER}},
    "sub": {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}},
    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": NUMBER},
    "plain": {"type": "array", "items": NUMBER},
    "list": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k", "p"],
        "items": {"type": "object", "required": ["k"], "properties": ITEM},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "properties": SPEC},
        "status": {"type": "object", "properties": {"n": NUMBER, "m": NUMBER}},
    },
}
SMALL = st.integers(0, 2)
FREE = st.recursive(
    SMALL | st.none(),
    lambda inner: st.dictionaries(st.sampled_from("ab"), inner, max_size=2) | st.lists(SMALL),
    max_leaves=3,
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "size": SMALL,
        "mode": st.sampled_from("AB"),
        "port": st.sampled_from([1, "x"]),
        "text": st.sampled_from([None, "", "t"]),
        "free": st.dictionaries(st.sampled_from("ab"), FREE, max_size=2),
        "map": st.dictionaries(st.sampled_from("ab"), SMALL, max_size=2),
        "atom": st.fixed_dictionaries({}, optional={"a": SMALL}),
        "sub": st.fixed_dictionaries({}, optional={"a": SMALL, "b": SMALL}),
        "set": st.lists(SMALL, max_size=3, unique=True),
        "plain": st.lists(SMALL, max_size=2),
        "list": st.lists(
            st.fixed_dictionaries({"k": st.sampled_from("ab")}, optional={"p": SMALL, "v": SMALL}),
            max_size=3,
            unique_by=lambda item: (item["k"], item.get("p", 1)),
        ),
    },
)
META = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2),
        "finalizers": st.lists(st.sampled_from(["a.b/c", "a.b/d"]), max_size=2, unique=True),
    },
)
STATUS = st.fixed_dictionaries({}, optional={"n": SMALL, "m": SMALL})
BODIES = st.fixed_dictionaries({"metadata": META}, optional={"spec": SPECS, "status": STATUS})
STEPS = st.tuples(
    st.sampled_from(["apply", "apply", "apply", "force", "merge", "put", "reset"]),
    st.sampled_from(["", "", "", "/status"]),
    st.sampled_from(["kubectl", "one", "two"]),
    BODIES,
)
_numbers = itertools.count(1)
Pair = tuple[Cluster, Cluster]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    if GIVEN:
        pytest.skip("one cluster is given: there is nothing to compare it with")
    with embedded_cluster() as mine, reference_cluster() as upstream:
        both = Cluster(mine), Cluster(upstream)
        for cluster in both:
            cluster.post(DEFINITIONS, definition("gadgets", GROUP, SCHEMA)).ok()
            eventually(lambda cluster=cluster: cluster.get(PATH).code == 200)  # type: ignore[misc]
        yield both


def send(cluster: Cluster, name: str, step: tuple[str, str, str, Any]) -> Reply:
    verb, subresource, manager, body = step
    path = f"{PATH}/{name}{subresource}"
    query = {"fieldManager": manager}
    head = {"apiVersion": f"{GROUP}/v1", "kind": "Gadget"}
    metadata: dict[str, Any] = {**body["metadata"], "name": name}
    wire = {**body, **head, "metadata": metadata}
    if verb == "merge":
        return cluster("PATCH", path, body, content=MERGE, query=query)
    if verb == "reset":
        patch = {"metadata": {"managedFields": [{}]}}
        return cluster("PATCH", path, patch, content=MERGE, query=query)
    if verb == "put":
        live = cluster.get(f"{PATH}/{name}").json["metadata"]
        metadata["resourceVersion"] = live.get("resourceVersion", "1")
        return cluster("PUT", path, wire, query=query)
    if verb == "force":
        query["force"] = "true"
    return cluster("PATCH", path, wire, content=APPLY, query=query)


def compared(reply: Reply) -> Any:
    """What must agree: all but uids, versions and times (but whether there is a time)."""
    wire = reply.json
    if wire.get("kind") == "Status":
        # Texts that list several things do so in random order upstream; test_apply has the words.
        causes = (wire.get("details") or {}).get("causes") or []
        return reply.code, sorted((c.get("reason", ""), c.get("field", "")) for c in causes)
    for key in ("uid", "resourceVersion", "creationTimestamp"):
        wire["metadata"].pop(key, None)
    for entry in wire["metadata"].get("managedFields", []):
        entry["time"] = "time" in entry
    entries = wire["metadata"].pop("managedFields", [])
    return reply.code, wire, sorted(entries, key=lambda e: json.dumps(e, sort_keys=True))


@page(pages.APPLY, "field-management")
@settings(
    max_examples=40, deadline=None, phases=[Phase.reuse, Phase.generate],  # shrinking takes long
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(steps=st.lists(STEPS, min_size=2, max_size=7), first=BODIES, applied=st.booleans())
def test_both_answer_alike(pair: Pair, steps: Any, first: Any, applied: bool) -> None:
    name = f"g{next(_numbers)}"
    opening = ("apply" if applied else "create", "", "maker", first)
    for step in (opening, *steps):
        answers = [
            _create(cluster, name, first) if step[0] == "create" else send(cluster, name, step)
            for cluster in pair
        ]
        mine, upstream = map(compared, answers)
        assert mine == upstream, f"{step}:\n{mine}\n{upstream}"


def _create(cluster: Cluster, name: str, body: Any) -> Reply:
    head = {"apiVersion": f"{GROUP}/v1", "kind": "Gadget"}
    wire = {**body, **head, "metadata": {**body["metadata"], "name": name}}
    return cluster("POST", PATH, wire, query={"fieldManager": "maker"})
