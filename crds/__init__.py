"""The declarative API: pydantic models and what is generated from them."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from crds.base import Resource
from crds.plugins import CRDS, Package, PluginError, load, packages, refusal
from crds.tags import SystemTag, collect

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Discovered:
    """Kinds and system tags by name, ours and the plugins'. ``brought``: plugin → its kinds.
    ``broken``: plugin → why nothing of it is used."""

    kinds: dict[str, type[Resource]]
    tags: Mapping[str, SystemTag]
    brought: Mapping[str, tuple[str, ...]]
    broken: Mapping[str, str]


@cache
def own_kinds() -> dict[str, type[Resource]]:
    """Every kind of ours by name: the Resource subclasses in ``crds.v1alpha1``'s modules."""
    return _kinds_in(_own_modules())


def kinds() -> dict[str, type[Resource]]:
    """Every kind by name, the plugins' too."""
    return discovered().kinds


def kind_named(word: str, models: Mapping[str, type[Resource]]) -> str | None:
    """The kind that ``word`` means, by any of its names, in any case."""
    name = word.lower()
    found = (kind for kind, m in models.items() if name == kind.lower() or name in m.INFO.names)
    return next(found, None)


@cache
def discovered() -> Discovered:
    """What is installed. A plugin that does not fit is left out, whole, and logged."""
    found = discover(packages())
    for why in found.broken.values():
        log.error(why)
    return found


def discover(plugins: Iterable[Package]) -> Discovered:
    """Our kinds and tags and those of ``plugins``."""
    models, tags = own_kinds(), collect(_tags(_own_modules()))
    brought: dict[str, tuple[str, ...]] = {}
    broken: dict[str, str] = {}
    for package in plugins:
        try:
            mine, new_tags = _bring(package, models, tags)
        except PluginError as error:
            broken[package.name] = str(error)
            continue
        brought[package.name] = tuple(mine)
        models, tags = {**models, **mine}, new_tags
    return Discovered(dict(sorted(models.items())), tags, brought, broken)


def _bring(
    package: Package, models: Mapping[str, type[Resource]], tags: Mapping[str, SystemTag]
) -> tuple[dict[str, type[Resource]], dict[str, SystemTag]]:
    """(its kinds, all tags). Raises PluginError."""
    why = refusal(package)
    if why is not None:
        raise PluginError(why)
    modules = []
    for point in package.of(CRDS):
        module = load(package, point)
        if not isinstance(module, ModuleType):
            raise PluginError(
                f"plugin {package.name}: {point.value} is no module; name one with kinds in {CRDS}"
            )
        modules.append(module)
    try:
        mine = _kinds_in(modules)
        _check(mine, models)
        return mine, collect([tuple(tags.values()), *_tags(modules)])
    except Exception as error:
        raise PluginError(f"plugin {package.name}: {error}; mend or uninstall it") from error


def _check(mine: Mapping[str, type[Resource]], models: Mapping[str, type[Resource]]) -> None:
    """Raises ValueError (DeclarationError, SchemaError) if the kinds do not fit the others."""
    from crds.refs import verify  # noqa: PLC0415 only plugins need it here
    from crds.schema import definition  # noqa: PLC0415 only plugins need it here

    for kind, model in mine.items():
        others = [
            other
            for name, other in models.items()
            if name == kind or model.INFO.names & other.INFO.names
        ]
        if others:
            raise ValueError(f"{kind} has a name that {others[0].__name__} has; rename it")
        definition(model)
    verify({**models, **mine})


@cache
def _own_modules() -> tuple[ModuleType, ...]:
    package = importlib.import_module("crds.v1alpha1")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return tuple(importlib.import_module(f"{package.__name__}.{name}") for name in names)


def _kinds_in(modules: Iterable[ModuleType]) -> dict[str, type[Resource]]:
    names = {module.__name__ for module in modules}
    found = [model for model in _leaves(Resource) if model.__module__ in names]
    return {model.__name__: model for model in sorted(found, key=lambda m: m.__name__)}


def _tags(modules: Iterable[ModuleType]) -> list[tuple[SystemTag, ...]]:
    return [tuple(getattr(module, "TAGS", ())) for module in modules]


def _leaves(model: type[Resource]) -> list[type[Resource]]:
    below = model.__subclasses__()
    return [leaf for child in below for leaf in _leaves(child)] if below else [model]
