"""What is right in roles and bindings, and what is filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.apiserver import errors
from controller.apiserver.access.rbac import GROUP
from controller.apiserver.errors import FieldError

Wire = dict[str, Any]
_SUBJECTS = ("ServiceAccount", "User", "Group")


def fill_binding(new: Wire, old: Mapping[str, Any] | None) -> None:
    """The API groups of subjects and of the role."""
    reference = new.get("roleRef")
    if isinstance(reference, dict) and not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in new.get("subjects") or ():
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = GROUP


def check_role(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    return list(_rules(new, namespaced=True))


def check_cluster_role(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    found = list(_rules(new, namespaced=False))
    aggregation = new.get("aggregationRule")
    if aggregation is not None and not aggregation.get("clusterRoleSelectors"):
        found.append(
            errors.required(
                "aggregationRule.clusterRoleSelectors",
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            )
        )
    return found


def _rules(wire: Mapping[str, Any], *, namespaced: bool) -> Iterator[FieldError]:
    for index, rule in enumerate(wire.get("rules") or ()):
        yield from _rule(rule, f"rules[{index}]", namespaced)


def _rule(rule: Mapping[str, Any], path: str, namespaced: bool) -> Iterator[FieldError]:
    if not rule.get("verbs"):
        yield errors.required(f"{path}.verbs", "verbs must contain at least one value")
    urls = rule.get("nonResourceURLs")
    if urls:
        if namespaced:
            detail = "namespaced rules cannot apply to non-resource URLs"
            yield errors.invalid(f"{path}.nonResourceURLs", urls, detail)
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            yield errors.invalid(f"{path}.nonResourceURLs", urls, detail)
        return
    if not rule.get("apiGroups"):
        detail = "resource rules must supply at least one api group"
        yield errors.required(f"{path}.apiGroups", detail)
    if not rule.get("resources"):
        yield errors.required(
            f"{path}.resources", "resource rules must supply at least one resource"
        )


def check_role_binding(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    return list(_binding(new, old, ("Role", "ClusterRole")))


def check_cluster_role_binding(
    new: Mapping[str, Any], old: Mapping[str, Any] | None
) -> list[FieldError]:
    return list(_binding(new, old, ("ClusterRole",)))


def _binding(
    new: Mapping[str, Any], old: Mapping[str, Any] | None, kinds: tuple[str, ...]
) -> Iterator[FieldError]:
    reference = new.get("roleRef") or {}
    if old is not None and reference != old.get("roleRef"):
        yield errors.invalid("roleRef", reference, "cannot change roleRef")
    if reference.get("apiGroup", GROUP) != GROUP:
        yield errors.not_supported("roleRef.apiGroup", reference.get("apiGroup", ""), (GROUP,))
    if reference.get("kind", "") not in kinds:
        yield errors.not_supported("roleRef.kind", reference.get("kind", ""), kinds)
    if not reference.get("name"):
        yield errors.required("roleRef.name")
    for index, subject in enumerate(new.get("subjects") or ()):
        yield from _subject(subject, f"subjects[{index}]", not new["metadata"].get("namespace"))


def _subject(subject: Mapping[str, Any], path: str, cluster: bool) -> Iterator[FieldError]:
    kind, group = subject.get("kind", ""), subject.get("apiGroup", "")
    if not subject.get("name"):
        yield errors.required(f"{path}.name")
    if kind not in _SUBJECTS:
        yield errors.not_supported(f"{path}.kind", kind, _SUBJECTS)
    elif kind == "ServiceAccount":
        if group:
            yield errors.not_supported(f"{path}.apiGroup", group, ("",))
        if cluster and not subject.get("namespace"):
            yield errors.required(f"{path}.namespace")
    elif group != GROUP:
        yield errors.not_supported(f"{path}.apiGroup", group, (GROUP,))
