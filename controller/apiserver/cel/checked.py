"""A compiled expression on the wire (cel.expr.CheckedExpr in an Any), and how it is rewritten.

The CEL library gives no access to its syntax tree, but writes and reads it as protobuf
(https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto and checked.proto).
So what it compiled is changed there: each loop counts its iterations, strings that are put together
are weighed, and calls whose results the library cannot take from Python are completed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

Field = tuple[int, int | bytes]
Message = list[Field]

_VALUE = 2  # of Any
_REFERENCES, _TYPES, _EXPRESSION = 2, 3, 4  # of CheckedExpr
_ID, _CONSTANT, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _LOOP = range(2, 10)  # of Expr
_TARGET, _FUNCTION, _ARGUMENT = 1, 2, 3  # of Call
_LOOP_PARTS = (2, 4, 5, 6, 7)  # range, initial value, condition, step, result
_CONDITION, _STEP = 5, 6
_BOOL, _INT = 2, 3  # of Constant
SPEND = "kubernetes.@spend"
WEIGH = "kubernetes.@weigh"
OPTIONAL = "optional.ofNonZeroValue"
_GROWING = frozenset(("_+_", "replace", "join", "format"))
"""Functions whose result may be larger than what they are given."""
_ADDS_TEXT = frozenset(("add_string", "add_bytes"))
_LOOP_VARIABLES = ("@result", "__result__")


@dataclass(frozen=True)
class Changes:
    """``renames``: functions that have another name when they run; ``optional``: functions whose
    result, a list or map, is to become an optional that is none if it is empty; ``variables``:
    those that are given as lists, and are optionals of their first elements."""

    renames: Mapping[str, str]
    optional: frozenset[str]
    variables: frozenset[str]
    spending: frozenset[str]
    """Functions that count by themselves."""

    @functools.cached_property
    def concerns(self) -> re.Pattern[bytes]:
        """What is found in every compiled expression that is to be changed."""
        growing = {*_GROWING, *_ADDS_TEXT} - {"_+_"}
        return _any_of({*self.renames, *self.optional, *self.variables, *growing, *_LOOP_VARIABLES})

    @functools.cached_property
    def spends(self) -> re.Pattern[bytes]:
        """What is found in every compiled expression that counts before it is changed."""
        return _any_of(self.spending)


def _any_of(names: Iterable[str]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(re.escape(name.encode()) for name in sorted(names)))


def rewrite(compiled: bytes, changes: Changes) -> tuple[bytes, bool]:
    """The expression as it is to run, and whether it counts its cost then."""
    spends = changes.spends.search(compiled) is not None
    if not changes.concerns.search(compiled):
        return compiled, spends
    rewriter = _Rewriter(compiled, changes)
    return rewriter.rewrite(), rewriter.counts or spends


class _Rewriter:
    def __init__(self, compiled: bytes, changes: Changes) -> None:
        self._outer = _read(compiled)
        self._checked = _read(_only(self._outer, _VALUE))
        self._changes = changes
        self._overloads = dict(_overloads(self._checked))
        self._highest = max(_numbers(self._checked), default=0)
        self._added: Message = []
        self.counts = False

    def rewrite(self) -> bytes:
        inner: Message = [
            (number, self._expression(_bytes(value))[0] if number == _EXPRESSION else value)
            for number, value in self._checked
        ]
        inner.extend(self._added)
        return _write([(n, _write(inner) if n == _VALUE else v) for n, v in self._outer])

    def _expression(self, raw: bytes) -> tuple[bytes, int]:
        """The expression, rewritten, and what evaluating it once costs without its loops."""
        number, value = next((n, v) for n, v in _fields(raw) if n != _ID)
        if number == _CALL:
            return self._call(raw)
        if number == _IDENT:
            return self._ident(raw, _bytes(value)), 1
        cost = 0
        if number == _LOOP:
            value, cost = self._loop(_bytes(value))
        elif number in (_SELECT, _LIST):
            value, cost = self._children(_bytes(value), (1,))
        elif number == _STRUCT:
            value, cost = self._entries(_bytes(value))
        return _replaced(raw, number, value), cost + 1

    def _ident(self, raw: bytes, value: bytes) -> bytes:
        name = _only(_read(value), 1).decode()
        if name not in self._changes.variables:
            return raw
        return self._invoke("first", "list_first", target=raw)

    def _children(self, raw: bytes, which: tuple[int, ...]) -> tuple[bytes, int]:
        found: Message = []
        cost = 0
        for number, value in _fields(raw):
            if number not in which:
                found.append((number, value))
                continue
            child, more = self._expression(_bytes(value))
            found.append((number, child))
            cost += more
        return _write(found), cost

    def _entries(self, raw: bytes) -> tuple[bytes, int]:
        found: Message = []
        cost = 0
        for number, value in _fields(raw):
            if number != 2:
                found.append((number, value))
                continue
            entry, more = self._children(_bytes(value), (3, 4))
            found.append((number, entry))
            cost += more
        return _write(found), cost

    def _call(self, raw: bytes) -> tuple[bytes, int]:
        parts = _read(raw)
        call, cost = self._children(_only(parts, _CALL), (_TARGET, _ARGUMENT))
        name = _only(_read(call), _FUNCTION).decode()
        if name in self._changes.renames:
            call = _replaced(call, _FUNCTION, self._changes.renames[name].encode())
        found = _replaced(raw, _CALL, call)
        if name in self._changes.optional:
            found = self._invoke(OPTIONAL, "optional_ofNonZeroValue", found)
        elif name in _GROWING and self._grows(name, dict(parts)[_ID]):
            self.counts = True
            found = self._invoke(WEIGH, "kubernetes_weigh", found)
        return found, cost + 1

    def _grows(self, name: str, number: object) -> bool:
        """What may be an addition of numbers or lists alone does not."""
        return name != "_+_" or not _ADDS_TEXT.isdisjoint(self._overloads.get(number, ()))

    def _loop(self, raw: bytes) -> tuple[bytes, int]:
        """An iteration is paid for before the loop's condition is asked."""
        self.counts = True
        parts = dict(_read(raw))
        costs = {}
        for number in _LOOP_PARTS:
            parts[number], costs[number] = self._expression(_bytes(parts[number]))
        iteration = costs.pop(_CONDITION) + costs.pop(_STEP)
        paid = self._invoke(SPEND, "kubernetes_spend", self._constant(_INT, iteration))
        parts[_CONDITION] = self._invoke(
            "_?_:_", "conditional", paid, _bytes(parts[_CONDITION]), self._constant(_BOOL, 0)
        )
        return _write(sorted(parts.items())), sum(costs.values())

    def _constant(self, kind: int, value: int) -> bytes:
        return _write([(_ID, self._next()), (_CONSTANT, _write([(kind, value)]))])

    def _invoke(
        self, function: str, overload: str, *arguments: bytes, target: bytes | None = None
    ) -> bytes:
        number = self._next()
        reference = _write([(3, overload.encode())])
        self._added.append((_REFERENCES, _write([(1, number), (2, reference)])))
        call: Message = [] if target is None else [(_TARGET, target)]
        call.append((_FUNCTION, function.encode()))
        call.extend((_ARGUMENT, argument) for argument in arguments)
        return _write([(_ID, number), (_CALL, _write(call))])

    def _next(self) -> int:
        self._highest += 1
        return self._highest


