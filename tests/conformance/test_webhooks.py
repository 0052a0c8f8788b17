"""Dynamic admission control.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.client import Cluster, Reply
from tests.conformance.conftest import Widgets
from tests.conformance.pages import page
from tests.support.ports import free_port
from tests.support.webhook import Answer, Webhook, allow, deny, patch, running_webhook

API = "/apis/admissionregistration.k8s.io/v1"
WIDGETS_RULE = {
    "operations": ["*"],
    "apiGroups": ["conformance.kumulus.dev"],
    "apiVersions": ["v1"],
    "resources": ["widgets"],
    "scope": "*",
}
_numbers = itertools.count(1)
DEFAULTED = (
    "failurePolicy",
    "matchPolicy",
    "objectSelector",
    "namespaceSelector",
    "timeoutSeconds",
)
pytestmark = pytest.mark.usefixtures("local")


@pytest.fixture
def local(cluster: Cluster) -> None:
    """Webhooks listen on loopback, so the cluster must be on this machine."""
    if cluster.host not in ("127.0.0.1", "localhost"):
        pytest.skip("the cluster is elsewhere and cannot call a webhook on loopback")


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with running_webhook() as found:
        yield found


class Configure:
    """Makes configurations, limited to the test's namespace, and takes them away again."""

    def __init__(self, cluster: Cluster, namespace: str, webhook: Webhook) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.webhook = webhook
        self.made: list[str] = []

    def __call__(
        self, kind: str, answer: Answer = allow, *, await_path: bool = True, **more: Any
    ) -> str:
        """``kind``: Validating or Mutating. Answers the path at which requests are seen."""
        number = next(_numbers)
        path = f"/hook-{number}"
        if kind == "Mutating":
            more.setdefault("reinvocationPolicy", "Never")
        hook = self.hook(path, answer, **more)
        reply = self.post(kind, f"hook-{number:05}", hook)
        reply.ok()
        if await_path:
            self._wait(path)
        return path

    def hook(self, path: str, answer: Answer, **more: Any) -> dict[str, Any]:
        return {
            "name": f"{path[1:]}.conformance.kumulus.dev",
            "clientConfig": self.webhook.config(path, answer),
            "rules": [WIDGETS_RULE],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            # Given in full: a server that stores this kind without defaults is welcome too.
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "objectSelector": {},
            "timeoutSeconds": 10,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
            **more,
        }

    def post(self, kind: str, name: str, *hooks: dict[str, Any]) -> Reply:
        wire = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": list(hooks),
        }
        path = f"{API}/{kind.lower()}webhookconfigurations"
        reply = self.cluster.post(path, wire)
        if reply.code == 201:
            self.made.append(f"{path}/{name}")
        return reply

    def _wait(self, path: str) -> None:
        """Until the server asks the webhook: it may take a moment after the configuration."""
        probe = Widgets(self.cluster, self.namespace)
        deadline = time.monotonic() + 10
        while not self.webhook.seen[path]:
            assert time.monotonic() < deadline, "the webhook is not called"
            self.cluster.post(probe.path, probe.make("probe", {"size": 1}), dryRun="All")
            time.sleep(0.05)
        self.webhook.seen[path].clear()


@pytest.fixture
def configure(cluster: Cluster, namespace: str, webhook: Webhook) -> Iterator[Configure]:
    found = Configure(cluster, namespace, webhook)
    yield found
    for path in found.made:
        cluster.delete(path)


