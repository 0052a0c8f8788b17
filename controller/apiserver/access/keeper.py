"""Makes and keeps what every cluster has: default roles, default accounts, aggregated roles.

One task looks at what a change may concern. It reads the state, never the change, and looks at
everything once at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from controller.apiserver.access import defaults, rbac
from controller.apiserver.admission import User
from controller.apiserver.auth import MASTERS
from controller.apiserver.catalog import Catalog, Resource
from controller.apiserver.errors import ApiError
from controller.apiserver.registry import Registry
from controller.apiserver.selectors import selected_by
from controller.apiserver.store import Change, ChangeType, ObjectKey, Store
from controller.apiserver.writes import WriteOptions

Wire = dict[str, Any]
_log = logging.getLogger(__name__)
_OWN = WriteOptions(User("system:apiserver", frozenset({MASTERS})), internal=True)
_ACCOUNTS, _NAMESPACES = "/serviceaccounts", "/namespaces"
_DEFAULT = "default"
_RETRY_SECONDS = 1.0


class Keeper:
    """``start`` makes what is missing before it returns, then follows the changes."""

    def __init__(self, store: Store, catalog: Catalog, registry: Registry) -> None:
        self._store = store
        self._catalog = catalog
        self._registry = registry
        self._namespaces: dict[str, None] = {}
        self._roles_changed = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        wanted = [*defaults.cluster_roles(), *defaults.cluster_role_bindings()]
        await asyncio.gather(*(self._ensure(wire) for wire in wanted))
        keys = self._store.shelf(_NAMESPACES).keys()
        await asyncio.gather(*(self._ensure_account(name) for _, name in keys))
        await self._aggregate()
        self._store.listen(self._on_change)
        self._task = asyncio.create_task(self._run(), name="apiserver-keeper")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # Following

    def _on_change(self, change: Change) -> None:
        key = change.key
        if key.resource == _NAMESPACES and change.type is not ChangeType.DELETED:
            self._look(key.name)
        elif key.resource == _ACCOUNTS:
            if key.name == _DEFAULT and change.type is ChangeType.DELETED:
                self._look(key.namespace)
        elif key.resource == rbac.CLUSTER_ROLES:
            self._roles_changed = True
            self._wake.set()

    def _look(self, namespace: str) -> None:
        self._namespaces[namespace] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._work()
            except ApiError as error:
                _log.info("will try again", extra={"error": error.message})
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._wake.set)
            except Exception:
                _log.exception("cannot keep default accounts and roles")

    async def _work(self) -> None:
        while self._namespaces:
            namespace = next(iter(self._namespaces))
            await self._ensure_account(namespace)
            self._namespaces.pop(namespace, None)
        if self._roles_changed:
            self._roles_changed = False
            await self._aggregate()

    # Accounts

    async def _ensure_account(self, namespace: str) -> None:
        if self._store.head(ObjectKey(_ACCOUNTS, namespace, _DEFAULT)) is not None:
            return
        entry = self._store.get(ObjectKey(_NAMESPACES, "", namespace))
        if entry is None or entry.object()["metadata"].get("deletionTimestamp"):
            return
        wire = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _DEFAULT}}
        resource = self._resource("", "serviceaccounts")
        try:
            await self._registry.create(resource, namespace, wire, _OWN)
        except ApiError as error:
            if error.code not in (403, 404, 409):  # it is there, or its namespace is going
                raise

    def _resource(self, group: str, plural: str) -> Resource:
        found = self._catalog.get(group, "v1", plural)
        assert found is not None
        return found

    # Roles

    async def _ensure(self, wire: Wire) -> None:
        """Make a default object, or give it what it has lost (unless somebody forbids that)."""
        resource = self._resource(rbac.GROUP, f"{wire['kind'].lower()}s")
        name = wire["metadata"]["name"]
        entry = self._store.get(ObjectKey(resource.storage, "", name))
        if entry is None:
            with contextlib.suppress(ApiError):
                await self._registry.create(resource, "", wire, _OWN)
            return
        there = entry.object()
        kept = (there["metadata"].get("annotations") or {}).get(defaults.AUTO_UPDATE) == "true"
        if kept and _lost(there, wire):
            await self._registry.update(
                resource, "", name, lambda current: _completed(current, wire), _OWN
            )

    async def _aggregate(self) -> None:
        resource = self._resource(rbac.GROUP, "clusterroles")
        shelf = self._store.shelf(rbac.CLUSTER_ROLES)
        roles = [entry.object() for entry in shelf.entries(shelf.keys())]
        for role in roles:
            if role.get("aggregationRule") and not role["metadata"].get("deletionTimestamp"):
                rules = collected(role, roles)
                if rules != (role.get("rules") or []):
                    await self._set_rules(resource, role["metadata"]["name"], rules)

    async def _set_rules(self, resource: Resource, name: str, rules: list[Wire]) -> None:
        def mutate(current: Wire) -> Wire:
            return {**current, "rules": rules}

        try:
            await self._registry.update(resource, "", name, mutate, _OWN)
        except ApiError as error:
            if error.code != 404:
                raise


def collected(role: Mapping[str, Any], roles: list[Wire]) -> list[Wire]:
    """The rules of all roles that an aggregating one selects, each once, in order of names."""
    selectors = role["aggregationRule"].get("clusterRoleSelectors") or ()
    found: list[Wire] = []
    for other in roles:
        if other["metadata"]["name"] == role["metadata"]["name"]:
            continue
        labels = other["metadata"].get("labels") or {}
        if any(selected_by(selector, labels) for selector in selectors):
            found.extend(rule for rule in other.get("rules") or () if rule not in found)
    return found


def _lost(there: Wire, wanted: Wire) -> bool:
    return any(
        item not in (there.get(key) or [])
        for key in ("rules", "subjects")
        for item in wanted.get(key, ())
    )


def _completed(current: Wire, wanted: Wire) -> Wire:
    for key in ("rules", "subjects"):
        there = current.get(key) or []
        more = [item for item in wanted.get(key, ()) if item not in there]
        if more:
            current[key] = [*there, *more]
    return current
