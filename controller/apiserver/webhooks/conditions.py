"""matchConditions: CEL over the request that a webhook would see."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from cel_expr_python import cel

from controller.apiserver.schema.cel import BadRule, environment_of
from controller.apiserver.webhooks import permissions

_T = cel.Type
_VARIABLES = ("object", "oldObject", "request", "authorizer")


class Undecided(ValueError):
    """A condition could not be evaluated; the text says why."""


@functools.cache
def _environment() -> cel.Env:
    types = {**dict.fromkeys(_VARIABLES, _T.DYN), "authorizer": _T.Map(_T.STRING, _T.DYN)}
    return environment_of(types, permissions.extension())


@functools.lru_cache(maxsize=1024)
def compile_condition(expression: str) -> cel.Expression:
    """Raises BadRule."""
    try:
        program = _environment().compile(expression)
    except Exception as error:  # the binding raises its own type for every syntax and type error
        text = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
        raise BadRule(f"compilation failed: {text.strip()}") from None
    if program.return_type() not in (_T.BOOL, _T.DYN):
        raise BadRule("must evaluate to bool")
    return program


def hold(conditions: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> bool:
    """Whether all hold: one that is false decides, whatever else fails.

    Whom ``authorizer`` asks, ``permissions.asking`` says. Raises Undecided if none is false and
    one cannot be evaluated.
    """
    failures = []
    activation = _environment().Activation({name: variables[name] for name in _VARIABLES})
    for condition in conditions:
        result = compile_condition(condition["expression"]).eval(activation)
        if result.type() == _T.ERROR or not isinstance(result.plain_value(), bool):
            failures.append(f"{condition['name']}: {_text(result)}")
        elif result.plain_value() is False:
            return False
    if failures:
        raise Undecided("; ".join(failures))
    return True


def _text(result: Any) -> str:
    return str(result.value()) if result.type() == _T.ERROR else "must evaluate to bool"
