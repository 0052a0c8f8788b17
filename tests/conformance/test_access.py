"""Authentication and authorization.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/, …/authorization/,
…/authentication/ and …/service-accounts-admin/
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.client import Cluster, Reply
from tests.conformance.conftest import eventually
from tests.conformance.pages import page
from tests.support.kubectl import Kubectl

RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUTHORIZATION = "/apis/authorization.k8s.io/v1"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def enforced(cluster: Cluster) -> None:
    if cluster.get("/api/v1/secrets", _as="conformance-nobody").code != 403:
        pytest.skip("this server does not enforce RBAC")


@pytest.fixture
def bob() -> str:
    """A user without rights of his own."""
    return f"bob-{next(_numbers)}"


class Rights:
    """Gives rights in a namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.cluster_wide: list[str] = []

    def role(self, name: str, *rules: dict[str, Any]) -> None:
        path = f"{RBAC}/namespaces/{self.namespace}/roles"
        self.cluster.post(path, {"metadata": {"name": name}, "rules": list(rules)}).ok()

    def cluster_role(self, name: str, *rules: dict[str, Any], **more: Any) -> None:
        wire = {"metadata": {"name": name, **more.pop("metadata", {})}, "rules": list(rules)}
        self.cluster.post(f"{RBAC}/clusterroles", {**wire, **more}).ok()
        self.cluster_wide.append(f"{RBAC}/clusterroles/{name}")

    def bind(self, role: str, kind: str, subject: dict[str, str]) -> str:
        """The binding's name."""
        path, name = f"{RBAC}/namespaces/{self.namespace}/rolebindings", f"b-{next(_numbers)}"
        self.cluster.post(path, binding(name, kind, role, subject)).ok()
        return name

    def bind_cluster(self, role: str, subject: dict[str, str]) -> None:
        name = f"conformance-{next(_numbers)}"
        path = f"{RBAC}/clusterrolebindings"
        self.cluster.post(path, binding(name, "ClusterRole", role, subject)).ok()
        self.cluster_wide.append(f"{path}/{name}")


def binding(name: str, kind: str, role: str, *subjects: dict[str, str]) -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    return {"metadata": {"name": name}, "roleRef": reference, "subjects": list(subjects)}


def rule(resources: str, verbs: str, group: str = "", **more: Any) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split(), **more}


@pytest.fixture
def rights(cluster: Cluster, namespace: str) -> Iterator[Rights]:
    found = Rights(cluster, namespace)
    yield found
    for path in found.cluster_wide:
        cluster.delete(path)


def _maps(namespace: str, name: str = "") -> str:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    return f"{path}/{name}" if name else path


def _becomes(code: int, ask: Any) -> Reply:
    """A cluster may take a moment to see new rights."""
    eventually(lambda: ask().code == code)
    found: Reply = ask()
    return found


# Refusals


@page(pages.AUTHORIZATION, "determine-the-request-verb")
def test_the_words_of_a_refusal(cluster: Cluster, namespace: str, bob: str) -> None:
    reply = cluster.get(_maps(namespace, "x"), _as=bob)
    assert reply.code == 403
    assert reply.message == (
        f'configmaps "x" is forbidden: User "{bob}" cannot get resource "configmaps" in API group '
        f'"" in the namespace "{namespace}"'
    )
    assert reply.json["details"] == {"name": "x", "kind": "configmaps"}


@page(pages.AUTHORIZATION, "request-attributes-used-in-authorization")
def test_refusals_without_a_namespace(cluster: Cluster, bob: str) -> None:
    reply = cluster.get(f"{RBAC}/clusterroles", _as=bob)
    assert reply.message == (
        f'clusterroles.rbac.authorization.k8s.io is forbidden: User "{bob}" cannot list resource '
        '"clusterroles" in API group "rbac.authorization.k8s.io" at the cluster scope'
    )


@page(pages.AUTHORIZATION, "determine-the-request-verb")
def test_refusals_of_paths(cluster: Cluster, bob: str) -> None:
    reply = cluster.get("/metrics", _as=bob)
    assert reply.code == 403
    assert reply.message == f'forbidden: User "{bob}" cannot get path "/metrics"'


@page(pages.RBAC, "discovery-roles")
def test_discovery_is_for_all_who_are_known(cluster: Cluster, bob: str) -> None:
    for path in ("/api", "/apis", "/openapi/v2", "/version", "/healthz"):
        assert cluster.get(path, _as=bob).code == 200


