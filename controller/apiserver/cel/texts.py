"""Strings: which functions of CEL's library there are (its version 2), and regular expressions.

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-regex-library
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import orjson
from cel_expr_python import cel

from controller.apiserver.cel.budget import spend
from controller.apiserver.cel.functions import Function, T, member, plain
from controller.apiserver.cel.words import of_failure

_S, _I = T.STRING, T.INT
_SHORT = 256
_GROUP = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|\((?:\?P?<\w+>|(?!\?))", re.DOTALL)
_BYTES_A_UNIT = 10
"""Kubernetes' price of going through a string."""


class BadPattern(ValueError):
    """The text is RE2's."""


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether the pattern matches anywhere in a text, in time proportional to it (RE2: Python's own
    engine can take for ever). Raises BadPattern."""
    program = _environment().compile(f"text.matches({orjson.dumps(pattern).decode()})")

    def search(text: str) -> bool:
        result = program.eval(_environment().Activation({"text": text}))
        if result.type() == T.ERROR:
            raise BadPattern(of_failure(str(result.value())))
        return bool(result.plain_value())

    search("")  # only now the pattern itself is read
    remembered = functools.lru_cache(maxsize=256)(search)
    return lambda text: remembered(text) if len(text) <= _SHORT else search(text)


def _find(text: str, pattern: str) -> str:
    found = _find_all(text, pattern, 1)
    return found[0] if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    spend((1 + len(text) // _BYTES_A_UNIT) * (1 + len(pattern) // 4))
    activation = _environment().Activation({"text": text, "pattern": without_groups(pattern)})
    result = _extract().eval(activation)
    if result.type() == T.ERROR:
        raise BadPattern(of_failure(str(result.value())))
    found: list[str] = result.plain_value()
    return found if limit < 0 else found[:limit]


@functools.lru_cache(maxsize=1024)
def without_groups(pattern: str) -> str:
    """The same pattern, none of whose groups capture: what is asked for is the whole match."""
    return _GROUP.sub(lambda m: "(?:" if m.group(0).startswith("(") else m.group(0), pattern)


@functools.cache
def _environment() -> cel.Env:
    config = cel.NewEnvConfigFromYaml("extensions: [{name: regex}, {name: optional}]")
    return cel.NewEnv(config=config, variables={"text": _S, "pattern": _S})


@functools.cache
def _extract() -> cel.Expression:
    return _environment().compile("regex.extractAll(text, pattern)")


def weigh(value: Any) -> Any:
    """The value, paid for by its size."""
    spend(1 + (len(value) // _BYTES_A_UNIT if isinstance(value, str | bytes | list) else 0))
    return value


FUNCTIONS: tuple[Function, ...] = (
    # The library runs these; it is not asked to declare them since version 2 is what
    # Kubernetes has, and since indexOf is a function of lists too.
    member("charAt", None, ("string_char_at_int", _S, (_S, _I))),
    member("indexOf", None, ("string_index_of_string", _I, (_S, _S)),
           ("string_index_of_string_int", _I, (_S, _S, _I))),
    member("lastIndexOf", None, ("string_last_index_of_string", _I, (_S, _S)),
           ("string_last_index_of_string_int", _I, (_S, _S, _I))),
    member("lowerAscii", None, ("string_lower_ascii", _S, (_S,))),
    member("upperAscii", None, ("string_upper_ascii", _S, (_S,))),
    member("replace", None, ("string_replace_string_string", _S, (_S, _S, _S)),
           ("string_replace_string_string_int", _S, (_S, _S, _S, _I))),
    member("split", None, ("string_split_string", T.List(_S), (_S, _S)),
           ("string_split_string_int", T.List(_S), (_S, _S, _I))),
    member("join", None, ("list_join", _S, (T.List(_S),)),
           ("list_join_string", _S, (T.List(_S), _S))),
    member("substring", None, ("string_substring_int", _S, (_S, _I)),
           ("string_substring_int_int", _S, (_S, _I, _I))),
    member("trim", None, ("string_trim", _S, (_S,))),
    member("format", None, ("string_format", _S, (_S, T.List(T.DYN)))),
    plain("strings.quote", None, ("strings_quote", _S, (_S,))),
    member("find", _find, ("string_find_string", _S, (_S, _S))),
    member("findAll", _find_all, ("string_find_all_string", T.List(_S), (_S, _S)),
           ("string_find_all_string_int", T.List(_S), (_S, _S, _I))),
)  # fmt: skip
SPENDING = frozenset(("find", "findAll"))
INTERNAL: tuple[Function, ...] = (plain("kubernetes.@weigh", weigh, ("k_weigh", T.DYN, (T.DYN,))),)