def _settle(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


# Configurations: defaults and validity


@page(pages.ADMISSION, "webhook-configuration")
def test_defaults(configure: Configure) -> None:
    hook = configure.hook("/defaults", allow)
    hook["rules"] = [{**WIDGETS_RULE, "resources": ["nothings"]}]
    del hook["rules"][0]["scope"]
    for key in DEFAULTED:
        del hook[key]
    found = configure.post("Mutating", "defaults", hook).ok()["webhooks"][0]
    if "failurePolicy" not in found:
        pytest.skip("this server stores webhook configurations without defaults")
    assert found["failurePolicy"] == "Fail"
    assert found["matchPolicy"] == "Equivalent"
    assert found["timeoutSeconds"] == 10
    assert found["reinvocationPolicy"] == "Never"
    assert found["namespaceSelector"] == found["objectSelector"] == {}
    assert found["rules"][0]["scope"] == "*"


# What a webhook is sent


@page(pages.ADMISSION, "request")
def test_a_webhook_sees_the_request(
    configure: Configure, widgets: Widgets, webhook: Webhook
) -> None:
    path = configure("Validating")
    widgets.create("x", {"size": 2})
    (request,) = webhook.seen[path]
    assert request["operation"] == "CREATE"
    assert request["kind"] == {"group": "conformance.kumulus.dev", "version": "v1",
                               "kind": "Widget"}  # fmt: skip
    assert request["resource"]["resource"] == "widgets"
    assert request["requestKind"] == request["kind"]
    assert (request["name"], request["namespace"]) == ("x", widgets.namespace)
    assert request["object"]["spec"] == {"size": 2, "mode": "A"}
    assert request.get("oldObject") is None
    assert request["dryRun"] is False
    assert request["options"]["kind"] == "CreateOptions"
    assert "system:masters" in request["userInfo"]["groups"]


@page(pages.ADMISSION, "request")
def test_updates_and_deletions_bring_the_old_object(
    configure: Configure, widgets: Widgets, webhook: Webhook
) -> None:
    widgets.create("x")
    path = configure("Validating")
    widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 3}}).ok()
    widgets.cluster.delete(widgets.at("x")).ok()
    changed, deleted = webhook.seen[path]
    assert (changed["operation"], deleted["operation"]) == ("UPDATE", "DELETE")
    assert changed["oldObject"]["spec"]["size"] == 1
    assert changed["object"]["spec"]["size"] == 3
    assert deleted.get("object") is None
    assert deleted["oldObject"]["spec"]["size"] == 3


@page(pages.ADMISSION, "side-effects")
def test_dry_runs_say_so(configure: Configure, widgets: Widgets, webhook: Webhook) -> None:
    path = configure("Validating", sideEffects="NoneOnDryRun")
    widgets.cluster.post(widgets.path, widgets.make("x"), dryRun="All").ok()
    assert webhook.seen[path][0]["dryRun"] is True


@page(pages.ADMISSION, "matching-requests-rules")
def test_subresources_are_named_in_rules(
    configure: Configure, widgets: Widgets, webhook: Webhook
) -> None:
    widgets.create("x")
    rule = {**WIDGETS_RULE, "resources": ["widgets/status", "widgets"]}
    path = configure("Validating", rules=[rule])
    widgets.cluster.merge(f"{widgets.at('x')}/status", {"status": {"ready": True}}).ok()
    (request,) = webhook.seen[path]
    assert request["subResource"] == "status"


@page(pages.ADMISSION, "matching-requests-rules")
def test_a_rule_without_the_subresource_does_not_see_it(
    configure: Configure, widgets: Widgets, webhook: Webhook
) -> None:
    widgets.create("x")
    path = configure("Validating", deny())
    widgets.cluster.merge(f"{widgets.at('x')}/status", {"status": {"ready": True}}).ok()
    assert webhook.seen[path] == []


# Answers of validating webhooks


@page(pages.ADMISSION, "response")
def test_a_refusal_names_the_webhook(configure: Configure, widgets: Widgets) -> None:
    path = configure("Validating", deny("too big", code=403, reason="Forbidden"))
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert reply.code == 403
    name = f"{path[1:]}.conformance.kumulus.dev"
    assert reply.message == f'admission webhook "{name}" denied the request: too big'
    assert reply.json["reason"] == "Forbidden"
    assert widgets.names() == []


