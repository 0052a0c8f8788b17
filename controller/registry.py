"""Which kinds there are, and what works on each: found, not listed.

Our kinds are the modules of ``controller.kinds``; plugins bring theirs (``controller.plugins``).
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from controller.cascade.graph import CascadeCycle, Graph, UnknownTarget
from controller.plugins.catalog import Catalog, Plugin, load_all
from controller.plugins.guarded import missing_actuator
from controller.reconcile.actuator import Actuator
from controller.workflow.flow import Flow, collect
from controller.workflow.loader import load
from crds import own_kinds
from crds.base import Resource

log = logging.getLogger(__name__)

FLOWS = Path(__file__).parent / "flows"


class RegistryError(Exception):
    """The kinds do not fit together; every line of the message names one cause and its fix."""


@dataclass(frozen=True)
class Registry:
    """Kinds and actuators by name. ``modules``: where they, and steps of flows, were found."""

    models: Mapping[str, type[Resource]]
    actuators: Mapping[str, Actuator[Any]]
    graph: Graph
    modules: Sequence[ModuleType] = field(default=())

    @property
    def partitioned(self) -> dict[str, type[Resource]]:
        """The kinds that replicas divide among themselves."""
        divided = {kind for kind, actuator in self.actuators.items() if actuator.partitioned}
        return {kind: model for kind, model in self.models.items() if kind in divided}

    @property
    def divided(self) -> frozenset[str]:
        """Those of them of which a replica need not hold all objects."""
        classes = [type(actuator) for actuator in self.actuators.values()]
        observed = {cls.model.__name__ for cls in classes if cls.observe is not Actuator.observe}
        return frozenset(self.partitioned).difference(observed, *(cls.surveys for cls in classes))

    @property
    def linked(self) -> frozenset[str]:
        """Those that refer to others or that others refer to."""
        return frozenset(filter(self.graph.is_linked, self.partitioned))

    @property
    def quiet(self) -> dict[str, frozenset[str]]:
        """Status fields that concern nobody else, by kind (Actuator.quiet)."""
        return {kind: type(actuator).quiet for kind, actuator in self.actuators.items()}


def discover(plugins: Iterable[Plugin] = ()) -> Registry:
    """All kinds: ours, and those of ``plugins``. One whose kinds do not fit the others fails; what
    it has of objects then says so. Raises RegistryError, and what graph.Graph raises."""
    modules = list(_our_modules())
    actuators = [actuator for module in modules for actuator in actuators_in(module)]
    models = list(own_kinds().values())
    registry = build(actuators, models=models, modules=modules)
    for plugin in plugins:
        if plugin.absent:
            continue
        theirs = list(plugin.models.values())
        if not plugin.broken:
            try:
                registry = build(
                    [*actuators, *plugin.actuators], models=[*models, *theirs], modules=modules
                )
            except (RegistryError, UnknownTarget, CascadeCycle) as error:
                plugin.fail(f"plugin {plugin.name}: {error}")
        own = plugin.actuators
        if plugin.broken:
            own = [missing_actuator(model, plugin.broken) for model in theirs]
            registry = build([*actuators, *own], models=[*models, *theirs], modules=modules)
        actuators, models = [*actuators, *own], [*models, *theirs]
    return registry


def fitted(plugins: Catalog) -> tuple[Registry, dict[str, Flow]]:
    """Kinds and flows that fit together: again as long as a plugin turns out not to. Raises what
    discover raises, and FlowError."""
    while True:
        usable = len(plugins.usable)
        registry = discover(plugins.plugins)
        flows = plugins.woven(load(FLOWS, collect(registry.modules)))
        if len(plugins.usable) == usable:
            return registry, flows


def installed() -> Registry:
    """Our kinds, and those of all plugins that are installed here."""
    return discover(load_all().plugins)


def build(
    actuators: Iterable[type[Actuator[Any]]],
    *,
    models: Iterable[type[Resource]] = (),
    modules: Sequence[ModuleType] = (),
) -> Registry:
    """A registry of these actuators, their models and other ``models``. Raises RegistryError."""
    by_kind: dict[str, Actuator[Any]] = {}
    known = {model.__name__: model for model in models}
    mistakes = []
    for cls in actuators:
        model = getattr(cls, "model", None)
        if not (isinstance(model, type) and issubclass(model, Resource)):
            mistakes.append(f"{_where(cls)} has no model; set model = <a kind of crds>")
            continue
        kind = model.__name__
        if kind in by_kind and type(by_kind[kind]) is not cls:
            others = f"{_where(type(by_kind[kind]))} and {_where(cls)}"
            mistakes.append(f"{kind} has two actuators, {others}; remove one")
        elif known.setdefault(kind, model) is not model:
            mistakes.append(f"{_where(cls)}: another kind is called {kind}; rename its model")
        else:
            by_kind.setdefault(kind, cls())
    mistakes += _unknown_watches(by_kind, known)
    if mistakes:
        raise RegistryError("\n".join(mistakes))
    for kind in sorted(set(known) - set(by_kind)):
        log.warning("nothing works on this kind", extra={"kind": kind})
    return Registry(known, by_kind, Graph(known.values()), modules)


def actuators_in(module: ModuleType) -> list[type[Actuator[Any]]]:
    """Actuators that a module defines: those with a model, and those that lack one by mistake
    (a base class of others starts with an underscore)."""
    return [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Actuator)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _our_modules() -> Iterator[ModuleType]:
    package = importlib.import_module("controller.kinds")
    for info in pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}."):
        yield importlib.import_module(info.name)


def _unknown_watches(
    actuators: Mapping[str, Actuator[Any]], known: Mapping[str, type[Resource]]
) -> list[str]:
    return [
        f"{_where(type(actuator))} watches {kind}, and there is no such kind; correct its watches"
        for actuator in actuators.values()
        for kind in type(actuator).watches
        if kind not in known
    ]


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
