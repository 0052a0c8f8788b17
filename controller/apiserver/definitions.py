"""Keeps the catalog in step with the stored CustomResourceDefinitions."""

from __future__ import annotations

import logging
from typing import Any

from controller.apiserver.catalog import Catalog
from controller.apiserver.schema import cel
from controller.apiserver.schema import crd as crds
from controller.apiserver.store import Change, ChangeType, Store
from controller.apiserver.strategies import DEFINITIONS

Wire = dict[str, Any]
_log = logging.getLogger(__name__)


class Definitions:
    """Serves a definition's resources from the moment its write is committed."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog
        self._served: dict[str, tuple[str, int]] = {}
        self.broken: dict[str, str] = {}
        """Definitions that are stored but cannot be served, with the reason."""

    def start(self) -> None:
        shelf = self._store.shelf(DEFINITIONS)
        for entry in shelf.entries(shelf.keys()):
            self._serve(entry.object())
        self._store.listen(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.key.resource != DEFINITIONS:
            return
        if change.type is ChangeType.DELETED:
            self._withdraw(change.object)
        else:
            self._serve(change.object)

    def _withdraw(self, crd: Wire) -> None:
        name = crd["metadata"]["name"]
        self.broken.pop(name, None)
        if self._served.pop(name, None) is not None:
            self._catalog.remove(crd["spec"]["group"], crd["spec"]["names"]["plural"])

    def _serve(self, crd: Wire) -> None:
        metadata = crd["metadata"]
        state = (metadata["uid"], metadata["generation"])
        if self._served.get(metadata["name"]) == state or not crds.is_established(crd):
            return
        if metadata.get("deletionTimestamp") and metadata["name"] in self._served:
            return
        try:
            found = crds.resources(crd)
        except cel.BadRule as error:
            # Accepted by an earlier version of the server: refuse to serve it unchecked.
            self.broken[metadata["name"]] = str(error)
            if self._served.pop(metadata["name"], None) is not None:
                self._catalog.remove(crd["spec"]["group"], crd["spec"]["names"]["plural"])
            _log.error(
                "a definition cannot be served: a rule of it does not compile",
                extra={"definition": metadata["name"], "error": str(error)},
            )
            return
        self.broken.pop(metadata["name"], None)
        if metadata["name"] in self._served:
            self._catalog.remove(crd["spec"]["group"], crd["spec"]["names"]["plural"])
        self._catalog.add(found)
        self._served[metadata["name"]] = state
