"""RBAC rules as plain values: what they allow, what they cover, how they are written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.apiserver.auth import Attempt

ALL = "*"


@dataclass(frozen=True)
class Rule:
    """rbac.authorization.k8s.io PolicyRule. No ``names``: every name."""

    verbs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def of(cls, wire: Mapping[str, Any]) -> Rule:
        return cls(
            tuple(wire.get("verbs") or ()),
            tuple(wire.get("apiGroups") or ()),
            tuple(wire.get("resources") or ()),
            tuple(wire.get("resourceNames") or ()),
            tuple(wire.get("nonResourceURLs") or ()),
        )

    def wire(self) -> dict[str, Any]:
        found = {
            "verbs": self.verbs,
            "apiGroups": self.groups,
            "resources": self.resources,
            "resourceNames": self.names,
            "nonResourceURLs": self.urls,
        }
        return {key: list(value) for key, value in found.items() if value}

    def allows(self, attempt: Attempt) -> bool:
        if not _holds(self.verbs, attempt.verb):
            return False
        if not attempt.resource:
            return any(url_covers(url, attempt.path) for url in self.urls)
        return (
            _holds(self.groups, attempt.group)
            and _resource_covered(self.resources, attempt.resource, attempt.subresource)
            and (not self.names or attempt.name in self.names)
        )


def rules_of(wire: Mapping[str, Any]) -> tuple[Rule, ...]:
    return tuple(Rule.of(rule) for rule in wire.get("rules") or ())


def _holds(values: Sequence[str], value: str) -> bool:
    return value in values or ALL in values


def _resource_covered(resources: Sequence[str], resource: str, subresource: str) -> bool:
    if ALL in resources:
        return True
    if not subresource:
        return resource in resources
    return f"{resource}/{subresource}" in resources or f"*/{subresource}" in resources


def url_covers(pattern: str, path: str) -> bool:
    """``/a/*`` covers all below; another pattern only itself."""
    if pattern in (ALL, path):
        return True
    return pattern.endswith("*") and path.startswith(pattern.rstrip("*"))


# Covering: may somebody who holds some rules hand out others?


def missing(held: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The atoms of ``wanted`` that no rule in ``held`` covers."""
    return [
        atom
        for rule in wanted
        for atom in atoms(rule)
        if not any(_covers(owner, atom) for owner in held)
    ]


def atoms(rule: Rule) -> Iterator[Rule]:
    """A rule as rules of one verb, group, resource and name each."""
    for verb, group, resource in itertools.product(rule.verbs, rule.groups, rule.resources):
        if rule.names:
            for name in rule.names:
                yield Rule((verb,), (group,), (resource,), (name,))
        else:
            yield Rule((verb,), (group,), (resource,))
    for verb, url in itertools.product(rule.verbs, rule.urls):
        yield Rule((verb,), urls=(url,))


def _covers(owner: Rule, atom: Rule) -> bool:
    if not _holds(owner.verbs, atom.verbs[0]):
        return False
    if atom.urls:
        return any(url_covers(url, atom.urls[0]) for url in owner.urls)
    resource, _, subresource = atom.resources[0].partition("/")
    return (
        _holds(owner.groups, atom.groups[0])
        and _resource_covered(owner.resources, resource, subresource)
        and (not owner.names or (bool(atom.names) and atom.names[0] in owner.names))
    )


def described(rules: Iterable[Rule]) -> list[str]:
    """Rules as errors show them: verbs of one resource together, in order."""
    together: dict[Rule, list[str]] = {}
    for rule in rules:
        rest = Rule((), rule.groups, rule.resources, rule.names, rule.urls)
        together.setdefault(rest, []).extend(rule.verbs)
    return sorted(_described(rest, verbs) for rest, verbs in together.items())


def _described(rule: Rule, verbs: Sequence[str]) -> str:
    parts = (
        ("APIGroups", rule.groups),
        ("Resources", rule.resources),
        ("NonResourceURLs", rule.urls),
        ("ResourceNames", rule.names),
        ("Verbs", verbs),
    )
    return "{" + ", ".join(f"{name}:{quoted(values)}" for name, values in parts if values) + "}"


def quoted(values: Iterable[str]) -> str:
    """As Go's %q writes a list of strings."""
    return "[" + " ".join(json.dumps(value) for value in values) + "]"
