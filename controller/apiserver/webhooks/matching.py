"""Whether a write concerns a webhook: rules, scope, equivalent versions, selectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.apiserver.catalog import Catalog, Resource
from controller.apiserver.selectors import labels_of, selected_by

Wire = dict[str, Any]
EXCLUDED = "admissionregistration.k8s.io"
"""Webhooks cannot lock themselves in."""


@dataclass(frozen=True)
class HookRule:
    """One rule of a webhook. A resource is ``name``, ``name/sub``, ``*``, ``*/*`` or the like."""

    operations: tuple[str, ...]
    groups: tuple[str, ...]
    versions: tuple[str, ...]
    resources: tuple[str, ...]
    scope: str

    @classmethod
    def of(cls, wire: Mapping[str, Any]) -> HookRule:
        return cls(
            tuple(wire.get("operations") or ()),
            tuple(wire.get("apiGroups") or ()),
            tuple(wire.get("apiVersions") or ()),
            tuple(wire.get("resources") or ()),
            wire.get("scope") or "*",
        )

    def matches(self, operation: str, resource: Resource, subresource: str) -> bool:
        return (
            _holds(self.operations, operation)
            and _holds(self.groups, resource.group)
            and _holds(self.versions, resource.version)
            and self.scope in ("*", "Namespaced" if resource.namespaced else "Cluster")
            and any(_names(pattern, resource.plural, subresource) for pattern in self.resources)
        )


def _holds(values: Sequence[str], value: str) -> bool:
    return "*" in values or value in values


def _names(pattern: str, resource: str, subresource: str) -> bool:
    name, _, sub = pattern.partition("/")
    return name in ("*", resource) and sub in ("*", subresource)


def seen_as(
    rules: Iterable[HookRule], operation: str, resource: Resource, subresource: str,
    siblings: Sequence[Resource],
) -> Resource | None:  # fmt: skip
    """The form in which a webhook is to see a resource; None if it does not want to.

    ``siblings``: the same objects in other versions or groups, for matchPolicy Equivalent.
    """
    for form in (resource, *siblings):
        if any(rule.matches(operation, form, subresource) for rule in rules):
            return form
    return None


def siblings(catalog: Catalog, resource: Resource) -> list[Resource]:
    return [
        other for other in catalog if other.storage == resource.storage and other is not resource
    ]


def selected(
    namespace_selector: Mapping[str, Any], object_selector: Mapping[str, Any],
    namespace: Wire | None, objects: Iterable[Wire | None],
) -> bool:  # fmt: skip
    """``namespace``: the object's, or None where there is none, which every selector matches."""
    if namespace is not None and not selected_by(namespace_selector, labels_of(namespace)):
        return False
    if not object_selector:
        return True
    return any(obj is not None and selected_by(object_selector, labels_of(obj)) for obj in objects)
