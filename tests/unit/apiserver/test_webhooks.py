"""Webhooks: what is valid, whom they concern, what their answers mean."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.apiserver.admission import User
from controller.apiserver.auth import Attempt, Decision
from controller.apiserver.builtins import builtins
from controller.apiserver.webhooks import conditions, kinds, matching, permissions
from controller.apiserver.webhooks.client import CallFailed, read_verdict
from controller.apiserver.webhooks.dispatcher import refusal
from controller.apiserver.webhooks.matching import HookRule

_EVENTS = {r.group: r for r in builtins() if r.plural == "events"}
_MAPS = next(r for r in builtins() if r.plural == "configmaps")
AUTHORIZER = permissions.variable(_MAPS, "", "here", "x")
_NAMESPACES = next(r for r in builtins() if r.plural == "namespaces")


def _hook(**more: Any) -> dict[str, Any]:
    hook = {
        "name": "a.example.com",
        "clientConfig": {"url": "https://127.0.0.1:9443/x"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                   "resources": ["configmaps"]}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **more,
    }  # fmt: skip
    return {"metadata": {"name": "x"}, "webhooks": [hook]}


def _paths(wire: dict[str, Any]) -> list[str]:
    return [error.path.removeprefix("webhooks[0].") for error in kinds.check(wire, None)]


def test_a_plain_webhook_is_valid() -> None:
    assert _paths(_hook()) == []


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"name": "short"}, "name"),
        ({"clientConfig": {}}, "clientConfig"),
        ({"clientConfig": {"service": {"name": "s", "namespace": "n"}}}, "clientConfig.service"),
        ({"clientConfig": {"url": "http://x/y"}}, "clientConfig.url"),
        ({"clientConfig": {"url": "https://u:p@x/y"}}, "clientConfig.url"),
        ({"clientConfig": {"url": "https://x/y?z=1"}}, "clientConfig.url"),
        ({"clientConfig": {"url": "https://[x/y"}}, "clientConfig.url"),
        ({"sideEffects": "Some"}, "sideEffects"),
        ({"failurePolicy": "Maybe"}, "failurePolicy"),
        ({"timeoutSeconds": 31}, "timeoutSeconds"),
        ({"timeoutSeconds": 0}, "timeoutSeconds"),
        ({"admissionReviewVersions": ["v1beta1"]}, "admissionReviewVersions"),
        ({"matchConditions": [{"name": "n", "expression": "object +"}]},
         "matchConditions[0].expression"),
        ({"matchConditions": [{"name": "n", "expression": "1"}]}, "matchConditions[0].expression"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(more: dict[str, Any], path: str) -> None:
    assert _paths(_hook(**more)) == [path]


def test_services_are_refused_with_the_way_out() -> None:
    service = {"service": {"name": "s", "namespace": "n"}}
    (error,) = kinds.check(_hook(clientConfig=service), None)
    assert "url" in error.body


@pytest.mark.parametrize(
    ("pattern", "subresource", "matches"),
    [("configmaps", "", True), ("configmaps", "status", False), ("*", "", True),
     ("*", "status", False), ("*/*", "status", True), ("*/*", "", True),
     ("configmaps/*", "status", True), ("*/status", "status", True), ("secrets", "", False)],
)  # fmt: skip
def test_resources_of_rules(pattern: str, subresource: str, matches: bool) -> None:
    rule = HookRule(("*",), ("*",), ("*",), (pattern,), "*")
    assert rule.matches("CREATE", _MAPS, subresource) is matches


def test_namespaces_are_of_the_clusters_scope() -> None:
    namespaced = HookRule(("*",), ("*",), ("*",), ("*",), "Namespaced")
    assert namespaced.matches("CREATE", _MAPS, "")
    assert not namespaced.matches("CREATE", _NAMESPACES, "")


def test_an_equivalent_form_is_found() -> None:
    core, other = _EVENTS[""], _EVENTS["events.k8s.io"]
    rules = [HookRule(("CREATE",), ("events.k8s.io",), ("v1",), ("events",), "*")]
    assert matching.seen_as(rules, "CREATE", core, "", [other]) is other
    assert matching.seen_as(rules, "CREATE", core, "", []) is None


def test_selectors() -> None:
    namespace = {"metadata": {"labels": {"env": "prod"}}}
    wanted = {"matchExpressions": [{"key": "env", "operator": "In", "values": ["prod"]}]}
    assert matching.selected(wanted, {}, namespace, ())
    assert not matching.selected(wanted, {}, {"metadata": {}}, ())
    assert matching.selected(wanted, {}, None, ())
    old, new = {"metadata": {"labels": {"a": "b"}}}, {"metadata": {}}
    assert matching.selected({}, {"matchLabels": {"a": "b"}}, None, (new, old))
    assert not matching.selected({}, {"matchLabels": {"a": "b"}}, None, (new, None))


def _variables(obj: Any) -> dict[str, Any]:
    request = {"operation": "CREATE"}
    return {"object": obj, "oldObject": None, "request": request, "authorizer": AUTHORIZER}


def test_a_false_condition_decides_over_one_that_fails() -> None:
    broken = {"name": "broken", "expression": "object.nothing.at == 1"}
    false = {"name": "false", "expression": "object.size > 5"}
    assert conditions.hold([broken, false], _variables({"size": 1})) is False
    with pytest.raises(conditions.Undecided, match="broken"):
        conditions.hold([broken], _variables({"size": 1}))


def _review(**response: Any) -> bytes:
    return orjson.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    )


def test_verdicts() -> None:
    patch = base64.b64encode(b'[{"op":"add","path":"/a","value":1}]').decode()
    found = read_verdict(
        _review(uid="u", allowed=True, patch=patch, patchType="JSONPatch", warnings=["w"]), "u"
    )
    assert found.allowed
    assert found.patch == [{"op": "add", "path": "/a", "value": 1}]
    assert found.warnings == ["w"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"response": 1}', _review(uid="other", allowed=True),
     _review(uid="u", allowed=True, patch="W10="),
     _review(uid="u", allowed=True, patch="%%", patchType="JSONPatch"),
     _review(uid="u", allowed=True, patch="e30=", patchType="JSONPatch"),
     _review(uid="u", allowed=True, patch=7, patchType="JSONPatch")],
)  # fmt: skip
def test_unusable_answers(raw: bytes) -> None:
    with pytest.raises(CallFailed):
        read_verdict(raw, "u")


@given(st.binary(max_size=200))
def test_noise_is_no_verdict(raw: bytes) -> None:
    with pytest.raises(CallFailed):
        read_verdict(raw, "u")


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.fixed_dictionaries(
    {}, optional={"code": _json, "message": _json, "reason": _json, "details": _json}
))  # fmt: skip
def test_any_status_makes_a_refusal(status: dict[str, Any]) -> None:
    found = refusal("w", status)
    assert 400 <= found.code <= 599
    orjson.dumps(found.status())


@given(_json, _json, _json)
def test_any_response_is_read_or_refused(warnings: Any, status: Any, allowed: Any) -> None:
    try:
        raw = _review(uid="u", warnings=warnings, status=status, allowed=allowed)
        found = read_verdict(raw, "u")
    except CallFailed:
        return
    assert found.allowed is (allowed is True)


def _may(attempt: Attempt) -> Decision:
    """ann may read config maps here, the robot may do all, everybody may see /ok."""
    if attempt.user.name == "system:serviceaccount:here:robot":
        return Decision(True, "a robot")
    reads = (attempt.verb, attempt.resource, attempt.namespace) == ("get", "configmaps", "here")
    return Decision((attempt.user.name == "ann" and reads) or attempt.path == "/ok")


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("authorizer.group('').resource('configmaps').namespace('here').check('get').allowed()", 1),
        ("authorizer.group('').resource('configmaps').namespace('off').check('get').allowed()", 0),
        ("authorizer.group('').resource('configmaps').namespace('here').name('y')"
         ".check('delete').allowed()", 0),
        ("authorizer.requestResource.check('get').allowed()", 1),
        ("authorizer.requestResource.check('update').allowed()", 0),
        ("authorizer.path('/ok').check('get').allowed()", 1),
        ("authorizer.path('/no').check('get').allowed()", 0),
        ("authorizer.serviceAccount('here', 'robot').group('apps').resource('deployments')"
         ".subresource('scale').check('update').allowed()", 1),
        ("authorizer.serviceAccount('here', 'robot').path('/x').check('get').reason()"
         " == 'a robot'", 1),
        ("authorizer.requestResource.check('get').errored()", 0),
    ],
)  # fmt: skip
def test_conditions_ask_the_authorizer(expression: str, holds: int) -> None:
    variables = _variables(None)
    wanted = [{"name": "c", "expression": expression}]
    with permissions.asking(_may, User("ann")):
        assert conditions.hold(wanted, variables) is bool(holds)


@pytest.mark.parametrize(
    "expression",
    ["authorizer.group('').check('get').allowed()", "authorizer.allowed()",
     "authorizer.path('/x').resource('y').check('get').allowed()"],
)  # fmt: skip
def test_a_question_to_the_authorizer_must_be_complete(expression: str) -> None:
    variables = _variables(None)
    with permissions.asking(_may, User("ann")), pytest.raises(conditions.Undecided):
        conditions.hold([{"name": "c", "expression": expression}], variables)
