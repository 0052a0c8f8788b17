"""What an API server does with ``x-kubernetes-validations``: the messages of broken rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cel

from crds.base import parse_quantity

_MISSING = object()


def broken(schema: dict[str, Any], new: Any, old: Any = _MISSING) -> Iterator[str]:
    """Messages of the rules that ``new`` breaks, here and below. Rules that mention oldSelf are
    asked only where an old value can be found, as Kubernetes documents it."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" in rule["rule"] and old is _MISSING:
            continue
        if not _holds(rule["rule"], new, old):
            yield rule["message"]
    for name, child in schema.get("properties", {}).items():
        if isinstance(new, dict) and name in new:
            before = old.get(name, _MISSING) if isinstance(old, dict) else _MISSING
            yield from broken(child, new[name], before)
    if isinstance(new, list):
        for item in new:
            yield from broken(schema["items"], item, _same_item(schema, item, old))


def _same_item(schema: dict[str, Any], item: Any, old: Any) -> Any:
    keys = schema.get("x-kubernetes-list-map-keys")
    if not keys or not isinstance(old, list):
        return _MISSING
    same = (was for was in old if all(was[key] == item[key] for key in keys))
    return next(same, _MISSING)


def _holds(rule: str, new: Any, old: Any) -> bool:
    context = cel.Context()
    context.add_function("quantity", lambda text: {"amount": parse_quantity(text)})
    context.add_function("compareTo", lambda a, b: int(a["amount"] - b["amount"]))
    context.add_variable("self", new)
    if old is not _MISSING:
        context.add_variable("oldSelf", old)
    return bool(cel.evaluate(rule, context))
