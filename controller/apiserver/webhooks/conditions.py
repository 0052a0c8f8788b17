"""matchConditions: CEL over the request that a webhook would see."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from controller.apiserver.cel.budget import Budget, Exceeded
from controller.apiserver.cel.environment import (
    CompileError,
    Environment,
    EvaluationError,
    Program,
)
from controller.apiserver.cel.functions import T
from controller.apiserver.schema.cel import BadRule
from controller.apiserver.webhooks import permissions

_VARIABLES = ("object", "oldObject", "request", "authorizer")


class Undecided(ValueError):
    """A condition could not be evaluated; the text says why."""


@functools.cache
def _environment() -> Environment:
    types = {**dict.fromkeys(_VARIABLES, T.DYN), "authorizer": T.Map(T.STRING, T.DYN)}
    return Environment(types, permissions.functions())


@functools.lru_cache(maxsize=1024)
def compile_condition(expression: str) -> Program:
    """Raises BadRule."""
    try:
        program = _environment().compile(expression)
    except CompileError as error:
        raise BadRule(f"compilation failed: {error}") from None
    if program.result not in (T.BOOL, T.DYN):
        raise BadRule("must evaluate to bool")
    return program


def hold(conditions: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> bool:
    """Whether all hold: one that is false decides, whatever else fails.

    Whom ``authorizer`` asks, ``permissions.asking`` says. Raises Undecided if none is false and
    one cannot be evaluated, or costs too much.
    """
    failures = []
    spent = Budget()
    activation = _environment().activation({name: variables[name] for name in _VARIABLES})
    for condition in conditions:
        try:
            found = compile_condition(condition["expression"]).eval(activation, spent)
        except (EvaluationError, Exceeded) as error:
            failures.append(f"{condition['name']}: {error}")
            continue
        if found is False:
            return False
        if found is not True:
            failures.append(f"{condition['name']}: must evaluate to bool")
    if failures:
        raise Undecided("; ".join(failures))
    return True
