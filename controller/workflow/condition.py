"""Conditions of steps: CEL over the object, as in the rules of the kinds themselves.

``self`` is the object as the API has it: ``size(self.spec.nics) > 0``. What is optional is asked
with ``has(self.spec.hostname)``. Fields are checked against the kind's model when the flow is
read, so that a misspelt one is found at start and not in the middle of a run.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_optional, ext_strings
from pydantic import BaseModel

from controller.errors import Terminal
from crds.base import Resource

_STRINGS = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')
_ACCESS = re.compile(r"\bself((?:\s*\.\s*[A-Za-z_]\w*)+)\s*(\()?")


class BadCondition(ValueError):
    """A condition that cannot be asked of its kind; the text says why."""


@dataclass(frozen=True)
class Condition:
    """Made by ``parse``."""

    source: str
    program: Any

    def holds(self, obj: Resource) -> bool:
        """Raises Terminal when it cannot be answered: a field that ``has()`` did not guard."""
        values = _environment().Activation({"self": obj.wire()})
        found = self.program.eval(values)
        if found.type() == cel.Type.BOOL:
            return bool(found.plain_value())
        raise Terminal(
            f"condition {self.source!r} cannot be answered: {found.value()}; guard what may be "
            "absent with has(…)",
            reason="ConditionFailed",
        )


def parse(source: str, model: type[Resource] | None) -> Condition:
    """Raises BadCondition. ``model``: the kind, to check the fields; None: they are not checked."""
    try:
        program = _environment().compile(source)
    except Exception as error:  # the binding raises its own type for every syntax and type error
        raise BadCondition(str(error).partition("\n")[0]) from None
    if program.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise BadCondition("it is neither true nor false")
    for match in _ACCESS.finditer(_STRINGS.sub("''", source)):
        names = [name.strip() for name in match[1].split(".")[1:]]
        if match[2]:
            names.pop()  # a method
        check_path(names, model)
    return Condition(source, program)


def check_path(names: list[str], model: type[Resource] | None) -> None:
    """Raises BadCondition unless the kind has this field (camelCase names, from the object's
    root). Below a list or a map anything goes."""
    if model is None:
        return
    kinds: list[type[BaseModel]] = [model]
    for place, name in enumerate(names):
        found = [f for kind in kinds for n, f in kind.model_fields.items() if name in (f.alias, n)]
        if not found:
            known = sorted(f.alias or n for kind in kinds for n, f in kind.model_fields.items())
            path = ".".join(names[: place + 1])
            raise BadCondition(
                f"{model.__name__} has no field {path}; there are: {', '.join(known)}"
            )
        kinds = [each for field in found for each in _models(field.annotation)]
        if not kinds:
            return


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field may hold itself (not in a list)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for each in get_args(annotation):
            yield from _models(each)


@functools.cache
def _environment() -> Any:
    extensions = [ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_bindings.ExtBindings()]
    return cel.NewEnv(
        variables={"self": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)}, extensions=extensions
    )
