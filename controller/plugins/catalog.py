"""Loads the installed plugins. What cannot be used is left out, whole, and says why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, get_args

from controller.kinds.allocation.strategies import HostAllocator, PluginAllocator
from controller.plugins.guarded import (
    GuardedAllocator,
    GuardedStep,
    Observers,
    guarded_actuator,
)
from controller.plugins.interface import EventName, Insertion, Observer
from controller.plugins.room import FAILURES, HEALTHY, Limits, Room
from controller.plugins.weave import weave
from controller.reconcile.actuator import Actuator
from controller.workflow.flow import Flow, FlowError
from crds import Discovered, discovered
from crds.base import Resource
from crds.plugins import (
    ALLOCATORS,
    KINDS,
    OBSERVERS,
    STEPS,
    Package,
    PluginError,
    load,
    packages,
    refusal,
)

log = logging.getLogger(__name__)


@dataclass
class Plugin:
    """One plugin and what it brings. ``broken``: why nothing of it is used, "" if it is.
    ``absent``: the API server does not serve its kinds."""

    package: Package
    room: Room
    models: Mapping[str, type[Resource]] = field(default_factory=dict)
    actuators: list[type[Actuator[Any]]] = field(default_factory=list)
    insertions: list[Insertion] = field(default_factory=list)
    allocators: dict[str, HostAllocator] = field(default_factory=dict)
    observers: list[tuple[Observer, frozenset[str]]] = field(default_factory=list)
    broken: str = ""
    absent: bool = False

    @property
    def name(self) -> str:
        return self.package.name

    def fail(self, why: str) -> None:
        """Use nothing of it from now on."""
        self.broken = why
        FAILURES.labels(self.name, "broken").inc()
        HEALTHY.labels(self.name).set(0)
        log.error("a plugin is left out", extra={"plugin": self.name, "why": why})


@dataclass(frozen=True)
class Catalog:
    """All installed plugins, by name."""

    plugins: tuple[Plugin, ...] = ()

    @property
    def usable(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins if not plugin.broken]

    def woven(self, flows: Mapping[str, Flow]) -> dict[str, Flow]:
        """The flows with the plugins' steps. A plugin with a step that belongs nowhere fails."""
        found = dict(flows)
        for plugin in self.usable:
            try:
                found = _woven(found, plugin)
            except FlowError as error:
                plugin.fail(f"plugin {plugin.name}: {error}")
        return found

    def allocators(self) -> dict[str, PluginAllocator]:
        """By the names that offerings call them. Of two with one name the second plugin fails."""
        found: dict[str, PluginAllocator] = {}
        for plugin in self.usable:
            for name, theirs in plugin.allocators.items():
                found[name] = GuardedAllocator(name, theirs, plugin.room)
        return found

    def observers(self, now: Callable[[], float]) -> Observers:
        told = [(*one, plugin.room) for plugin in self.usable for one in plugin.observers]
        return Observers(told, now)

    def close(self) -> None:
        for plugin in self.plugins:
            plugin.room.close()


def load_all(
    found: Iterable[Package] | None = None,
    known: Discovered | None = None,
    limits: Limits | None = None,
) -> Catalog:
    """Load every plugin (``found`` and ``known``: None: what is installed)."""
    everything = discovered() if known is None else known
    catalog = Catalog(
        tuple(
            _load(package, everything, limits)
            for package in (packages() if found is None else found)
        )
    )
    _check_allocators(catalog)
    return catalog


def _load(package: Package, known: Discovered, limits: Limits | None) -> Plugin:
    models = {kind: known.kinds[kind] for kind in known.brought.get(package.name, ())}
    plugin = Plugin(package, Room(package.name, limits), models)
    why = known.broken.get(package.name) or refusal(package) or _fill_or_say(plugin)
    if why is not None:
        plugin.fail(why)
    return plugin


def _fill_or_say(plugin: Plugin) -> str | None:
    try:
        _fill(plugin)
    except PluginError as error:
        return str(error)
    return None


def _fill(plugin: Plugin) -> None:
    """Load its parts. Raises PluginError."""
    package = plugin.package
    for point in package.of(KINDS):
        for cls in _actuators(package, point.value, load(package, point)):
            plugin.actuators.append(_made(package, partial(guarded_actuator, cls, plugin.room)))
    for point in package.of(STEPS):
        for one in _many(load(package, point)):
            _expect(package, point.value, one, Insertion, "an Insertion")
            plugin.insertions.append(one)
    for point in package.of(ALLOCATORS):
        theirs = load(package, point)
        if not callable(theirs):
            raise PluginError(
                f"plugin {package.name}: {point.value} is no HostAllocator: no callable"
            )
        plugin.allocators[point.name] = theirs
    for point in package.of(OBSERVERS):
        plugin.observers.append(_observer(package, point.value, load(package, point)))


def _observer(package: Package, value: str, found: Any) -> tuple[Observer, frozenset[str]]:
    observer = _made(package, found) if isinstance(found, type) else found
    events = getattr(observer, "events", None)
    if not callable(observer) or events is None:
        raise PluginError(
            f"plugin {package.name}: {value} is no Observer; it needs events and __call__(event)"
        )
    unknown = {str(event) for event in events} - set(get_args(EventName))
    if unknown:
        raise PluginError(
            f"plugin {package.name}: there is no event {', '.join(sorted(unknown))}; there are: "
            f"{', '.join(get_args(EventName))}"
        )
    return observer, frozenset(events)


def _actuators(package: Package, value: str, found: Any) -> Iterator[type[Actuator[Any]]]:
    from controller.registry import actuators_in  # noqa: PLC0415 it imports this module

    if isinstance(found, ModuleType):
        yield from actuators_in(found)
    elif isinstance(found, type) and issubclass(found, Actuator):
        yield found
    else:
        raise PluginError(
            f"plugin {package.name}: {value} is neither a module nor an Actuator; correct its "
            f"entry point in {KINDS}"
        )


def _many(found: Any) -> list[Any]:
    return list(found) if isinstance(found, list | tuple) else [found]


def _expect(package: Package, value: str, found: Any, kind: type, what: str) -> None:
    if not isinstance(found, kind):
        raise PluginError(f"plugin {package.name}: {value} is not {what}, but {found!r:.80}")


def _made(package: Package, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        raise PluginError(
            f"plugin {package.name}: {make!r:.80} cannot be made: {type(error).__name__}: {error}"
        ) from error


def _woven(flows: dict[str, Flow], plugin: Plugin) -> dict[str, Flow]:
    for insertion in plugin.insertions:
        flows = weave(flows, insertion, lambda one: GuardedStep(one, plugin.room))
    return flows


def _check_allocators(catalog: Catalog) -> None:
    taken: dict[str, str] = {}
    for plugin in catalog.usable:
        twice = [name for name in plugin.allocators if name in taken]
        if twice:
            plugin.fail(
                f"plugin {plugin.name}: plugin {taken[twice[0]]} has an allocator {twice[0]} "
                "already; rename one"
            )
            continue
        taken |= dict.fromkeys(plugin.allocators, plugin.name)
