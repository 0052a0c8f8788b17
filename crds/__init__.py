"""The declarative API: pydantic models and what is generated from them."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from crds.base import Resource


@cache
def kinds() -> dict[str, type[Resource]]:
    """Every kind by name: the Resource subclasses in ``crds.v1alpha1``'s modules."""
    package = importlib.import_module("crds.v1alpha1")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    found = [model for model in _leaves(Resource) if model.__module__.startswith(package.__name__)]
    return {model.__name__: model for model in sorted(found, key=lambda m: m.__name__)}


def _leaves(model: type[Resource]) -> list[type[Resource]]:
    below = model.__subclasses__()
    return [leaf for child in below for leaf in _leaves(child)] if below else [model]
