"""Does a spec fit what it refers to? A module per kind that has such a check.

A module has ``KIND`` and ``check(spec, around)``, which yields violations; it is found by being
here. It compares with fields that cannot change any more (or that only the kind itself has), so
that a refusal stays right. An object that is absent or being deleted is not judged.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from typing import Any

from controller.admission.neighbours import Neighbours
from controller.apiserver.admission import Violation

Check = Callable[[Any, Neighbours], AsyncIterator[Violation]]


@cache
def checks() -> Mapping[str, Check]:
    """kind → its check, for the kinds that have one."""
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(name) for name in names]
    return {module.KIND: module.check for module in modules if hasattr(module, "KIND")}
