"""Does the API server know the plugins' kinds? Who waits for one that never comes does not work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from controller.errors import KumulusError
from controller.objects import resource_of
from controller.plugins.catalog import Catalog, Plugin

log = logging.getLogger(__name__)

PATIENCE, PAUSE = 30.0, 0.5
"""Seconds: ``kumulus up`` brings the definitions in while the controller starts."""


class Discovery(Protocol):
    """The part of client.Api that is needed here."""

    async def served(self, group: str, version: str) -> set[str]: ...


async def await_kinds(plugins: Catalog, api: Discovery, patience: float = PATIENCE) -> None:
    """Wait a while for the kinds of plugins; those that are not there then are left out, with
    their plugins. Without plugins it returns at once; an API server that does not answer is
    waited for as long as it takes."""
    waiting = [plugin for plugin in plugins.plugins if plugin.models]
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while waiting:
        try:
            waiting = [plugin for plugin in waiting if await _missing(plugin, api)]
        except KumulusError as error:
            log.warning("waiting for the API server", extra={"why": error.message})
            end = loop.time() + patience
        if not waiting or loop.time() >= end:
            break
        await asyncio.sleep(PAUSE)
    for plugin in waiting:
        plugin.absent = True
        if not plugin.broken:
            plugin.fail(
                f"plugin {plugin.name}: the API server does not have its kinds "
                f"{', '.join(plugin.models)}; `kumulus plugins --crds | kubectl apply -f -`, then "
                "restart the controller"
            )


async def _missing(plugin: Plugin, api: Discovery) -> Sequence[str]:
    """Raises KumulusError if the API server does not say."""
    resources = [resource_of(model) for model in plugin.models.values()]
    known = {
        (group, version): await api.served(group, version)
        for group, version in {(r.group, r.version) for r in resources}
    }
    return [r.plural for r in resources if r.plural not in known[r.group, r.version]]
