"""Label and field selectors: parsed once per request, then plain functions of an object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.apiserver import errors
from controller.apiserver.shards import ShardSelector

_TOKEN = re.compile(r"\s*(?:(==|!=|=|!|,|\(|\)|<|>)|([^\s=!,()<>]+))")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
COMMA, OPEN, CLOSE = ",", "(", ")"
_OPERATORS = "in, notin, =, ==, !=, gt, lt"


@dataclass(frozen=True)
class Requirement:
    """``key operator values``. Operators: = (in), != (notin), exists, !, >, <."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "in":
            return value is not None and value in self.values
        if self.operator == "notin":
            return value is None or value not in self.values
        if self.operator == "exists":
            return value is not None
        if self.operator == "!":
            return value is None
        return value is not None and self._compare(value)

    def _compare(self, value: str) -> bool:
        try:
            left, right = int(value), int(next(iter(self.values)))
        except ValueError:
            return False
        return left > right if self.operator == ">" else left < right


@dataclass(frozen=True)
class LabelSelector:
    """All requirements must hold. None of them: everything matches."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_labels(text: str) -> LabelSelector:
    """Raises ApiError (400) with Kubernetes' words."""
    return LabelSelector(tuple(_Parser(text).requirements())) if text.strip() else LabelSelector()


def selected_by(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """metav1.LabelSelector, as objects hold it. An empty one selects everything.

    A malformed expression selects nothing.
    """
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_expression(e, labels) for e in selector.get("matchExpressions") or ())


_EXPRESSIONS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    operator = _EXPRESSIONS.get(expression.get("operator", ""))
    if operator is None:
        return False
    values = frozenset(expression.get("values") or ())
    return Requirement(expression.get("key", ""), operator, values).matches(labels)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokenize(text)
        self._at = 0

    def requirements(self) -> list[Requirement]:
        found = [self._requirement()]
        while self._peek():
            token = self._next()
            if token != COMMA:
                raise _unparsable(f"found '{token}', expected: ',' or 'end of string'")
            if not self._peek():
                raise _unparsable("found '', expected: identifier after ','")
            found.append(self._requirement())
        return found

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return Requirement(_key(self._next()), "!")
        key = _key(self._next())
        token = self._peek()
        if token in ("", ","):
            return Requirement(key, "exists")
        operator = self._next()
        if operator in ("=", "=="):
            return Requirement(key, "in", frozenset([_value(key, self._single())]))
        if operator == "!=":
            return Requirement(key, "notin", frozenset([_value(key, self._single())]))
        if operator in (">", "<"):
            return Requirement(key, operator, frozenset([_number(self._single())]))
        if operator in ("in", "notin"):
            return Requirement(key, operator, frozenset(_value(key, v) for v in self._set()))
        raise _unparsable(f"found '{operator}', expected: {_OPERATORS}")

    def _single(self) -> str:
        return "" if self._peek() in ("", ",") else self._next()

    def _set(self) -> list[str]:
        token = self._next()
        if token != OPEN:
            raise _unparsable(f"found '{token}' expected: '('")
        found: list[str] = [""]
        while True:
            token = self._next()
            if token == CLOSE:
                return found
            if token == COMMA:
                found.append("")
            elif token:
                found[-1] = token
            else:
                raise _unparsable("found '', expected: ',' or ')'")


def _tokenize(text: str) -> list[str]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:  # cannot happen: the two groups cover every character
            raise _unparsable(f"found '{text[at:]}'")
        found.append(match.group(1) or match.group(2))
        at = match.end()
    return found


def _unparsable(why: str) -> errors.ApiError:
    return errors.bad_request(f"unable to parse requirement: {why}")