@page(pages.AUTHENTICATION, "authentication-strategies")
def test_an_unknown_token_is_401(cluster: Cluster) -> None:
    reply = cluster.anonymous("GET", "/api/v1/namespaces", headers={"Authorization": "Bearer x"})
    assert (reply.code, reply.json["reason"]) == (401, "Unauthorized")
    assert reply.message == "Unauthorized"


# Rights


def user(name: str) -> dict[str, str]:
    return {"kind": "User", "name": name}


@page(pages.RBAC, "role-and-clusterrole")
def test_a_role_allows_its_verbs_in_its_namespace(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    rights.role("reader", rule("configmaps", "get list"))
    rights.bind("reader", "Role", user(bob))
    _becomes(200, lambda: cluster.get(_maps(namespace), _as=bob))
    assert cluster.get(_maps("default"), _as=bob).code == 403
    assert cluster.post(_maps(namespace), {"metadata": {"name": "x"}}, _as=bob).code == 403
    assert cluster.delete(_maps(namespace), _as=bob).code == 403


@page(pages.RBAC, "rolebinding-and-clusterrolebinding")
def test_rights_end_with_their_binding(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    rights.role("reader", rule("configmaps", "list"))
    name = rights.bind("reader", "Role", user(bob))
    _becomes(200, lambda: cluster.get(_maps(namespace), _as=bob))
    cluster.delete(f"{RBAC}/namespaces/{namespace}/rolebindings/{name}").ok()
    _becomes(403, lambda: cluster.get(_maps(namespace), _as=bob))


@page(pages.RBAC, "rolebinding-and-clusterrolebinding")
def test_a_cluster_role_bound_in_a_namespace_holds_there(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    rights.bind("view", "ClusterRole", user(bob))
    _becomes(200, lambda: cluster.get(_maps(namespace), _as=bob))
    assert cluster.get(_maps("default"), _as=bob).code == 403
    assert cluster.get(f"/api/v1/namespaces/{namespace}/secrets", _as=bob).code == 403


@page(pages.RBAC, "clusterrolebinding-example")
def test_a_cluster_role_binding_holds_everywhere(
    cluster: Cluster, rights: Rights, bob: str
) -> None:
    rights.bind_cluster("view", user(bob))
    _becomes(200, lambda: cluster.get("/api/v1/configmaps", _as=bob))
    assert cluster.get(_maps("default"), _as=bob).code == 200


@page(pages.RBAC, "referring-to-subjects")
def test_groups(cluster: Cluster, rights: Rights, namespace: str, bob: str) -> None:
    rights.bind("view", "ClusterRole", {"kind": "Group", "name": "watchers"})
    _becomes(200, lambda: cluster.get(_maps(namespace), _as=bob, _groups=["watchers"]))
    assert cluster.get(_maps(namespace), _as=bob).code == 403


@page(pages.RBAC, "referring-to-resources")
def test_resource_names(cluster: Cluster, rights: Rights, namespace: str, bob: str) -> None:
    for name in ("x", "y"):
        cluster.post(_maps(namespace), {"metadata": {"name": name}}).ok()
    rights.role("one", rule("configmaps", "get list watch", resourceNames=["x"]))
    rights.bind("one", "Role", user(bob))
    _becomes(200, lambda: cluster.get(_maps(namespace, "x"), _as=bob))
    assert cluster.get(_maps(namespace, "y"), _as=bob).code == 403
    assert cluster.get(_maps(namespace), _as=bob).code == 403
    one = cluster.get(_maps(namespace), _as=bob, fieldSelector="metadata.name=x")
    assert len(one.ok()["items"]) == 1


@page(pages.RBAC, "referring-to-resources")
def test_subresources_are_rights_of_their_own(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    widgets = f"/apis/conformance.kumulus.dev/v1/namespaces/{namespace}/widgets"
    wire = {"apiVersion": "conformance.kumulus.dev/v1", "kind": "Widget",
            "metadata": {"name": "x"}, "spec": {"size": 1}}  # fmt: skip
    cluster.post(widgets, wire).ok()
    rights.role("status", rule("widgets/status", "patch", "conformance.kumulus.dev"))
    rights.bind("status", "Role", user(bob))
    change = {"status": {"ready": True}}
    _becomes(200, lambda: cluster.merge(f"{widgets}/x/status", change, _as=bob))
    assert cluster.merge(f"{widgets}/x", {"spec": {"size": 2}}, _as=bob).code == 403


@page(pages.RBAC, "role-examples")
def test_paths_that_are_no_resources(cluster: Cluster, rights: Rights, bob: str) -> None:
    name = f"conformance-{bob}"
    rights.cluster_role(name, {"nonResourceURLs": ["/metrics", "/debug/*"], "verbs": ["get"]})
    rights.bind_cluster(name, user(bob))
    _becomes(200, lambda: cluster.get("/metrics", _as=bob))
    assert cluster.get("/debug/x", _as=bob).code == 404


@page(pages.RBAC, "rolebinding-and-clusterrolebinding")
def test_a_missing_role_is_named(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    rights.bind("absent", "Role", user(bob))
    eventually(lambda: "RBAC:" in cluster.get(_maps(namespace), _as=bob).message)
    reply = cluster.get(_maps(namespace), _as=bob)
    assert reply.message.endswith('RBAC: role.rbac.authorization.k8s.io "absent" not found')


@page(pages.RBAC, "aggregated-clusterroles")
def test_aggregation(cluster: Cluster, rights: Rights, bob: str) -> None:
    label = {f"conformance-{bob}": "true"}
    selector = {"clusterRoleSelectors": [{"matchLabels": label}]}
    rights.cluster_role(f"all-{bob}", aggregationRule=selector)
    rights.cluster_role(f"part-{bob}", rule("configmaps", "get"), metadata={"labels": label})
    path = f"{RBAC}/clusterroles/all-{bob}"
    eventually(lambda: cluster.get(path).ok().get("rules") == [rule("configmaps", "get")])
    cluster.delete(f"{RBAC}/clusterroles/part-{bob}").ok()
    eventually(lambda: not cluster.get(path).ok().get("rules"))


@page(pages.RBAC, "default-roles-and-role-bindings")
@pytest.mark.parametrize("name", ["cluster-admin", "admin", "edit", "view", "system:discovery",
                                  "system:basic-user"])  # fmt: skip
def test_default_roles(cluster: Cluster, name: str) -> None:
    found = cluster.get(f"{RBAC}/clusterroles/{name}").ok()
    assert found["rules"]
    assert found["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults"


# Escalation


@page(pages.RBAC, "restrictions-on-role-creation-or-update")
def test_nobody_grants_what_he_has_not(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    rights.role("author", rule("roles", "create update", "rbac.authorization.k8s.io"),
                rule("configmaps", "get"))  # fmt: skip
    rights.bind("author", "Role", user(bob))
    path = f"{RBAC}/namespaces/{namespace}/roles"
    less = {"metadata": {"name": "less"}, "rules": [rule("configmaps", "get")]}
    _becomes(201, lambda: cluster.post(path, less, _as=bob, dryRun="All"))
    more = {"metadata": {"name": "more"}, "rules": [rule("configmaps secrets", "get")]}
    reply = cluster.post(path, more, _as=bob)
    assert reply.code == 403
    assert "is attempting to grant RBAC permissions not currently held:\n" in reply.message
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in reply.message


@page(pages.RBAC, "restrictions-on-role-creation-or-update")
def test_escalate_lifts_that(cluster: Cluster, rights: Rights, namespace: str, bob: str) -> None:
    rights.role("author", rule("roles", "create escalate", "rbac.authorization.k8s.io"))
    rights.bind("author", "Role", user(bob))
    path = f"{RBAC}/namespaces/{namespace}/roles"
    more = {"metadata": {"name": "more"}, "rules": [rule("secrets", "get")]}
    _becomes(201, lambda: cluster.post(path, more, _as=bob, dryRun="All"))


@page(pages.RBAC, "restrictions-on-role-binding-creation-or-update")
def test_nobody_binds_a_role_that_is_more_than_he_has(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    rights.role("binder", rule("rolebindings", "create", "rbac.authorization.k8s.io"),
                rule("clusterroles", "bind", "rbac.authorization.k8s.io",
                     resourceNames=["view"]))  # fmt: skip
    rights.bind("binder", "Role", user(bob))
    path = f"{RBAC}/namespaces/{namespace}/rolebindings"
    allowed = binding("v", "ClusterRole", "view", user("carol"))
    _becomes(201, lambda: cluster.post(path, allowed, _as=bob, dryRun="All"))
    refused = cluster.post(path, binding("e", "ClusterRole", "edit", user("carol")), _as=bob)
    assert refused.code == 403
    assert "attempting to grant RBAC permissions" in refused.message


# Validity


@page(pages.RBAC, "api-overview")
@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ([{"apiGroups": [""], "resources": ["x"], "verbs": []}], "rules[0].verbs"),
        ([{"resources": ["x"], "verbs": ["get"]}], "rules[0].apiGroups"),
        ([{"apiGroups": [""], "verbs": ["get"]}], "rules[0].resources"),
        ([{"nonResourceURLs": ["/x"], "verbs": ["get"]}], "rules[0].nonResourceURLs"),
    ],
)
def test_bad_rules(
    cluster: Cluster, namespace: str, rules: list[dict[str, Any]], field: str
) -> None:
    path = f"{RBAC}/namespaces/{namespace}/roles"
    reply = cluster.post(path, {"metadata": {"name": "x"}, "rules": rules})
    assert (reply.code, reply.fields) == (422, [field])


@page(pages.RBAC, "clusterrolebinding-example")
def test_a_role_reference_never_changes(cluster: Cluster, rights: Rights, namespace: str) -> None:
    name = rights.bind("view", "ClusterRole", user("x"))
    path = f"{RBAC}/namespaces/{namespace}/rolebindings/{name}"
    reply = cluster.merge(path, {"roleRef": {"name": "edit"}})
    assert (reply.code, reply.fields) == (422, ["roleRef"])
    assert "cannot change roleRef" in reply.message


# Questions about access


def _attributes(namespace: str, verb: str = "get") -> dict[str, str]:
    return {"namespace": namespace, "verb": verb, "resource": "configmaps"}


@page(pages.AUTHORIZATION, "checking-api-access")
def test_self_subject_access_review(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    rights.bind("view", "ClusterRole", user(bob))
    path = f"{AUTHORIZATION}/selfsubjectaccessreviews"

    def asked(verb: str) -> dict[str, Any]:
        wire = {"spec": {"resourceAttributes": _attributes(namespace, verb)}}
        found: dict[str, Any] = cluster.post(path, wire, _as=bob).ok()["status"]
        return found

    eventually(lambda: asked("get")["allowed"])
    assert asked("get")["reason"].startswith("RBAC: allowed by RoleBinding")
    assert asked("delete")["allowed"] is False


@page(pages.AUTHORIZATION, "checking-api-access")
def test_subject_access_review(cluster: Cluster, rights: Rights, namespace: str, bob: str) -> None:
    rights.bind("view", "ClusterRole", {"kind": "Group", "name": bob})
    path = f"{AUTHORIZATION}/subjectaccessreviews"

    def allowed(**who: Any) -> bool:
        spec = {"resourceAttributes": _attributes(namespace), **who}
        return bool(cluster.post(path, {"spec": spec}).ok()["status"]["allowed"])

    eventually(lambda: allowed(user="x", groups=[bob]))
    assert not allowed(user="x")
    assert cluster.post(path, {"spec": {"resourceAttributes": {}}}).code == 422
    assert cluster.post(path, {"spec": {"user": "x"}}).code == 422


@page(pages.AUTHORIZATION, "checking-api-access")
def test_local_subject_access_review(cluster: Cluster, namespace: str) -> None:
    path = f"{AUTHORIZATION}/namespaces/{namespace}/localsubjectaccessreviews"
    spec = {"user": "nobody", "resourceAttributes": _attributes(namespace)}
    wire = {"metadata": {"namespace": namespace}, "spec": spec}
    assert cluster.post(path, wire).ok()["status"]["allowed"] is False
    spec["resourceAttributes"] = _attributes("default")
    assert cluster.post(path, wire).code == 422


@page(pages.AUTHORIZATION, "checking-api-access")
def test_reviews_of_paths(cluster: Cluster, bob: str) -> None:
    path = f"{AUTHORIZATION}/selfsubjectaccessreviews"
    for url, allowed in (("/healthz", True), ("/metrics", False)):
        wire = {"spec": {"nonResourceAttributes": {"path": url, "verb": "get"}}}
        assert cluster.post(path, wire, _as=bob).ok()["status"]["allowed"] is allowed


@page(pages.AUTHORIZATION, "checking-api-access")
def test_self_subject_rules_review(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    rights.role("one", rule("configmaps", "get", resourceNames=["x"]))
    rights.bind("one", "Role", user(bob))
    path = f"{AUTHORIZATION}/selfsubjectrulesreviews"

    def status() -> dict[str, Any]:
        wire = {"spec": {"namespace": namespace}}
        found: dict[str, Any] = cluster.post(path, wire, _as=bob).ok()["status"]
        return found

    wanted = rule("configmaps", "get", resourceNames=["x"])
    eventually(lambda: wanted in status()["resourceRules"])
    assert any("/healthz" in r["nonResourceURLs"] for r in status()["nonResourceRules"])
    assert status()["incomplete"] is False


@page(pages.AUTHENTICATION, "self-subject-review")
def test_self_subject_review(cluster: Cluster, bob: str) -> None:
    found = cluster.post(f"{AUTHENTICATION}/selfsubjectreviews", {}, _as=bob).ok()
    info = found["status"]["userInfo"]
    assert (info["username"], info["groups"]) == (bob, ["system:authenticated"])


# Service accounts


def _account(cluster: Cluster, namespace: str, name: str = "robot") -> str:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.post(path, {"metadata": {"name": name}}).ok()
    return f"{path}/{name}"


def _token(cluster: Cluster, path: str, **spec: Any) -> str:
    found = cluster.post(f"{path}/token", {"spec": spec}).ok()
    return str(found["status"]["token"])


@page(pages.ACCOUNTS, "serviceaccount-controller")
def test_every_namespace_has_a_default_account(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    eventually(lambda: cluster.get(path).code == 200)
    cluster.delete(path).ok()
    eventually(lambda: cluster.get(path).code == 200)


@page(pages.AUTHENTICATION, "service-account-tokens")
def test_a_token_is_its_account(cluster: Cluster, rights: Rights, namespace: str) -> None:
    path = _account(cluster, namespace)
    token = _token(cluster, path)
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}
    rights.bind("view", "ClusterRole", subject)
    _becomes(200, lambda: cluster.bearer(token, "GET", _maps(namespace)))
    assert cluster.bearer(token, "GET", _maps("default")).code == 403
    found = cluster.bearer(token, "POST", f"{AUTHENTICATION}/selfsubjectreviews", {}).ok()
    info = found["status"]["userInfo"]
    assert info["username"] == f"system:serviceaccount:{namespace}:robot"
    assert set(info["groups"]) == {"system:serviceaccounts", "system:authenticated",
                                   f"system:serviceaccounts:{namespace}"}  # fmt: skip
    assert info["uid"] == cluster.get(path).ok()["metadata"]["uid"]


@page(pages.ACCOUNTS, "schema-for-service-account-private-claims")
def test_claims(cluster: Cluster, namespace: str) -> None:
    path = _account(cluster, namespace)
    token = _token(cluster, path, audiences=["vault"], expirationSeconds=1200)
    part = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert claims["aud"] == ["vault"]
    assert claims["exp"] - claims["iat"] == 1200
    assert claims["sub"] == f"system:serviceaccount:{namespace}:robot"
    assert claims["kubernetes.io"]["serviceaccount"]["name"] == "robot"


@page(pages.ACCOUNTS, "bound-service-account-tokens")
def test_a_token_for_somebody_else_is_401(cluster: Cluster, namespace: str) -> None:
    token = _token(cluster, _account(cluster, namespace), audiences=["vault"])
    assert cluster.bearer(token, "GET", "/api").code == 401


@page(pages.AUTHENTICATION, "service-account-tokens")
def test_a_forged_token_is_401(cluster: Cluster, namespace: str) -> None:
    head, claims, signature = _token(cluster, _account(cluster, namespace)).split(".")
    swapped = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert cluster.bearer(f"{head}.{claims}.{swapped}", "GET", "/api").code == 401
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    assert cluster.bearer(f"{none}.{claims}.", "GET", "/api").code == 401


@page(pages.ACCOUNTS, "bound-service-account-tokens")
def test_a_deleted_account_is_401(cluster: Cluster, namespace: str) -> None:
    path = _account(cluster, namespace)
    token = _token(cluster, path)
    assert cluster.bearer(token, "GET", "/api").code == 200
    cluster.delete(path).ok()
    eventually(lambda: cluster.bearer(token, "GET", "/api").code == 401)
    _account(cluster, namespace)  # another account of the same name
    assert cluster.bearer(token, "GET", "/api").code == 401


@page(pages.ACCOUNTS, "bound-service-account-tokens")
def test_a_token_can_be_bound_to_a_secret(cluster: Cluster, namespace: str) -> None:
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    cluster.post(secrets, {"metadata": {"name": "s"}}).ok()
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "s"}
    token = _token(cluster, _account(cluster, namespace), boundObjectRef=reference)
    assert cluster.bearer(token, "GET", "/api").code == 200
    cluster.delete(f"{secrets}/s").ok()
    eventually(lambda: cluster.bearer(token, "GET", "/api").code == 401)


@page(pages.ACCOUNTS, "bound-service-account-tokens")
@pytest.mark.parametrize("seconds", [1, 599, 2**32 + 1])
def test_a_tokens_life_is_bounded(cluster: Cluster, namespace: str, seconds: int) -> None:
    path = _account(cluster, namespace)
    reply = cluster.post(f"{path}/token", {"spec": {"expirationSeconds": seconds}})
    assert (reply.code, reply.fields) == (422, ["spec.expirationSeconds"])


@page(pages.ACCOUNTS, "bound-service-account-tokens")
def test_tokens_of_an_absent_account(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/nobody/token"
    assert cluster.post(path, {"spec": {}}).code == 404


@page(pages.ACCOUNTS, "verifying-and-inspecting-private-claims")
def test_token_reviews(cluster: Cluster, namespace: str) -> None:
    token = _token(cluster, _account(cluster, namespace), audiences=["vault", "other"])
    path = f"{AUTHENTICATION}/tokenreviews"

    def review(**spec: Any) -> dict[str, Any]:
        found: dict[str, Any] = cluster.post(path, {"spec": spec}).ok()["status"]
        return found

    good = review(token=token, audiences=["vault", "unknown"])
    assert good["authenticated"] is True
    assert good["audiences"] == ["vault"]
    assert good["user"]["username"] == f"system:serviceaccount:{namespace}:robot"
    assert not review(token=token).get("authenticated")
    bad = review(token="guessed")
    assert not bad.get("authenticated")
    assert bad["error"]


# Impersonation


@page(pages.AUTHENTICATION, "user-impersonation")
def test_impersonation_needs_the_right(
    cluster: Cluster, rights: Rights, namespace: str, bob: str
) -> None:
    token = _token(cluster, _account(cluster, namespace))
    name = f"conformance-{bob}"
    rights.cluster_role(name, rule("users", "impersonate", resourceNames=["carol"]))
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}
    rights.bind_cluster(name, subject)

    def as_(who: str) -> Reply:
        return cluster.bearer(token, "GET", "/api", headers={"Impersonate-User": who})

    _becomes(200, lambda: as_("carol"))
    refused = as_("dave")
    assert refused.code == 403
    assert 'cannot impersonate resource "users" in API group ""' in refused.message


@page(pages.AUTHENTICATION, "user-impersonation")
def test_impersonated_accounts_have_their_groups(cluster: Cluster, namespace: str) -> None:
    name = f"system:serviceaccount:{namespace}:robot"
    found = cluster.post(f"{AUTHENTICATION}/selfsubjectreviews", {}, _as=name).ok()
    assert f"system:serviceaccounts:{namespace}" in found["status"]["userInfo"]["groups"]


# kubectl


@page(pages.AUTHORIZATION, "checking-api-access")
def test_kubectl_auth(kubectl: Kubectl, rights: Rights, namespace: str, bob: str) -> None:
    assert "admin" in kubectl("auth", "whoami")
    assert kubectl("auth", "can-i", "create", "configmaps").strip() == "yes"
    rights.bind("view", "ClusterRole", user(bob))
    asked = ("auth", "can-i", "list", "configmaps", "-n", namespace, "--as", bob)
    eventually(lambda: kubectl.run(*asked).stdout.strip() == "yes")
    done = kubectl.run("auth", "can-i", "delete", "configmaps", "-n", namespace, "--as", bob)
    assert (done.returncode, done.stdout.strip()) == (1, "no")
    assert "configmaps" in kubectl("auth", "can-i", "--list", "-n", namespace, "--as", bob)


@page(pages.RBAC, "command-line-utilities")
def test_kubectl_makes_access(kubectl: Kubectl, namespace: str) -> None:
    within = ("-n", namespace)
    kubectl("create", "serviceaccount", "robot", *within)
    kubectl("create", "role", "r", "--verb=get,list", "--resource=configmaps", *within)
    kubectl("create", "rolebinding", "r", "--role=r", f"--serviceaccount={namespace}:robot",
            *within)  # fmt: skip
    account = f"system:serviceaccount:{namespace}:robot"
    assert kubectl("get", "configmaps", *within, "--as", account, "-o", "name") is not None
    assert kubectl("create", "token", "robot", "--duration=20m", *within).count(".") == 2
    described = kubectl("describe", "role", "r", *within)
    assert "configmaps" in described
