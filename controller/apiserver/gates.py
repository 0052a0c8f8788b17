"""What every write passes beside the schema: webhooks, and the check against escalation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.apiserver.access import rbac
from controller.apiserver.access.escalation import Giver
from controller.apiserver.access.rbac import Rbac
from controller.apiserver.admission import User
from controller.apiserver.catalog import Resource

Wire = dict[str, Any]


class Gates:
    """Asked by the registry. Everything refused raises ApiError."""

    def __init__(self, authorizer: Rbac) -> None:
        self._rbac = authorizer

    def check_rights(
        self, resource: Resource, namespace: str, user: User, new: Wire,
        old: Mapping[str, Any] | None,
    ) -> None:  # fmt: skip
        """Before a role or binding is made or changed: may this user hand out such rights?"""
        if resource.storage in rbac.KINDS:
            Giver(self._rbac, user, resource, namespace).check(new, old)