def label_key_error(key: str) -> str:
    """Why ``key`` is no label key; empty if it is one."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        return (
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or "
            "'123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') "
            "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )
    if slash and not (prefix and len(prefix) <= 253 and _LABEL_PREFIX.match(prefix)):
        return (
            "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
            "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. "
            "'example.com', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        )
    if not name:
        return "name part must be non-empty"
    if len(name) > 63:
        return "name part must be no more than 63 bytes"
    if not _LABEL_NAME.match(name):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start "
            "and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
            "regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    return ""


def label_value_error(value: str) -> str:
    """Why ``value`` is no label value; empty if it is one."""
    if len(value) > 63:
        return "must be no more than 63 bytes"
    if not LABEL_VALUE.match(value):
        return (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', "
            "'_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  "
            "or 'my_value',  or '12345', regex used for validation is "
            "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
    return ""


def _key(key: str) -> str:
    if not key or key in ("=", "==", "!=", ",", "(", ")", "<", ">"):
        raise _unparsable(f"found '{key}', expected: identifier")
    why = label_key_error(key)
    if why:
        raise _unparsable(f"<nil>: Invalid value: {errors.render(key)}: {why}")
    return key


def _value(key: str, value: str) -> str:
    why = label_value_error(value)
    if why:
        raise _unparsable(f"values[0][{key}]: Invalid value: {errors.render(value)}: {why}")
    return value


def _number(value: str) -> str:
    if not re.fullmatch(r"[+-]?\d+", value):
        raise _unparsable(
            f"values[0]: Invalid value: {errors.render(value)}: for 'Gt', 'Lt' operators, the "
            "value must be an integer"
        )
    return value


@dataclass(frozen=True)
class FieldRequirement:
    """``path = value`` or, negated, ``path != value``. Absent fields are empty strings."""

    path: str
    value: str
    negated: bool


@dataclass(frozen=True)
class FieldSelector:
    requirements: tuple[FieldRequirement, ...] = ()

    def exact(self, path: str) -> str | None:
        """The only value that ``path`` may have, if the selector says so."""
        for requirement in self.requirements:
            if requirement.path == path and not requirement.negated:
                return requirement.value
        return None

    def matches(self, wire: Mapping[str, Any]) -> bool:
        return all((field_text(wire, r.path) == r.value) != r.negated for r in self.requirements)


def parse_fields(text: str, known: Sequence[str] | None = None) -> FieldSelector:
    """Raises ApiError (400), also for fields that are not ``known`` (None: they are not judged)."""
    found = FieldSelector(tuple(_field_term(term) for term in _split_terms(text)))
    if known is not None:
        check_fields(found, known)
    return found


def check_fields(selector: FieldSelector, known: Sequence[str]) -> None:
    """Raises ApiError (400) for a field that the resource cannot be selected by."""
    for requirement in selector.requirements:
        if requirement.path not in known:
            raise errors.bad_request(f"field label not supported: {requirement.path}")


def _field_term(term: str) -> FieldRequirement:
    for operator in ("!=", "==", "="):
        at = _find_unescaped(term, operator)
        if at >= 0:
            value = _unescape(term[at + len(operator) :])
            return FieldRequirement(term[:at], value, operator == "!=")
    raise errors.bad_request(f"invalid selector: '{term}'; can't understand '{term}'")


def _split_terms(text: str) -> list[str]:
    return [term for term in re.split(r"(?<!\\),", text) if term]


def _find_unescaped(term: str, operator: str) -> int:
    match = re.search(r"(?<!\\)" + re.escape(operator), term)
    if match is None or (operator == "=" and term[: match.start()].endswith("!")):
        return -1
    return match.start()


def _unescape(value: str) -> str:
    if re.search(r"(?<!\\)=", value):
        raise errors.bad_request(f"invalid field selector: invalid value {value!r}")
    return re.sub(r"\\([\\,=])", r"\1", value)


def field_text(wire: Mapping[str, Any], path: str) -> str:
    """The field at a dotted path, as selectors compare it; absent is empty."""
    node: Any = wire
    for step in path.split("."):
        if not isinstance(node, Mapping) or step not in node:
            return ""
        node = node[step]
    if isinstance(node, bool):
        return "true" if node else "false"
    return "" if node is None or isinstance(node, Mapping | list) else str(node)


def labels_of(wire: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = wire["metadata"].get("labels") or {}
    return found


@dataclass(frozen=True)
class Selection:
    """What a request is about: all selectors together."""

    labels: LabelSelector = LabelSelector()
    fields: FieldSelector = FieldSelector()
    shards: ShardSelector | None = None

    @property
    def everything(self) -> bool:
        return not self.labels.requirements and not self.fields.requirements and self.shards is None

    def matches(self, wire: Mapping[str, Any]) -> bool:
        return (
            self.labels.matches(labels_of(wire))
            and self.fields.matches(wire)
            and (self.shards is None or self.shards.matches(wire))
        )


EVERYTHING = Selection()
