"""Shard selectors (KEP-5866): which part of a collection a replica of a controller wants.

``shardRange(object.metadata.uid, '0x0000000000000000', '0x8000000000000000') || shardRange(…)``:
objects whose field's FNV-1a 64 hash lies in one of the ranges, start inclusive, end exclusive.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controller.apiserver import errors

FIELDS = ("object.metadata.uid", "object.metadata.namespace")
END = 1 << 64
_OFFSET, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, END - 1
_MAX_TEXT = 64 * 1024
_TOKEN = re.compile(r"\s*(?:(\|\||[(),])|'([^'\\]*)'|\"([^\"\\]*)\"|([A-Za-z_][\w.]*)|(\S))")


def fnv1a_64(text: str) -> int:
    """FNV-1a, 64 bits, of the text's UTF-8."""
    found = _OFFSET
    for byte in text.encode("utf-8", "surrogatepass"):
        found = ((found ^ byte) * _PRIME) & _MASK
    return found


@dataclass(frozen=True)
class ShardSelector:
    """``text`` is what was asked. ``bounds``: of disjoint ranges, start, end, start, end, …"""

    text: str
    field: str
    bounds: tuple[int, ...]

    def matches(self, wire: Mapping[str, Any]) -> bool:
        key = self.field.rpartition(".")[2]
        return self.holds(wire["metadata"].get(key) or "")

    def holds(self, value: str) -> bool:
        """Whether the hash of ``value`` is in one of the ranges."""
        return bisect_right(self.bounds, fnv1a_64(value)) % 2 == 1


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


def parse_shards(text: str) -> ShardSelector | None:
    """None if ``text`` is empty. Raises ApiError (400)."""
    if not text:
        return None
    if not text.strip():
        raise _bad("empty shard selector is not allowed; omit the parameter for unfiltered lists")
    if len(text) > _MAX_TEXT:
        raise _bad(f"it is longer than {_MAX_TEXT} characters")
    ranges = _Parser(text).ranges()
    fields = list(dict.fromkeys(field for field, _, _ in ranges))
    if len(fields) > 1:
        named = " and ".join(errors.render(field) for field in fields)
        raise _bad(f"all shard ranges must use the same field, got {named}")
    return ShardSelector(text, fields[0], _merged((start, end) for _, start, end in ranges))


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    found: list[int] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1]:
            found[-1] = max(found[-1], end)
        else:
            found += [start, end]
    return tuple(found)


class _Parser:
    """shardRange(…) terms joined by ``||``; parentheses around any of it."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokenize(text)
        self._at = 0

    def ranges(self) -> list[tuple[str, int, int]]:
        found: list[tuple[str, int, int]] = []
        depth = 0
        while True:
            while self._peek() == "(":
                self._at += 1
                depth += 1
            found.append(self._term())
            while depth and self._peek() == ")":
                self._at += 1
                depth -= 1
            if self._at == len(self._tokens):
                break
            self._expect("||")
        if depth:
            raise _bad("a parenthesis is not closed")
        return found

    def _peek(self) -> str:
        if self._at == len(self._tokens):
            return ""
        token = self._tokens[self._at]
        return token.text if token.kind == "mark" else ""

    def _next(self) -> _Token:
        if self._at == len(self._tokens):
            raise _bad("it ends too early; expected shardRange() call or || operator")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, mark: str) -> None:
        token = self._next()
        if token != _Token("mark", mark):
            raise _bad(
                f"expected {mark!r}, found {token.text!r}; only shardRange() and || are allowed"
            )

    def _term(self) -> tuple[str, int, int]:
        token = self._next()
        if token != _Token("name", "shardRange"):
            raise _bad(f"unexpected {token.text!r}; expected shardRange() call or || operator")
        self._expect("(")
        arguments = self._arguments()
        if len(arguments) != 3:
            raise _bad(f"shardRange() requires exactly 3 arguments, got {len(arguments)}")
        field, start, end = arguments
        if field.kind != "name" or field.text not in FIELDS:
            raise _bad(
                f"unsupported field path {errors.render(field.text)}; supported: "
                + ", ".join(FIELDS)
            )
        low, high = _bound("hexStart", start), _bound("hexEnd", end)
        if low >= high:
            raise _bad(f"shard range start {start.text} must be less than end {end.text}")
        return field.text, low, high

    def _arguments(self) -> list[_Token]:
        found: list[_Token] = []
        if self._peek() == ")":
            self._at += 1
            return found
        while True:
            found.append(self._next())
            mark = self._next()
            if mark == _Token("mark", ")"):
                return found
            if mark != _Token("mark", ","):
                raise _bad(f"expected ',' or ')', found {mark.text!r}")


def _tokenize(text: str) -> list[_Token]:
    found, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.group(5):
            raise _bad(
                f"unexpected {text[at:].strip()[:20]!r}; only shardRange() and || are allowed"
            )
        mark, single, double, name, _ = match.groups()
        if mark:
            found.append(_Token("mark", mark))
        elif name:
            found.append(_Token("name", name))
        else:
            found.append(_Token("string", single if single is not None else double))
        at = match.end()
    return found


def _bound(which: str, token: _Token) -> int:
    text = token.text
    if token.kind != "string":
        raise _bad(f"{which} must be a string, got {text!r}")
    if not text.startswith("0x"):
        raise _bad(f"{which} must have '0x' prefix, got {errors.render(text)}")
    if text == "0x10000000000000000":
        return END
    if len(text) != 18:
        raise _bad(f"{which} must be a 0x-prefixed 16-digit hex value, got {errors.render(text)}")
    strange = re.search(r"[^0-9a-f]", text[2:])
    if strange:
        raise _bad(
            f"{which}: invalid hex character {errors.render(strange[0])} in {errors.render(text)}"
        )
    return int(text, 16)


def _bad(why: str) -> errors.ApiError:
    return errors.bad_request(f"invalid shard selector: {why}")
