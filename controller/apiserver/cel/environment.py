"""Expressions are compiled here, once, and evaluated as often as one likes.

The library is ``cel-expr-python``, the binding of the reference C++ implementation. An expression
passes two of its environments. The first one checks it, and knows exactly the functions that
Kubernetes has, with their types. The second one runs it, after ``checked`` has rewritten it: there
values of Kubernetes' own types are plain maps, and costs are counted.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel

from controller.apiserver.cel import formats, lists, network, quantities, semver, texts, urls, words
from controller.apiserver.cel.budget import Budget, Exceeded, spend
from controller.apiserver.cel.checked import SPEND, Changes, rewrite
from controller.apiserver.cel.functions import (
    Function,
    Overload,
    T,
    for_checking,
    for_running,
    plain,
)

_LIBRARIES = (
    "extensions: [{name: sets}, {name: lists}, {name: optional}, {name: two-var-comprehensions}"
)
_REPLACED = ("string", "_<_", "_<=_", "_>_", "_>=_")
"""Of CEL's standard functions: ``string`` takes Kubernetes' types too, and numbers of different
kinds can be compared (the CEL library does both when it runs, but its checker knows neither)."""
_EXCLUDED = ", ".join(f"{{name: '{name}'}}" for name in _REPLACED)
_FOR_CHECKING = f"{_LIBRARIES}]\nstdlib: {{exclude_functions: [{_EXCLUDED}]}}"
_FOR_RUNNING = (
    f"{_LIBRARIES}, {{name: strings}}]\nstdlib: {{exclude_functions: [{{name: string}}]}}"
)
_OPAQUE = (
    network.IP, network.CIDR, quantities.QUANTITY, semver.SEMVER, urls.URL, formats.FORMAT,
)  # fmt: skip


_ITERATIONS = "Iteration budget exceeded"
"""What the CEL library says of an expression that goes through more than 10,000 elements: it can
not be told another number."""


class CompileError(ValueError):
    """The text is the compiler's, which shows the place."""


class EvaluationError(ValueError):
    """There is no result; the text says why."""


@dataclass(frozen=True)
class Program:
    """``result`` is its type; ``counts``: it is one of those that a budget can end."""

    expression: cel.Expression
    result: Any
    counts: bool

    def eval(self, activation: Any, spent: Budget) -> Any:
        """The result as a Python value. Raises EvaluationError and Exceeded."""
        if not self.counts:
            return self._value(activation)
        with spent.call():
            try:
                return self._value(activation)
            finally:
                spent.check()

    def _value(self, activation: Any) -> Any:
        try:
            result = self.expression.eval(activation)
            if result.type() == T.ERROR:
                raise EvaluationError(words.of_failure(str(result.value())))
            return result.plain_value()
        except (RuntimeError, TypeError) as error:  # the binding's, where it cannot go on
            if _ITERATIONS in str(error):
                raise Exceeded from None
            raise EvaluationError(words.of_failure(str(error))) from None


class Environment:
    """Variables (name: type), and functions besides Kubernetes' common ones.

    ``optional``: variables that are given as a list of one value or none, and are optionals.
    """

    def __init__(
        self, variables: Mapping[str, Any], functions: tuple[Function, ...] = (),
        optional: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self._check = cel.NewEnv(
            config=cel.NewEnvConfigFromYaml(_FOR_CHECKING),
            variables=dict(variables),
            functions=for_checking((*_STANDARD, *_COMMON, *functions)),
        )
        self._run = _running(tuple(sorted(variables)), functions)
        self._changes = Changes(lists.RENAMES, formats.OPTIONAL, frozenset(optional), _SPENDING)

    def compile(self, source: str) -> Program:
        """Raises CompileError."""
        try:
            compiled = self._check.compile(source)
        except Exception as error:  # the binding raises its own type for every mistake
            text = str(error).removeprefix("INVALID_ARGUMENT: ")
            raise CompileError(text.removesuffix(" [INVALID_ARGUMENT]").strip()) from None
        changed, counts = rewrite(compiled.serialize(), self._changes)
        return Program(self._run.deserialize(changed), compiled.return_type(), counts)

    def activation(self, values: Mapping[str, Any]) -> Any:
        """What several programs may be evaluated with."""
        return self._run.Activation(values)


@functools.cache
def _running(variables: tuple[str, ...], functions: tuple[Function, ...]) -> cel.Env:
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(_FOR_RUNNING),
        variables=dict.fromkeys(variables, T.DYN),
        functions=for_running((*_INTERNAL, *_COMMON, *functions), _OPAQUE),
    )


def _ordering(name: str, word: str) -> Function:
    same = ((T.BOOL, "bool"), (T.INT, "int64"), (T.UINT, "uint64"), (T.DOUBLE, "double"),
            (T.STRING, "string"), (T.BYTES, "bytes"), (T.TIMESTAMP, "timestamp"),
            (T.DURATION, "duration"))  # fmt: skip
    numbers = same[1:4]
    overloads = [Overload(f"{word}_{text}", T.BOOL, (kind, kind)) for kind, text in same]
    overloads += [
        Overload(f"{word}_{one_text}_{other_text}", T.BOOL, (one, other))
        for one, one_text in numbers
        for other, other_text in numbers
        if one != other
    ]
    return Function(name, tuple(overloads))


_STRING_OF = (
    (T.BOOL, "bool"), (T.INT, "int64"), (T.UINT, "uint64"), (T.DOUBLE, "double"),
    (T.STRING, "string"), (T.BYTES, "bytes"), (T.TIMESTAMP, "timestamp"), (T.DURATION, "duration"),
)  # fmt: skip
_STANDARD: tuple[Function, ...] = (
    _ordering("_<_", "less"),
    _ordering("_<=_", "less_equals"),
    _ordering("_>_", "greater"),
    _ordering("_>=_", "greater_equals"),
    Function("string", tuple(
        Overload(f"{text}_to_string", T.STRING, (kind,)) for kind, text in _STRING_OF
    )),
)  # fmt: skip
_COMMON: tuple[Function, ...] = (
    *lists.FUNCTIONS, *texts.FUNCTIONS, *network.FUNCTIONS, *quantities.FUNCTIONS,
    *semver.FUNCTIONS, *urls.FUNCTIONS, *formats.FUNCTIONS,
)  # fmt: skip
_SPENDING = lists.SPENDING | texts.SPENDING
_INTERNAL: tuple[Function, ...] = (
    *lists.INTERNAL,
    *texts.INTERNAL,
    plain(SPEND, spend, ("kubernetes_spend", T.BOOL, (T.INT,))),
)
