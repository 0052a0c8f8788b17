"""What an API server does with ``x-kubernetes-validations``: the messages of broken rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

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


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


_FIND = cel.Overload("kube_find", cel.Type.STRING, [cel.Type.STRING, cel.Type.STRING], True, _find)
_ENVIRONMENT = cel.NewEnv(
    variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN},
    extensions=[
        ext_strings.ExtStrings(),
        cel.CelExtension("kubernetes", [cel.FunctionDecl("find", [_FIND])]),
    ],
)


def _holds(rule: str, new: Any, old: Any) -> bool:
    values = {"self": new} if old is _MISSING else {"self": new, "oldSelf": old}
    found = _ENVIRONMENT.compile(rule).eval(_ENVIRONMENT.Activation(values))
    assert found.type() == cel.Type.BOOL, f"{rule}: {found.value()}"
    return bool(found.plain_value())
