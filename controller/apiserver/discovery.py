"""Discovery: which groups, versions and resources are served."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from controller.apiserver.catalog import Catalog, Resource

Wire = dict[str, Any]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_STATUS_VERBS = ["get", "patch", "update"]
GIT_VERSION = "v1.34.0-kumulus"


def version() -> Wire:
    return {
        "major": "1",
        "minor": "34",
        "emulationMajor": "1",
        "emulationMinor": "34",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "33",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "cpython",
        "platform": "linux/amd64",
    }


def api_versions(address: str) -> Wire:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group_versions(group: str, versions: list[str]) -> list[Wire]:
    return [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]


def group(catalog: Catalog, name: str) -> Wire | None:
    """None if there is no such group."""
    versions = catalog.groups().get(name)
    if not versions or not name:
        return None
    listed = _group_versions(name, list(versions))
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": listed,
        "preferredVersion": listed[0],
    }


def group_list(catalog: Catalog) -> Wire:
    names = [name for name in catalog.groups() if name]
    groups = [group(catalog, name) or {} for name in names]
    for found in groups:
        found.pop("kind", None)
        found.pop("apiVersion", None)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def resource_list(catalog: Catalog, name: str, version_: str) -> Wire | None:
    """None if this version of the group is not served."""
    resources = catalog.groups().get(name, {}).get(version_)
    if resources is None:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{name}/{version_}" if name else version_,
        "resources": [entry for resource in resources for entry in _entries(resource)],
    }


def _entries(resource: Resource) -> list[Wire]:
    main: Wire = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
        "storageVersionHash": _storage_hash(resource),
    }
    if resource.short_names:
        main["shortNames"] = list(resource.short_names)
    if resource.categories:
        main["categories"] = list(resource.categories)
    return [main, *(_sub_entry(resource, name) for name in resource.subresources)]


def _sub_entry(resource: Resource, name: str) -> Wire:
    found: Wire = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": "Scale" if name == "scale" else resource.kind,
        "verbs": _sub_verbs(name),
    }
    if name == "scale":
        found.update(group="autoscaling", version="v1")
    elif name == "token":
        found.update(kind="TokenRequest", group="authentication.k8s.io", version="v1")
    return found


def _sub_verbs(name: str) -> list[str]:
    return ["create"] if name == "token" else list(_STATUS_VERBS)


def _storage_hash(resource: Resource) -> str:
    digest = hashlib.sha256(f"{resource.stored_as}/{resource.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def aggregated(catalog: Catalog, *, core: bool) -> Wire:
    """All of discovery in one answer: the core group's, or that of all others."""
    items = [
        {
            "metadata": {"name": name} if name else {},
            "versions": [
                {
                    "version": version_,
                    "resources": [_aggregated_resource(r) for r in resources],
                    "freshness": "Current",
                }
                for version_, resources in versions.items()
            ],
        }
        for name, versions in catalog.groups().items()
        if core == (not name)
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _response_kind(resource: Resource, name: str = "") -> Wire:
    if name == "scale":
        return {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    if name == "token":
        return {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _aggregated_resource(resource: Resource) -> Wire:
    found: Wire = {
        "resource": resource.plural,
        "responseKind": _response_kind(resource),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        found["shortNames"] = list(resource.short_names)
    if resource.categories:
        found["categories"] = list(resource.categories)
    if resource.subresources:
        found["subresources"] = [
            {
                "subresource": name,
                "responseKind": _response_kind(resource, name),
                "verbs": _sub_verbs(name),
            }
            for name in resource.subresources
        ]
    return found