@page(pages.ADMISSION, "response")
@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        ({"message": "odd", "code": 422}, 422, ": odd"),
        ({"message": "odd"}, 400, ": odd"),
        ({"message": "odd", "code": 200}, 400, ": odd"),
        ({"message": "", "reason": "Because", "code": 409}, 409, ": Because"),
        ({"message": ""}, 400, " without explanation"),
    ],
)
def test_codes_of_refusals(
    configure: Configure, widgets: Widgets, status: dict[str, Any], code: int, text: str
) -> None:
    configure("Validating", deny(**status))
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert reply.code == code
    assert reply.message.endswith(f"denied the request{text}")


@page(pages.ADMISSION, "response")
def test_a_deletion_can_be_refused(configure: Configure, widgets: Widgets) -> None:
    widgets.create("x")
    configure("Validating", deny("keep it", code=403))
    assert widgets.cluster.delete(widgets.at("x")).code == 403
    assert widgets.names() == ["x"]


@page(pages.ADMISSION, "response")
def test_warnings_reach_the_client(configure: Configure, widgets: Widgets) -> None:
    configure("Validating", lambda _: {"allowed": True, "warnings": ["mind the gap"]})
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert reply.code == 201
    assert any("mind the gap" in warning for warning in reply.warnings)


@page(pages.ADMISSION, "response")
def test_warnings_come_with_refusals_too(configure: Configure, widgets: Widgets) -> None:
    configure("Validating", lambda _: {"allowed": False, "warnings": ["mind the gap"]})
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert reply.code == 400
    assert any("mind the gap" in warning for warning in reply.warnings)


# Answers of mutating webhooks


@page(pages.ADMISSION, "response")
def test_a_patch_changes_the_object(configure: Configure, widgets: Widgets) -> None:
    configure("Mutating", patch({"op": "replace", "path": "/spec/size", "value": 7}))
    assert widgets.create("x")["spec"]["size"] == 7
    assert widgets.cluster.get(widgets.at("x")).ok()["spec"]["size"] == 7


@page(pages.ADMISSION, "response")
def test_the_schema_is_asked_after_mutation(configure: Configure, widgets: Widgets) -> None:
    configure("Mutating", patch({"op": "replace", "path": "/spec/size", "value": 99}))
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert (reply.code, reply.fields) == (422, ["spec.size"])


@page(pages.ADMISSION, "response")
def test_mutation_can_make_an_object_valid(configure: Configure, widgets: Widgets) -> None:
    configure("Mutating", patch({"op": "replace", "path": "/spec/size", "value": 2}))
    assert widgets.create("x", {"size": 99})["spec"]["size"] == 2


@page(pages.ADMISSION, "what-are-admission-webhooks")
def test_validating_webhooks_see_what_mutating_ones_made(
    configure: Configure, widgets: Widgets, webhook: Webhook
) -> None:
    configure("Mutating", patch({"op": "replace", "path": "/spec/size", "value": 7}))
    path = configure("Validating")
    widgets.create("x")
    assert webhook.seen[path][0]["object"]["spec"]["size"] == 7


@page(pages.ADMISSION, "reinvocation-policy")
def test_mutating_webhooks_run_in_the_order_of_names(
    configure: Configure, widgets: Widgets
) -> None:
    configure("Mutating", patch({"op": "replace", "path": "/spec/size", "value": 4}))
    configure("Mutating", patch({"op": "replace", "path": "/spec/size", "value": 5}))
    assert widgets.create("x")["spec"]["size"] == 5


@page(pages.ADMISSION, "response")
def test_updates_are_mutated(configure: Configure, widgets: Widgets) -> None:
    widgets.create("x")
    configure("Mutating", patch({"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}))
    found = widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 2}}).ok()
    assert found["metadata"]["labels"] == {"a": "b"}


@page(pages.ADMISSION, "response")
def test_a_mutating_webhook_can_refuse(configure: Configure, widgets: Widgets) -> None:
    configure("Mutating", deny("never", code=403))
    assert widgets.cluster.post(widgets.path, widgets.make("x")).code == 403


