"""Nobody hands out rights that he does not have (the documented privilege escalation checks)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.apiserver import errors
from controller.apiserver.access import rbac
from controller.apiserver.access.rbac import Rbac, RoleMissing
from controller.apiserver.access.rules import Rule, described, missing, quoted, rules_of
from controller.apiserver.admission import User
from controller.apiserver.auth import MASTERS, Attempt
from controller.apiserver.catalog import Resource

Wire = Mapping[str, Any]


@dataclass(frozen=True)
class Giver:
    """Who writes a role or binding, of what kind and where."""

    authorizer: Rbac
    user: User
    resource: Resource
    namespace: str

    def check(self, new: Wire, old: Wire | None) -> None:
        """Raises ApiError (403) if it would grant more than the writer has."""
        if MASTERS in self.user.groups:
            return
        if self.resource.storage in (rbac.ROLES, rbac.CLUSTER_ROLES):
            self._check_role(new, old)
        else:
            self._check_binding(new, old)

    def _may(self, verb: str, plural: str, name: str) -> bool:
        attempt = Attempt(self.user, verb, "", rbac.GROUP, plural, "", self.namespace, name)
        return self.authorizer(attempt).allowed

    def _check_role(self, new: Wire, old: Wire | None) -> None:
        if old is not None and _same(new, old, "rules", "aggregationRule"):
            return
        name = new["metadata"].get("name", "")
        if self._may("escalate", self.resource.plural, name):
            return
        # Whoever says what is collected may come to anything.
        wanted: Sequence[Rule] = rbac.EVERYTHING if new.get("aggregationRule") else rules_of(new)
        self._confirm(name, wanted)

    def _check_binding(self, new: Wire, old: Wire | None) -> None:
        if old is not None and _same(new, old, "subjects", "roleRef"):
            return
        reference = new.get("roleRef") or {}
        plural = "roles" if reference.get("kind") == "Role" else "clusterroles"
        if self._may("bind", plural, reference.get("name", "")):
            return
        try:
            wanted = self.authorizer.role_rules(reference, self.namespace)
        except RoleMissing as error:
            raise errors.not_found(rbac.GROUP, plural, error.name) from None
        self._confirm(new["metadata"].get("name", ""), wanted)

    def _confirm(self, name: str, wanted: Iterable[Rule]) -> None:
        lacking = missing(self.authorizer.rules(self.user, self.namespace), wanted)
        if not lacking:
            return
        groups = quoted(sorted(self.user.groups))
        why = (
            f"user {errors.render(self.user.name)} (groups={groups}) is attempting to grant RBAC "
            "permissions not currently held:\n" + "\n".join(described(lacking))
        )
        raise errors.forbidden(self.resource.group, self.resource.plural, name, why)


def _same(new: Wire, old: Wire, *keys: str) -> bool:
    return all((new.get(key) or None) == (old.get(key) or None) for key in keys)