def _overloads(checked: Message) -> Iterator[tuple[object, frozenset[str]]]:
    """By the expression's number, which overloads it may call."""
    for number, value in checked:
        if number == _REFERENCES:
            entry = dict(_read(_bytes(value)))
            reference = _read(_bytes(entry.get(2, b"")))
            yield entry.get(1, 0), frozenset(_bytes(v).decode() for n, v in reference if n == 3)


def _numbers(checked: Message) -> Iterator[int]:
    """Of all expressions: each has a type."""
    for number, value in checked:
        if number == _TYPES:
            found = dict(_read(_bytes(value))).get(1, 0)
            assert isinstance(found, int)
            yield found


def _only(message: Message, number: int) -> bytes:
    return _bytes(next(value for at, value in message if at == number))


def _replaced(raw: bytes, number: int, value: int | bytes) -> bytes:
    return _write([(n, value if n == number else v) for n, v in _fields(raw)])


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


def _read(raw: bytes) -> Message:
    return list(_fields(raw))


def _fields(raw: bytes) -> Iterator[Field]:
    """A field of eight bytes (a double) has its number negated, so that it is written as one."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if tag & 7 == 0:
            value, at = _varint(raw, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, at = _varint(raw, at)
            yield tag >> 3, raw[at : at + size]
            at += size
        else:
            yield -(tag >> 3), raw[at : at + 8]
            at += 8


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _write(message: Message) -> bytes:
    out = bytearray()
    for number, value in message:
        if isinstance(value, int):
            out += _number(number << 3) + _number(value)
        elif number < 0:
            out += _number(-number << 3 | 1) + value
        else:
            out += _number(number << 3 | 2) + _number(len(value)) + value
    return bytes(out)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
