"""Definitions: what is refused, what is served, and what happens to one that no longer compiles."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.apiserver import decoding
from controller.apiserver.admission import User
from controller.apiserver.app import _report_broken
from controller.apiserver.builtins import builtins
from controller.apiserver.catalog import Catalog
from controller.apiserver.definitions import Definitions
from controller.apiserver.errors import ApiError
from controller.apiserver.registry import Registry
from controller.apiserver.schema import crd as crds
from controller.apiserver.store import ChangeType, ObjectKey, Store
from controller.apiserver.strategies import DEFINITIONS
from controller.apiserver.writes import WriteOptions

OPTIONS = WriteOptions(User("test"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "required", "default", "enum", "a"]),
            inner,
        )
    ),
    max_leaves=8,
)
SCHEMAS = st.dictionaries(
    st.sampled_from(
        [
            "type", "properties", "items", "additionalProperties", "required", "enum", "default",
            "minimum", "maxLength", "pattern", "anyOf", "not", "x-kubernetes-validations",
            "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "bogus",
        ]
    ),
    st.sampled_from(["object", "array", "string"]) | JSON,
)  # fmt: skip


def definition(schema: Any, plural: str = "things", kind: str = "Thing") -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


class Server:
    """The registry on a store, without HTTP."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.catalog = Catalog()
        self.catalog.add(builtins())
        self.definitions = Definitions(store, self.catalog)
        self.definitions.start()
        self.registry = Registry(store, self.catalog)
        found = self.catalog.get(crds.GROUP, "v1", "customresourcedefinitions")
        assert found is not None
        self.resource = found

    async def define(self, wire: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        decoded = decoding.decode(self.resource, json.dumps(wire).encode(), "Warn")
        options = WriteOptions(User("test"), dry_run)
        outcome = await self.registry.create(self.resource, "", decoded.wire, options)
        found: dict[str, Any] = json.loads(outcome.body)
        return found


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    store = Store(tmp_path / "db", "OFF")
    await store.start()
    yield Server(store)
    await store.close()


def conditions(crd: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["message"]) for c in crd["status"]["conditions"]}


async def test_a_definition_is_served_once_it_is_stored(server: Server) -> None:
    found = await server.define(definition({"type": "object"}))
    assert conditions(found)["Established"][0] == "True"
    assert server.catalog.get("example.com", "v1", "things") is not None


async def test_names_are_given_once(server: Server) -> None:
    await server.define(definition({"type": "object"}))
    found = await server.define(definition({"type": "object"}, plural="others"))
    assert conditions(found)["NamesAccepted"] == ("False", '"ThingList" is already in use')
    assert conditions(found)["Established"][0] == "False"
    assert server.catalog.get("example.com", "v1", "others") is None


async def test_a_rule_that_no_longer_compiles_is_not_skipped(server: Server) -> None:
    """As after a change of the CEL library: stored, established, and now it does not compile."""
    wire = await server.define(definition({"type": "object"}, plural="olds", kind="Old"))
    schema = wire["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["x-kubernetes-validations"] = [{"rule": "no_such_function(self)"}]
    wire["metadata"]["generation"] = 2
    key = ObjectKey(DEFINITIONS, "", "olds.example.com")
    await server.store.write(ChangeType.MODIFIED, key, lambda version: _with(wire, version))
    again = Server(server.store)
    assert again.catalog.get("example.com", "v1", "olds") is None
    assert "no_such_function" in again.definitions.broken["olds.example.com"]
    await _report_broken(again.definitions, again.registry, again.catalog)
    entry = server.store.get(key)
    assert entry is not None
    status, message = conditions(entry.object())["Established"]
    assert status == "False"
    assert "no_such_function" in message


def _with(wire: dict[str, Any], version: int) -> bytes:
    wire["metadata"]["resourceVersion"] = str(version)
    return json.dumps(wire).encode()


@given(SCHEMAS | JSON)
@example({"properties": {"type": None}})
@example({"properties": {"type": True}})
def test_any_schema_is_taken_or_refused(schema: Any) -> None:
    """Decoding and validation never fail otherwise, and what they take can be served."""
    resource = next(r for r in builtins() if r.storage == DEFINITIONS)
    try:
        wire = decoding.decode(resource, json.dumps(definition(schema)).encode(), "Warn").wire
    except ApiError as error:
        assert error.code == 400
        return
    crds.fill_defaults(wire)
    if not crds.validate(wire, None):
        assert len(crds.resources(wire)) == 1


@given(
    st.dictionaries(st.sampled_from(["group", "names", "scope", "versions", "conversion"]), JSON)
)
def test_any_specification_is_taken_or_refused(spec: Any) -> None:
    resource = next(r for r in builtins() if r.storage == DEFINITIONS)
    raw = json.dumps({**definition({}), "spec": spec}).encode()
    try:
        wire = decoding.decode(resource, raw, "Warn").wire
    except ApiError as error:
        assert error.code == 400
        return
    crds.fill_defaults(wire)
    assert crds.validate(wire, None)