@page(pages.ADMISSION, "reinvocation-policy")
def test_reinvocation(configure: Configure, widgets: Widgets, webhook: Webhook) -> None:
    first = configure("Mutating", reinvocationPolicy="IfNeeded")
    never = configure("Mutating")
    configure("Mutating", patch({"op": "replace", "path": "/spec/size", "value": 6}))
    webhook.seen[first].clear()
    webhook.seen[never].clear()
    widgets.create("x")
    sizes = [request["object"]["spec"]["size"] for request in webhook.seen[first]]
    assert sizes == [1, 6]
    assert len(webhook.seen[never]) == 1


@page(pages.ADMISSION, "response")
def test_a_patch_must_be_a_json_patch(configure: Configure, widgets: Widgets) -> None:
    configure("Mutating", lambda _: {"allowed": True, "patch": "W10="})
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert reply.code == 500
    assert "failed calling webhook" in reply.message


# Selection


@page(pages.ADMISSION, "matching-requests-objectselector")
def test_object_selectors(configure: Configure, widgets: Widgets) -> None:
    selector = {"matchLabels": {"guarded": "yes"}}
    configure("Validating", deny(), objectSelector=selector, await_path=False)
    _settle(
        lambda: widgets.cluster.post(
            widgets.path, widgets.make("x", labels={"guarded": "yes"}), dryRun="All"
        ).code == 400
    )  # fmt: skip
    widgets.create("y")
    widgets.cluster.merge(widgets.at("y"), {"metadata": {"labels": {"guarded": "no"}}}).ok()
    refused = widgets.cluster.merge(widgets.at("y"), {"metadata": {"labels": {"guarded": "yes"}}})
    assert refused.code == 400


@page(pages.ADMISSION, "matching-requests-namespaceselector")
def test_namespace_selectors(configure: Configure, widgets: Widgets, cluster: Cluster) -> None:
    configure("Validating", deny())
    other = Widgets(cluster, "default")
    other.create("elsewhere")
    cluster.delete(other.at("elsewhere")).ok()


@page(pages.ADMISSION, "matching-requests-rules")
def test_operations_limit_a_rule(configure: Configure, widgets: Widgets, webhook: Webhook) -> None:
    path = configure("Validating", rules=[{**WIDGETS_RULE, "operations": ["CREATE"]}])
    widgets.create("x")
    widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 2}}).ok()
    assert len(webhook.seen[path]) == 1


@page(pages.ADMISSION, "matching-requests-rules")
def test_scope_limits_a_rule(configure: Configure, widgets: Widgets, webhook: Webhook) -> None:
    rule = {**WIDGETS_RULE, "scope": "Cluster"}
    path = configure("Validating", deny(), rules=[rule], await_path=False)
    configure("Validating")  # by the time that this is asked, so would be the other
    widgets.create("x")
    assert webhook.seen[path] == []


@page(pages.ADMISSION, "matching-requests-matchconditions")
def test_match_conditions(configure: Configure, widgets: Widgets, webhook: Webhook) -> None:
    condition = {"name": "big", "expression": "object != null && object.spec.size > 5"}
    path = configure("Validating", deny(), matchConditions=[condition], await_path=False)
    _settle(
        lambda: widgets.cluster.post(
            widgets.path, widgets.make("x", {"size": 6}), dryRun="All"
        ).code == 400
    )  # fmt: skip
    webhook.seen[path].clear()
    widgets.create("y", {"size": 5})
    assert webhook.seen[path] == []


@page(pages.ADMISSION, "matching-requests-matchconditions")
def test_match_conditions_see_the_request(
    configure: Configure, widgets: Widgets, webhook: Webhook
) -> None:
    conditions = [
        {"name": "op", "expression": "request.operation == 'CREATE'"},
        {"name": "who", "expression": "'system:masters' in request.userInfo.groups"},
        {"name": "name", "expression": "oldObject == null"},
    ]
    path = configure("Validating", matchConditions=conditions)
    widgets.create("x")
    widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 2}}).ok()
    assert len(webhook.seen[path]) == 1


