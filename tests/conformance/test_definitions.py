"""kubernetes.io/docs: CustomResourceDefinitions: structural schemas, names, life; discovery."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.client import Cluster
from tests.conformance.conftest import DEFINITIONS, definition, eventually
from tests.conformance.pages import page

GROUP = "life.kumulus.dev"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def _object(**more: Any) -> dict[str, Any]:
    return {"type": "object", **more}


@page(pages.DEFINITIONS, "specifying-a-structural-schema")
@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (_object(properties={"a": {}}), "properties[a].type: Required value: must not be empty"),
        ({"properties": {}}, "openAPIV3Schema.type: Required value: must not be empty at the root"),
        (_object(properties={"a": {"type": "array"}}), "properties[a].items: Required value"),
        (
            _object(properties={"a": {"type": "string", "default": 5}}),
            'properties[a].default: Invalid value: "integer":  in body must be of type string',
        ),
        (
            _object(properties={"a": {"type": "string", "pattern": "("}}),
            'properties[a].pattern: Invalid value: "(": must be a valid regular expression',
        ),
        (
            _object(additionalProperties={"type": "string"}),
            "additionalProperties: Forbidden: must not be used at the root",
        ),
        (
            _object(**{"x-kubernetes-validations": [{"rule": "has(self.foo)"}]}),
            "compilation failed: ERROR: <input>:1:4: undefined field 'foo'",
        ),
        (
            _object(**{"x-kubernetes-validations": [{"rule": "self.("}]}),
            "compilation failed: ERROR: <input>:1:6: Syntax error",
        ),
        (
            _object(**{"x-kubernetes-validations": [{"rule": "1"}]}),
            "cel expression must evaluate to a bool",
        ),
        (
            _object(
                properties={
                    "a": {
                        "type": "array",
                        "items": _object(
                            **{"x-kubernetes-validations": [{"rule": "self==oldSelf"}]}
                        ),
                    }
                }
            ),
            "oldSelf cannot be used on the uncorrelatable portion of the schema",
        ),
    ],
)
def test_a_schema_must_be_structural(cluster: Cluster, schema: Any, text: str) -> None:
    reply = cluster.post(DEFINITIONS, definition("gadgets", GROUP, schema), dryRun="All")
    assert reply.code == 422
    assert text in reply.message


@page(pages.DEFINITIONS, "create-a-customresourcedefinition")
def test_names_must_fit(cluster: Cluster) -> None:
    wire = definition("gadgets", GROUP)
    wire["metadata"]["name"] = "other.life.kumulus.dev"
    reply = cluster.post(DEFINITIONS, wire)
    assert reply.code == 422
    assert 'must be spec.names.plural+"."+spec.group' in reply.message


@page(pages.DEFINITIONS, "delete-a-customresourcedefinition")
def test_the_life_of_a_definition(cluster: Cluster) -> None:
    """Established, served, discovered; its objects go with it."""
    cluster.post(DEFINITIONS, definition("gadgets", GROUP)).ok()
    path = f"{DEFINITIONS}/gadgets.{GROUP}"

    def conditions() -> dict[str, str]:
        found = cluster.get(path).json.get("status", {}).get("conditions") or []
        return {condition["type"]: condition["status"] for condition in found}

    eventually(lambda: conditions().get("Established") == "True")
    assert conditions()["NamesAccepted"] == "True"
    objects = f"/apis/{GROUP}/v1/namespaces/default/gadgets"
    eventually(lambda: cluster.get(objects).code == 200)
    resources = cluster.get(f"/apis/{GROUP}/v1").ok()["resources"]
    assert [r["name"] for r in resources] == ["gadgets", "gadgets/status"]
    groups = cluster("GET", "/apis", accept=AGGREGATED).ok()
    assert groups["kind"] == "APIGroupDiscoveryList"
    assert GROUP in [item["metadata"]["name"] for item in groups["items"]]
    gadget = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gadget",
        "metadata": {"name": "x"},
        "spec": {"size": 1},
    }
    cluster.post(objects, gadget).ok()
    cluster.delete(path).ok()
    eventually(lambda: cluster.get(path).code == 404)
    eventually(lambda: cluster.get(objects).code == 404)
    cluster.post(DEFINITIONS, definition("gadgets", GROUP)).ok()
    eventually(lambda: cluster.get(objects).code == 200)
    assert cluster.get(objects).ok()["items"] == []
    cluster.delete(path)
    eventually(lambda: cluster.get(path).code == 404)


@page(pages.HEALTH, "api-endpoints-for-health")
def test_version_and_health(cluster: Cluster) -> None:
    assert int(cluster.get("/version").ok()["minor"].rstrip("+")) >= 34
    for path in ("/healthz", "/livez", "/readyz"):
        assert cluster.get(path).text == "ok"


@page(pages.DEFINITIONS, "publish-validation-schema-in-openapi")
def test_openapi_has_the_schema(cluster: Cluster) -> None:
    index = cluster.get("/openapi/v3").ok()["paths"]
    url = index["apis/conformance.kumulus.dev/v1"]["serverRelativeURL"]
    schemas = cluster.get(url).ok()["components"]["schemas"]
    widget = schemas["dev.kumulus.conformance.v1.Widget"]
    assert widget["properties"]["spec"]["properties"]["size"]["maximum"] == 10
    assert widget["x-kubernetes-group-version-kind"] == [
        {"group": "conformance.kumulus.dev", "version": "v1", "kind": "Widget"}
    ]
    v2 = cluster.get("/openapi/v2").ok()
    assert "dev.kumulus.conformance.v1.Widget" in v2["definitions"]
