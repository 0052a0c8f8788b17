"""Who is asked before something is stored: the gates, and the one judge in process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from common.logs import bind
from controller.apiserver import admission, decoding, errors
from controller.apiserver.catalog import Catalog, Resource
from controller.apiserver.gates import Gates
from controller.apiserver.store import ObjectKey, Store
from controller.apiserver.webhooks.dispatcher import Write
from controller.apiserver.writes import WriteOptions

Wire = dict[str, Any]

_log = logging.getLogger(__name__)
_ADMISSION_SECONDS = 10.0


class Judging:
    """Asks them. Everything that is refused raises ApiError."""

    def __init__(
        self, store: Store, catalog: Catalog, judge: admission.Admission | None,
        gates: Gates | None,
    ) -> None:  # fmt: skip
        self._judge = judge
        self._gates = gates
        self._lookup = StoreLookup(store, catalog)

    async def before(
        self, resource: Resource, new: Wire | None, old: Wire | None, subresource: str,
        options: WriteOptions,
    ) -> Wire:  # fmt: skip
        """The object (the old one, if it is deleted) as the mutating webhooks leave it."""
        if self._gates is not None:
            write = _write_of(resource, new, old, subresource, options)
            await self._gates.before(write, internal=options.internal)
            new = write.new
        return new or old or {}

    async def after(
        self, resource: Resource, new: Wire | None, old: Wire | None, subresource: str,
        options: WriteOptions,
    ) -> None:  # fmt: skip
        if self._gates is not None:
            write = _write_of(resource, new, old, subresource, options)
            await self._gates.after(write, internal=options.internal)

    async def admit(
        self, resource: Resource, new: Wire | None, old: Wire | None, subresource: str,
        options: WriteOptions,
    ) -> None:  # fmt: skip
        await self.after(resource, new, old, subresource, options)
        if self._judge is None or not resource.custom:
            return
        metadata = (new or old or {})["metadata"]
        operation: admission.Operation = (
            "CREATE" if old is None else "DELETE" if new is None else "UPDATE"
        )
        request = admission.Request(
            operation, resource.group, resource.version, resource.kind, resource.plural,
            metadata.get("namespace", ""), metadata["name"], new, old, options.user, self._lookup,
            subresource, options.dry_run,
        )  # fmt: skip
        violations = await self._ask(request)
        if violations:
            raise admission.refusal(request, violations)

    async def _ask(self, request: admission.Request) -> Sequence[admission.Violation]:
        assert self._judge is not None
        try:
            async with asyncio.timeout(_ADMISSION_SECONDS):
                return await self._judge(request)
        except TimeoutError:
            raise errors.internal("admission did not answer in time; try again") from None
        except Exception:
            with bind(kind=request.kind, namespace=request.namespace, name=request.name):
                _log.exception("admission failed")
            raise errors.internal("admission failed; the server's log has the reason") from None


def _write_of(
    resource: Resource, new: Wire | None, old: Wire | None, subresource: str,
    options: WriteOptions,
) -> Write:  # fmt: skip
    metadata = (old or new or {})["metadata"]
    return Write(
        resource, metadata.get("namespace", ""), metadata.get("name", ""), subresource,
        options.user, options.dry_run, new, old, options.warnings,
    )  # fmt: skip


class StoreLookup:
    """``admission.Lookup`` on the store."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog

    async def get(self, group: str, kind: str, namespace: str, name: str) -> Wire | None:
        resource = self._catalog.kind(group, kind)
        if resource is None:
            return None
        entry = self._store.get(ObjectKey(resource.storage, namespace, name))
        return decoding.present_wire(resource, entry.object()) if entry else None

    async def list(self, group: str, kind: str, namespace: str = "") -> list[Wire]:
        resource = self._catalog.kind(group, kind)
        if resource is None:
            return []
        shelf = self._store.shelf(resource.storage)
        entries = shelf.entries(shelf.keys(namespace))
        return [decoding.present_wire(resource, entry.object()) for entry in entries]