@page(pages.ADMISSION, "matching-requests-matchconditions")
def test_match_conditions_ask_the_authorizer(
    configure: Configure, widgets: Widgets, webhook: Webhook
) -> None:
    """kubernetes.io/docs: CEL in Kubernetes, authorizer library."""
    asked = "authorizer.group('apps').resource('deployments').namespace('default')"
    conditions = [
        {"name": "may", "expression": f"{asked}.check('delete').allowed()"},
        {"name": "this", "expression": "authorizer.requestResource.check('create').allowed()"},
        {"name": "path", "expression": "!authorizer.path('/metrics').check('get').errored()"},
    ]
    path = configure("Validating", matchConditions=conditions)
    widgets.create("x")
    assert len(webhook.seen[path]) == 1


@page(pages.ADMISSION, "matching-requests-rules")
def test_built_in_kinds_are_admitted_too(
    configure: Configure, cluster: Cluster, namespace: str
) -> None:
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps"], "scope": "*"}  # fmt: skip
    configure("Validating", deny(code=403), rules=[rule], await_path=False)
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    _settle(lambda: cluster.post(path, {"metadata": {"name": "x"}}, dryRun="All").code == 403)


# Failures


@page(pages.ADMISSION, "failure-policy")
def test_an_absent_webhook_fails_the_request(configure: Configure, widgets: Widgets) -> None:
    client = {"url": f"https://127.0.0.1:{free_port()}/x"}
    configure("Validating", clientConfig=client, await_path=False)
    _settle(lambda: widgets.cluster.post(widgets.path, widgets.make("x"), dryRun="All").code == 500)
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert reply.json["reason"] == "InternalError"
    assert "failed calling webhook" in reply.message
    assert "failed to call webhook: Post" in reply.message


@page(pages.ADMISSION, "failure-policy")
def test_failures_can_be_ignored(configure: Configure, widgets: Widgets) -> None:
    client = {"url": f"https://127.0.0.1:{free_port()}/x"}
    configure("Validating", clientConfig=client, failurePolicy="Ignore", await_path=False)
    configure("Validating")
    widgets.create("x")


@page(pages.ADMISSION, "timeouts")
def test_a_slow_webhook_times_out(configure: Configure, widgets: Widgets) -> None:
    slow = [0.0]

    def answer(_: dict[str, Any]) -> dict[str, Any]:
        time.sleep(slow[0])
        return {"allowed": True}

    configure("Validating", answer, timeoutSeconds=1)
    slow[0] = 3.0
    started = time.monotonic()
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert reply.code == 500
    assert "context deadline exceeded" in reply.message
    assert time.monotonic() - started < 2.9


@page(pages.ADMISSION, "contacting-the-webhook")
def test_a_webhook_with_a_strange_certificate_is_not_asked(
    configure: Configure, widgets: Widgets, webhook: Webhook
) -> None:
    path = "/strange"
    client = {"url": webhook.config(path, allow)["url"]}  # the system's authorities alone
    configure("Validating", clientConfig=client, await_path=False)
    _settle(lambda: widgets.cluster.post(widgets.path, widgets.make("x"), dryRun="All").code == 500)
    assert webhook.seen[path] == []


@page(pages.ADMISSION, "response")
def test_an_answer_to_another_question_is_refused(configure: Configure, widgets: Widgets) -> None:
    configure("Validating", lambda _: {"allowed": True, "uid": "another"})
    reply = widgets.cluster.post(widgets.path, widgets.make("x"))
    assert reply.code == 500
    assert "expected response.uid" in reply.message


@page(pages.ADMISSION, "matching-requests-matchconditions")
def test_a_condition_that_cannot_be_evaluated_refuses(
    configure: Configure, widgets: Widgets
) -> None:
    condition = {"name": "broken", "expression": "object.spec.missing.deeper == 1"}
    configure("Validating", matchConditions=[condition], await_path=False)
    _settle(lambda: widgets.cluster.post(widgets.path, widgets.make("x"), dryRun="All").code == 403)
