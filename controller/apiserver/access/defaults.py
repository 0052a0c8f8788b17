"""The roles and bindings that every cluster has. Those of our controllers: `controller.rights`.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.apiserver.access.rbac import GROUP
from controller.apiserver.auth import AUTHENTICATED, MASTERS, UNAUTHENTICATED

Wire = dict[str, Any]
AUTO_UPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_AGGREGATE = f"{GROUP}/aggregate-to-"
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_OURS = "kumulus.dev"


def _rule(groups: Sequence[str], resources: Sequence[str], verbs: Sequence[str]) -> Wire:
    return {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}


def _urls(*urls: str) -> Wire:
    return {"nonResourceURLs": list(urls), "verbs": ["get"]}


def _object(kind: str, name: str, labels: dict[str, str] | None = None, **content: Any) -> Wire:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "annotations": {AUTO_UPDATE: "true"},
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **(labels or {})},
        },
        **content,
    }


def _role(name: str, rules: list[Wire], **labels: str) -> Wire:
    return _object("ClusterRole", name, labels, rules=rules)


def _part(name: str, to: str, rules: list[Wire]) -> Wire:
    """A role that is collected into another."""
    return _object("ClusterRole", name, {f"{_AGGREGATE}{to}": "true"}, rules=rules)


def _collected(name: str, *also: str) -> Wire:
    """A role that collects others; it is itself collected into ``also``."""
    labels = {f"{_AGGREGATE}{other}": "true" for other in also}
    rule = {"clusterRoleSelectors": [{"matchLabels": {f"{_AGGREGATE}{name}": "true"}}]}
    return _object("ClusterRole", name, labels, aggregationRule=rule)


def _binding(name: str, *groups: str) -> Wire:
    subjects = [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups]
    return _object(
        "ClusterRoleBinding", name, subjects=subjects,
        roleRef={"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
    )  # fmt: skip


_TENANT = ("configmaps", "serviceaccounts")
_HEALTH = ("/healthz", "/livez", "/readyz", "/version", "/version/")


def cluster_roles() -> list[Wire]:
    return [
        _role(
            "cluster-admin",
            [_rule("*", "*", "*"), {"nonResourceURLs": ["*"], "verbs": ["*"]}],
        ),
        _role(
            "system:discovery",
            [_urls("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *_HEALTH)],
        ),
        _role("system:public-info-viewer", [_urls(*_HEALTH)]),
        _role(
            "system:basic-user",
            [
                _rule(
                    ["authorization.k8s.io"],
                    ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    ["create"],
                ),
                _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
            ],
        ),
        _role(
            "system:auth-delegator",
            [
                _rule(["authentication.k8s.io"], ["tokenreviews"], ["create"]),
                _rule(["authorization.k8s.io"], ["subjectaccessreviews"], ["create"]),
            ],
        ),
        _collected("admin"),
        _collected("edit", "admin"),
        _collected("view", "edit"),
        *_parts(),
    ]


def _parts() -> list[Wire]:
    return [
        _part(
            "system:aggregate-to-admin", "admin",
            [
                _rule(["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"]),
                _rule([GROUP], ["rolebindings", "roles"], [*_READ, *_WRITE]),
            ],
        ),
        _part(
            "system:aggregate-to-edit", "edit",
            [
                _rule([""], ["secrets"], _READ),
                _rule([""], ["serviceaccounts"], ["impersonate"]),
                _rule([""], [*_TENANT, "secrets", "events"], _WRITE),
                _rule([""], ["serviceaccounts/token"], ["create"]),
                _rule(["coordination.k8s.io"], ["leases"], [*_READ, *_WRITE]),
            ],
        ),
        _part(
            "system:aggregate-to-view", "view",
            [
                _rule([""], [*_TENANT, "events", "namespaces"], _READ),
                _rule(["events.k8s.io"], ["events"], _READ),
            ],
        ),
        _part("kumulus:aggregate-to-edit", "edit", [_rule([_OURS], ["*"], [*_READ, *_WRITE])]),
        _part("kumulus:aggregate-to-view", "view", [_rule([_OURS], ["*"], _READ)]),
    ]  # fmt: skip


def cluster_role_bindings() -> list[Wire]:
    return [
        _binding("cluster-admin", MASTERS),
        _binding("system:discovery", AUTHENTICATED),
        _binding("system:basic-user", AUTHENTICATED),
        _binding("system:public-info-viewer", AUTHENTICATED, UNAUTHENTICATED),
    ]
