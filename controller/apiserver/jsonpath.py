"""The part of Kubernetes' JSONPath that printer columns use.

``.a.b``, ``['a.b']``, ``.list[0]``, ``.list[*]``, ``.list[?(@.type=="Ready")].status``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

_STEP = re.compile(
    r"""\.?\*|
        \.(?P<name>(?:\\.|[A-Za-z0-9_$-])+)|
        \[\s*'(?P<quoted>[^']*)'\s*\]|
        \[\s*(?P<index>-?\d+)\s*\]|
        \[\s*(?P<all>\*)\s*\]|
        \[\?\(\s*@(?P<left>(?:\.[A-Za-z0-9_-]+)+)\s*
            (?P<op>==|!=|<=|>=|<|>)\s*(?P<right>"[^"]*"|'[^']*'|[A-Za-z0-9_.+-]+)\s*\)\]""",
    re.VERBOSE,
)

Step = Callable[[Any], Iterable[Any]]


class BadPath(ValueError):
    """A path that cannot be understood."""


def compile_path(path: str) -> Callable[[Any], list[Any]]:
    """A function from an object to all values at ``path``. Raises BadPath."""
    steps = _steps(path)

    def find(wire: Any) -> list[Any]:
        nodes = [wire]
        for step in steps:
            nodes = [found for node in nodes for found in step(node)]
            if not nodes:
                break
        return nodes

    return find


def _steps(path: str) -> list[Step]:
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = text.removeprefix("$")
    if text and text[0] not in ".[":
        raise BadPath(f"path {path!r} must start with a dot")
    found, at = [], 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            if text[at:] == ".":
                break
            raise BadPath(f"cannot understand {text[at:]!r} in path {path!r}")
        found.append(_step(match))
        at = match.end()
    return found


def _step(match: re.Match[str]) -> Step:
    parts = match.groupdict()
    if parts["name"] is not None:
        return _member(re.sub(r"\\(.)", r"\1", parts["name"]))
    if parts["quoted"] is not None:
        return _member(parts["quoted"])
    if parts["index"] is not None:
        return _item(int(parts["index"]))
    if parts["left"] is not None:
        return _filter(parts["left"], parts["op"], parts["right"])
    return _children


def _member(name: str) -> Step:
    def step(node: Any) -> Iterable[Any]:
        return (node[name],) if isinstance(node, dict) and name in node else ()

    return step


def _item(index: int) -> Step:
    def step(node: Any) -> Iterable[Any]:
        return node[index : index + 1 or None] if isinstance(node, list) else ()

    return step


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else ()


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _filter(left: str, operator: str, right: str) -> Step:
    find = compile_path(left)
    wanted = _literal(right)
    compare = _COMPARE[operator]

    def holds(node: Any) -> bool:
        try:
            return any(compare(value, wanted) for value in find(node))
        except TypeError:
            return False

    def step(node: Any) -> Iterable[Any]:
        return [item for item in node if holds(item)] if isinstance(node, list) else ()

    return step


def _literal(text: str) -> Any:
    if text[0] in "\"'":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise BadPath(f"cannot understand the literal {text!r}") from None
