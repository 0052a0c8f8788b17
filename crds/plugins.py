"""What plugins are installed: packages with entry points in groups ``kumulus.*``.

A package says in the group ``kumulus.interface`` for which version of the interface it is written,
so that it is refused before any of its code runs::

    [project.entry-points."kumulus.interface"]
    "1.0" = "my_package"

==========================  ====================================================================
``kumulus.crds``            a module with kinds (``crds.base.Resource``) and ``TAGS``
``kumulus.kinds``           a module with Actuators, or an Actuator
``kumulus.steps``           Insertions (``controller.plugins.interface``) into flows of others
``kumulus.host_allocators``  a HostAllocator; its name is what an InstanceOffering calls it
``kumulus.observers``       an Observer (``controller.plugins.interface``)
``kumulus.commands``        a command group of the CLI
``kumulus.drivers``         what an agent can drive
==========================  ====================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions
from typing import Any

INTERFACE = (1, 0)
"""Major and minor version. A minor one adds; a major one takes away or changes."""

PREFIX = "kumulus."
INTERFACE_GROUP = "kumulus.interface"
CRDS, KINDS, STEPS = "kumulus.crds", "kumulus.kinds", "kumulus.steps"
ALLOCATORS, OBSERVERS = "kumulus.host_allocators", "kumulus.observers"
GROUPS = (CRDS, KINDS, STEPS, ALLOCATORS, OBSERVERS, "kumulus.commands", "kumulus.drivers")
OURS = "kumulus"

_VERSION = re.compile(r"(?P<major>[0-9]{1,4})\.(?P<minor>[0-9]{1,4})")


class PluginError(Exception):
    """A plugin cannot be used; the message names it, the cause and the fix."""


@dataclass(frozen=True)
class Package:
    """One installed plugin. ``interface``: as it declares it, "" if it does not."""

    name: str
    version: str
    interface: str
    parts: tuple[EntryPoint, ...]

    def of(self, group: str) -> tuple[EntryPoint, ...]:
        return tuple(point for point in self.parts if point.group == group)


def packages(points: Iterable[EntryPoint] | None = None) -> list[Package]:
    """The installed plugins by name (``points``: instead of those installed)."""
    found: dict[str, list[EntryPoint]] = {}
    for point in _installed() if points is None else points:
        owner = _owner(point)
        if point.group.startswith(PREFIX) and owner != OURS:
            found.setdefault(owner, []).append(point)
    return [_package(name, found[name]) for name in sorted(found)]


def refusal(package: Package) -> str | None:
    """Why a package cannot be used with this Kumulus, as far as its metadata tell; else None."""
    ours = ".".join(map(str, INTERFACE))
    if not package.interface:
        return (
            f"plugin {package.name} does not say for which interface it is written; declare "
            f'[project.entry-points."{INTERFACE_GROUP}"] "{ours}" = "<its module>"'
        )
    match = _VERSION.fullmatch(package.interface)
    if match is None:
        return f"plugin {package.name}: interface {package.interface!r} is no version such as 1.0"
    if int(match["major"]) != INTERFACE[0] or int(match["minor"]) > INTERFACE[1]:
        return (
            f"plugin {package.name} is written for interface {package.interface}, this Kumulus has "
            f"{ours}; install versions that fit each other"
        )
    unknown = {part.group for part in package.parts} - {*GROUPS, INTERFACE_GROUP}
    if unknown:
        groups = ", ".join(sorted(unknown))
        return f"plugin {package.name}: there is no entry point group {groups}; correct its name"
    return None


def load(package: Package, point: EntryPoint) -> Any:
    """What an entry point names. Raises PluginError."""
    try:
        return point.load()
    except Exception as error:
        raise PluginError(
            f"plugin {package.name}: {point.name} ({point.value}) cannot be loaded: "
            f"{type(error).__name__}: {error}; mend or uninstall it"
        ) from error


def _installed() -> list[EntryPoint]:
    """Entry points of every distribution; the first on the path counts."""
    seen: dict[str, tuple[EntryPoint, ...]] = {}
    for dist in distributions():
        seen.setdefault(dist.name, tuple(dist.entry_points))
    return [point for points in seen.values() for point in points]


def _owner(point: EntryPoint) -> str:
    return str(point.dist.name) if point.dist is not None else point.name


def _package(name: str, points: list[EntryPoint]) -> Package:
    dist = points[0].dist
    declared = sorted({point.name for point in points if point.group == INTERFACE_GROUP})
    parts = tuple(sorted(set(points), key=lambda p: (p.group, p.name)))
    return Package(name, str(dist.version) if dist else "", ", ".join(declared), parts)
