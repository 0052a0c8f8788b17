"""ValidatingWebhookConfiguration and MutatingWebhookConfiguration: schema, defaults, validity."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from controller.apiserver import errors
from controller.apiserver.access.kinds import (
    INT32,
    LABEL_SELECTOR,
    STRING,
    STRINGS,
    builtin,
    kind,
    listed,
    numbered,
)
from controller.apiserver.catalog import Resource
from controller.apiserver.errors import FieldError
from controller.apiserver.schema.cel import BadRule
from controller.apiserver.webhooks import conditions

Wire = dict[str, Any]
GROUP = "admissionregistration.k8s.io"
VALIDATING = f"{GROUP}/validatingwebhookconfigurations"
MUTATING = f"{GROUP}/mutatingwebhookconfigurations"
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_DNS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?){2,}\Z")
_MAX_CONDITIONS = 64

_CLIENT = numbered(
    "How to reach the webhook.",
    service=numbered(
        "Not for this server: it runs no services.",
        namespace=STRING, name=STRING, path=STRING, port=INT32,
    ),
    caBundle={"type": "string", "format": "byte"},
    url=STRING,
)  # fmt: skip
_RULE = numbered(
    "What it wants to see.",
    operations=STRINGS, apiGroups=STRINGS, apiVersions=STRINGS, resources=STRINGS, scope=STRING,
)  # fmt: skip
_CONDITION = numbered("A CEL expression.", ("name", "expression"), name=STRING, expression=STRING)


def _hook(**more: Any) -> dict[str, Any]:
    return numbered(
        "One webhook.", ("name", "clientConfig", "sideEffects", "admissionReviewVersions"),
        name=STRING, clientConfig=_CLIENT, rules=listed(_RULE), failurePolicy=STRING,
        namespaceSelector=LABEL_SELECTOR, sideEffects=STRING, timeoutSeconds=INT32,
        admissionReviewVersions=STRINGS, matchPolicy=STRING, **more,
    )  # fmt: skip


def _configuration(hook: dict[str, Any]) -> dict[str, Any]:
    by_name = {
        "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
    }  # fmt: skip
    return kind("Webhooks that are asked about writes.", webhooks={**listed(hook), **by_name})


def webhook_kinds() -> list[Resource]:
    validating = _hook(objectSelector=LABEL_SELECTOR, matchConditions=listed(_CONDITION))
    mutating = _hook(
        reinvocationPolicy=STRING, objectSelector=LABEL_SELECTOR,
        matchConditions=listed(_CONDITION),
    )  # fmt: skip
    more: dict[str, Any] = {
        "name_style": "subdomain",
        "generations": True,
        "categories": ("api-extensions",),
    }
    return [
        builtin(GROUP, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations",
                _configuration(validating), **more),
        builtin(GROUP, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations",
                _configuration(mutating), **more),
    ]  # fmt: skip


def fill_validating(new: Wire, old: Mapping[str, Any] | None) -> None:
    """Defaults, in place."""
    for hook in new.get("webhooks") or ():
        _fill(hook)


def fill_mutating(new: Wire, old: Mapping[str, Any] | None) -> None:
    for hook in new.get("webhooks") or ():
        _fill(hook)
        hook.setdefault("reinvocationPolicy", "Never")


def _fill(hook: Wire) -> None:
    hook.setdefault("failurePolicy", "Fail")
    hook.setdefault("matchPolicy", "Equivalent")
    hook.setdefault("namespaceSelector", {})
    hook.setdefault("objectSelector", {})
    hook.setdefault("timeoutSeconds", 10)
    for rule in hook.get("rules") or ():
        rule.setdefault("scope", "*")


def check(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    """What is wrong with a configuration."""
    found: list[FieldError] = []
    names: set[str] = set()
    for index, hook in enumerate(new.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        found.extend(_check_hook(hook, path))
        if hook.get("name") in names:
            found.append(errors.duplicate(f"{path}.name", hook["name"]))
        names.add(hook.get("name", ""))
    return found


def _check_hook(hook: Wire, path: str) -> Iterator[FieldError]:
    name = hook.get("name", "")
    if not name:
        yield errors.required(f"{path}.name")
    elif not _DNS.match(name):
        yield errors.invalid(
            f"{path}.name",
            name,
            "should be a domain with at least three segments separated by dots",
        )
    versions = hook.get("admissionReviewVersions") or []
    if not versions:
        yield errors.required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1")
    elif "v1" not in versions:
        detail = "must include at least one of v1"
        yield errors.invalid(f"{path}.admissionReviewVersions", versions, detail)
    seconds = hook.get("timeoutSeconds", 10)
    if not 1 <= seconds <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        yield errors.invalid(f"{path}.timeoutSeconds", seconds, detail)
    yield from _choices(hook, path)
    yield from _check_client(hook.get("clientConfig") or {}, f"{path}.clientConfig")
    for index, rule in enumerate(hook.get("rules") or ()):
        yield from _check_rule(rule, f"{path}.rules[{index}]")
    yield from _check_conditions(hook.get("matchConditions") or [], f"{path}.matchConditions")


def _choices(hook: Wire, path: str) -> Iterator[FieldError]:
    allowed = {
        "failurePolicy": ("Fail", "Ignore"),
        "matchPolicy": ("Equivalent", "Exact"),
        "sideEffects": ("None", "NoneOnDryRun"),
        "reinvocationPolicy": ("IfNeeded", "Never"),
    }
    for key, values in allowed.items():
        value = hook.get(key)
        if value is None and key == "sideEffects":
            yield errors.required(f"{path}.sideEffects", f"must specify one of {', '.join(values)}")
        elif value is not None and value not in values:
            yield errors.not_supported(f"{path}.{key}", value, values)


def _check_client(client: Wire, path: str) -> Iterator[FieldError]:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        yield errors.required(path, "exactly one of url or service is required")
    elif service is not None:
        yield errors.forbidden_field(
            f"{path}.service",
            "this server runs no services and cannot reach one by name; give the webhook's address "
            "in url (https://host:port/path)",
        )
    else:
        yield from _check_url(str(url), f"{path}.url")
    try:
        base64.b64decode(client.get("caBundle", ""), validate=True)
    except (binascii.Error, ValueError):
        yield errors.invalid(f"{path}.caBundle", "", "must be base64 of PEM certificates")


def _check_url(url: str, path: str) -> Iterator[FieldError]:
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        yield errors.required(path, f"url must be a valid URL: {error}{form}")
        return
    if parts.scheme != "https":
        yield errors.invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{form}")
    if not host:
        yield errors.invalid(path, "", f"host must be specified{form}")
    if parts.username is not None or parts.password is not None:
        yield errors.invalid(path, "", "user information is not permitted in the URL")
    if parts.fragment:
        yield errors.invalid(path, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        yield errors.invalid(path, parts.query, "query parameters are not permitted in the URL")


def _check_rule(rule: Wire, path: str) -> Iterator[FieldError]:
    operations = rule.get("operations") or []
    if not operations:
        yield errors.required(f"{path}.operations")
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            yield errors.not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS)
    if len(operations) > 1 and "*" in operations:
        detail = "if '*' is present, must not specify other operations"
        yield errors.invalid(f"{path}.operations", operations, detail)
    for key in ("apiGroups", "apiVersions", "resources"):
        values = rule.get(key) or []
        if not values:
            yield errors.required(f"{path}.{key}")
        if key != "resources" and len(values) > 1 and "*" in values:
            what = "groups" if key == "apiGroups" else "API versions"
            detail = f"if '*' is present, must not specify other {what}"
            yield errors.invalid(f"{path}.{key}", values, detail)
    if rule.get("scope", "*") not in ("*", "Cluster", "Namespaced"):
        yield errors.not_supported(f"{path}.scope", rule["scope"], ("*", "Cluster", "Namespaced"))


def _check_conditions(wanted: list[Wire], path: str) -> Iterator[FieldError]:
    if len(wanted) > _MAX_CONDITIONS:
        yield errors.too_many(path, len(wanted), _MAX_CONDITIONS)
        return
    names: set[str] = set()
    for index, condition in enumerate(wanted):
        at = f"{path}[{index}]"
        name, expression = condition.get("name", ""), condition.get("expression", "")
        if not name:
            yield errors.required(f"{at}.name")
        elif name in names:
            yield errors.duplicate(f"{at}.name", name)
        names.add(name)
        if not expression.strip():
            yield errors.required(f"{at}.expression")
            continue
        try:
            conditions.compile_condition(expression)
        except BadRule as error:
            yield errors.invalid(f"{at}.expression", expression, str(error))
