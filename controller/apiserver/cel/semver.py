"""Semantic versions (https://semver.org), and what is compared by size: they and quantities.

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-semver-library
"""

from __future__ import annotations

import re
from typing import Any

from controller.apiserver.cel import quantities
from controller.apiserver.cel.functions import Function, Opaque, T, member, plain

SEMVER = Opaque("kubernetes.Semver")
_NUMBER = r"(0|[1-9]\d{0,18})"
_PART = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_FORM = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PART}(?:\.{_PART})*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?\Z",
    re.ASCII,
)


def parse(text: str, normalize: bool = False) -> tuple[str, ...]:
    """Major, minor, patch, and what comes before a release. Raises ValueError."""
    match = _FORM.match(_normalized(text) if normalize else text)
    if match is None:
        raise ValueError(f"{text!r} is no semantic version")
    return tuple(part or "" for part in match.groups()[:4])


def _normalized(text: str) -> str:
    """Without a leading v and leading zeros, with the numbers that were left out."""
    parts = text.removeprefix("v").split(".", 2)
    parts = [re.sub(r"\A0+(?=\d)", "", part) for part in parts]
    if len(parts) < 3:
        if set("+-") & set(parts[-1]):
            raise ValueError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def _make(text: str, normalize: bool = False) -> Any:
    return SEMVER.wrap(list(parse(text, normalize)))


def _is_semver(text: str, normalize: bool = False) -> bool:
    try:
        parse(text, normalize)
    except ValueError:
        return False
    return True


def _rank(value: Any) -> tuple[Any, ...]:
    """Orders as the specification says: a release is after all that precede it."""
    major, minor, patch, before = SEMVER.unwrap(value)
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in before.split(".")
    )
    return int(major), int(minor), int(patch), not before, parts if before else ()


def compare(one: Any, other: Any) -> int:
    """Of two versions, or of two quantities."""
    if not SEMVER.holds(one):
        return quantities.compare(one, other)
    left, right = _rank(one), _rank(other)
    return (left > right) - (left < right)


_V, _Q, _S = SEMVER.type, quantities.QUANTITY.type, T.STRING
FUNCTIONS: tuple[Function, ...] = (
    plain("semver", _make, ("string_to_semver", _V, (_S,)),
          ("string_bool_to_semver", _V, (_S, T.BOOL))),
    plain("isSemver", _is_semver, ("is_semver_string", T.BOOL, (_S,)),
          ("is_semver_string_bool", T.BOOL, (_S, T.BOOL))),
    member("major", lambda v: int(SEMVER.unwrap(v)[0]), ("semver_major", T.INT, (_V,))),
    member("minor", lambda v: int(SEMVER.unwrap(v)[1]), ("semver_minor", T.INT, (_V,))),
    member("patch", lambda v: int(SEMVER.unwrap(v)[2]), ("semver_patch", T.INT, (_V,))),
    member("isLessThan", lambda a, b: compare(a, b) < 0,
           ("semver_is_less_than", T.BOOL, (_V, _V)), ("quantity_is_less_than", T.BOOL, (_Q, _Q))),
    member("isGreaterThan", lambda a, b: compare(a, b) > 0,
           ("semver_is_greater_than", T.BOOL, (_V, _V)),
           ("quantity_is_greater_than", T.BOOL, (_Q, _Q))),
    member("compareTo", compare, ("semver_compare_to", T.INT, (_V, _V)),
           ("quantity_compare_to", T.INT, (_Q, _Q))),
)  # fmt: skip
