"""The authorizer: roles and bindings as they are stored, compiled for each user once.

Everything is thrown away when a role or binding changes, and made anew when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.apiserver import errors
from controller.apiserver.access.rules import Rule, rules_of
from controller.apiserver.admission import User
from controller.apiserver.auth import MASTERS, Attempt, Decision
from controller.apiserver.store import Change, ObjectKey, Store

Wire = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
ROLES = f"{GROUP}/roles"
CLUSTER_ROLES = f"{GROUP}/clusterroles"
ROLE_BINDINGS = f"{GROUP}/rolebindings"
CLUSTER_ROLE_BINDINGS = f"{GROUP}/clusterrolebindings"
KINDS = frozenset((ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS))
ACCOUNT_PREFIX = "system:serviceaccount:"
_KEPT_USERS = 1024
EVERYTHING = (Rule(("*",), ("*",), ("*",)), Rule(("*",), urls=("*",)))


class RoleMissing(Exception):
    """A binding names a role that is not there. Arguments: kind, name."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind.lower()}.{GROUP} {errors.render(name)} not found")
        self.kind = kind
        self.name = name


@dataclass(frozen=True)
class Grant:
    """What one binding gives a user, and how an answer names it."""

    rules: tuple[Rule, ...]
    source: str


@dataclass
class _Grants:
    """All that a user has: in the whole cluster (""), and by namespace; what could not be read."""

    by_namespace: dict[str, list[Grant]] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)

    def within(self, namespace: str) -> Iterator[Grant]:
        yield from self.by_namespace.get("", ())
        if namespace:
            yield from self.by_namespace.get(namespace, ())

    def why_broken(self, namespace: str) -> list[str]:
        found = list(self.broken.get("", ()))
        return [*found, *self.broken.get(namespace, ())] if namespace else found


class Rbac:
    """An ``auth.Authorizer``. Members of system:masters may do everything, whatever is stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bindings: list[tuple[str, Wire]] | None = None
        self._users: dict[tuple[str, frozenset[str]], _Grants] = {}
        store.listen(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.key.resource in KINDS:
            self._bindings = None
            self._users.clear()

    def __call__(self, attempt: Attempt) -> Decision:
        if MASTERS in attempt.user.groups:
            return Decision(True)
        grants = self._grants(attempt.user)
        for grant in grants.within(attempt.namespace):
            if any(rule.allows(attempt) for rule in grant.rules):
                return Decision(True, f"RBAC: allowed by {grant.source}")
        broken = grants.why_broken(attempt.namespace)
        if len(broken) > 1:
            broken = ["[" + ", ".join(broken) + "]"]
        return Decision(False, f"RBAC: {broken[0]}" if broken else "")

    def rules(self, user: User, namespace: str) -> list[Rule]:
        """All that a user may do in a namespace (or, with "", in the whole cluster)."""
        if MASTERS in user.groups:
            return list(EVERYTHING)
        return [rule for grant in self._grants(user).within(namespace) for rule in grant.rules]

    def role_rules(self, reference: Mapping[str, Any], namespace: str) -> tuple[Rule, ...]:
        """Raises RoleMissing."""
        kind, name = reference.get("kind", ""), reference.get("name", "")
        if kind == "Role":
            key = ObjectKey(ROLES, namespace, name)
        else:
            key = ObjectKey(CLUSTER_ROLES, "", name)
        entry = self._store.get(key)
        if entry is None:
            raise RoleMissing(kind, name)
        return rules_of(entry.object())

    def _grants(self, user: User) -> _Grants:
        key = (user.name, user.groups)
        found = self._users.get(key)
        if found is None:
            if len(self._users) >= _KEPT_USERS:
                self._users.clear()
            found = self._users[key] = self._compile(user)
        return found

    def _compile(self, user: User) -> _Grants:
        found = _Grants()
        for namespace, binding in self._all_bindings():
            subject = _subject_of(binding, user, namespace)
            if subject is None:
                continue
            reference = binding.get("roleRef") or {}
            try:
                rules = self.role_rules(reference, namespace)
            except RoleMissing as error:
                found.broken.setdefault(namespace, []).append(str(error))
                continue
            source = _described(binding, reference, subject, namespace)
            found.by_namespace.setdefault(namespace, []).append(Grant(rules, source))
        return found

    def _all_bindings(self) -> Sequence[tuple[str, Wire]]:
        if self._bindings is None:
            self._bindings = []
            for resource in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS):
                shelf = self._store.shelf(resource)
                keys = shelf.keys()
                for (namespace, _), entry in zip(keys, shelf.entries(keys), strict=True):
                    self._bindings.append((namespace, entry.object()))
        return self._bindings


def _subject_of(binding: Wire, user: User, namespace: str) -> Wire | None:
    """The subject that means the user, if any does."""
    for subject in binding.get("subjects") or ():
        if _means(subject, user, namespace):
            found: Wire = subject
            return found
    return None


def _means(subject: Wire, user: User, namespace: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User":
        return bool(name == user.name)
    if kind == "Group":
        return name in user.groups
    within = subject.get("namespace") or namespace
    return kind == "ServiceAccount" and user.name == f"{ACCOUNT_PREFIX}{within}:{name}"


def _described(binding: Wire, reference: Wire, subject: Wire, namespace: str) -> str:
    name = binding["metadata"]["name"]
    kind = "ClusterRoleBinding"
    if namespace:
        kind, name = "RoleBinding", f"{name}/{namespace}"
    who = subject["name"]
    if subject["kind"] == "ServiceAccount":
        who = f"{who}/{subject.get('namespace') or namespace}"
    return (
        f"{kind} {errors.render(name)} of {reference.get('kind')} "
        f"{errors.render(reference.get('name'))} to {subject['kind']} {errors.render(who)}"
    )
