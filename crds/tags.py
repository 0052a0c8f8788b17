"""Tags. Labels select; user tags are free text with a colour; system tags extend behaviour.

A system tag is text, ``staticIp::lan::10.0.0.5``: a name and values after ``::``. Which ones there
are is declared, each with a type for each of its values, in ``TAGS`` of a module that declares
kinds (ours or a plugin's). Admission refuses what no declaration allows. What came in past
admission is ignored, and the object's Ready condition says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from ipaddress import IPv4Address
from typing import Any

from crds.base import BaseSpec, Resource

SEPARATOR = "::"
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9]{0,62}")


@dataclass(frozen=True)
class Value:
    """One value of a system tag. ``what``: for people, "an IPv4 address". ``check``: is this text
    one? ``choices``: all there are, where these are few. ``kind``: it names an object of it."""

    name: str
    what: str
    check: Callable[[str], bool] = bool
    choices: tuple[str, ...] = ()
    kind: str = ""

    def problem(self, text: str) -> str | None:
        if self.choices and text not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}, not {text!r}"
        if not self.check(text):
            return f"{self.name} must be {self.what}, not {text!r}"
        return None


def choice(name: str, *choices: str) -> Value:
    return Value(name, f"one of {', '.join(choices)}", choices=choices)


def address(name: str) -> Value:
    return Value(name, "an IPv4 address such as 10.0.0.5", _is_address)


def dns_label(name: str) -> Value:
    text = "a DNS label: a-z, 0-9 and -, at most 63 characters"
    return Value(name, text, lambda value: _DNS_LABEL.fullmatch(value) is not None)


def named(name: str, kind: str) -> Value:
    """The name of an object of ``kind``."""
    what = f"the name of an object of kind {kind}"
    return Value(name, what, lambda value: _OBJECT.fullmatch(value) is not None, kind=kind)


@dataclass(frozen=True)
class SystemTag:
    """A declaration. ``check``: (spec, values by name) → what is wrong with them together.
    ``repeated``: an object may have several, which differ in their first value."""

    name: str
    description: str
    kinds: tuple[str, ...]
    values: tuple[Value, ...] = ()
    repeated: bool = False
    check: Callable[[Any, Mapping[str, str]], Iterable[str]] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not self.kinds:
            raise ValueError(f"system tag {self.name!r}: give it a name such as bootMode and kinds")

    @property
    def pattern(self) -> str:
        """``staticIp::{l3Network}::{ip}``."""
        return SEPARATOR.join([self.name, *(f"{{{value.name}}}" for value in self.values)])

    def read(self, text: str) -> dict[str, str]:
        """The values in ``text``, which begins with this tag's name. Raises ValueError."""
        parts = text.split(SEPARATOR)[1:]
        if len(parts) != len(self.values):
            raise ValueError(f"must have the form {self.pattern}")
        for value, part in zip(self.values, parts, strict=True):
            problem = value.problem(part)
            if problem:
                raise ValueError(problem)
        return {value.name: part for value, part in zip(self.values, parts, strict=True)}


@dataclass(frozen=True)
class Found:
    """A system tag of an object: its place in the list, its declaration and its values."""

    index: int
    tag: SystemTag
    values: Mapping[str, str]


Known = Mapping[str, SystemTag]


def read_all(
    kind: str, spec: BaseSpec, known: Known | None = None
) -> tuple[list[Found], list[tuple[int, str]]]:
    """(system tags that hold, (place, why) of the others). ``known``: None: all there are."""
    if not spec.system_tags:
        return [], []
    tags = _known() if known is None else known
    found: list[Found] = []
    wrong: list[tuple[int, str]] = []
    for index, text in enumerate(spec.system_tags):
        try:
            one = _read(kind, index, text, tags)
            _accept(one, spec, found)
        except ValueError as error:
            wrong.append((index, f"system tag {text}: {error}"))
        else:
            found.append(one)
    return found, wrong


def all_of(obj: Resource, name: str) -> list[Mapping[str, str]]:
    """The values of each system tag ``name`` that an object has, by their names."""
    found, _ = read_all(type(obj).__name__, obj.spec)
    return [one.values for one in found if one.tag.name == name]


def one_of(obj: Resource, name: str) -> Mapping[str, str] | None:
    """The values of the object's system tag ``name``; None if it has none."""
    return next(iter(all_of(obj, name)), None)


def remarks(obj: Resource) -> list[str]:
    """For people: system tags that are ignored, and why."""
    spec = obj.spec
    wrong = read_all(type(obj).__name__, spec)[1] if isinstance(spec, BaseSpec) else []
    return [f"ignored: {why}" for _, why in wrong]


def matches(spec: Mapping[str, Any], wanted: str) -> bool:
    """Has an object with this spec (as on the wire) a tag like ``wanted``? That is the name of a
    user tag or the text of a system tag, with * and ?; a system tag's bare name finds it, too."""
    names = [tag.get("name", "") for tag in spec.get("tags") or ()]
    return any_like([*names, *(spec.get("systemTags") or ())], wanted)


def any_like(texts: Iterable[str], wanted: str) -> bool:
    """Is one of these tags like ``wanted``, whole or by its name?"""
    return any(
        fnmatchcase(text, wanted) or fnmatchcase(text.split(SEPARATOR, maxsplit=1)[0], wanted)
        for text in texts
    )


def collect(declared: Iterable[Sequence[SystemTag]]) -> dict[str, SystemTag]:
    """All declarations by name. Raises ValueError if two have one name."""
    tags: dict[str, SystemTag] = {}
    for tag in (tag for some in declared for tag in some):
        if tag.name in tags and tags[tag.name] is not tag:
            raise ValueError(f"two system tags are called {tag.name}; rename one")
        tags[tag.name] = tag
    return dict(sorted(tags.items()))


def _read(kind: str, index: int, text: str, known: Known) -> Found:
    name = text.split(SEPARATOR, maxsplit=1)[0]
    tag = known.get(name)
    if tag is None or kind not in tag.kinds:
        raise ValueError(_unknown(kind, name, known))
    return Found(index, tag, tag.read(text))


def _accept(one: Found, spec: BaseSpec, before: Sequence[Found]) -> None:
    """Raises ValueError if it does not go with the spec or with the tags before it."""
    first = next(iter(one.values.values()), "")
    for other in before:
        same = other.tag is one.tag
        if same and not one.tag.repeated:
            raise ValueError("is given twice; an object has it once")
        if same and next(iter(other.values.values()), "") == first:
            raise ValueError(f"is given twice for {first}")
    if one.tag.check is not None:
        for problem in one.tag.check(spec, one.values):
            raise ValueError(problem)


def _unknown(kind: str, name: str, known: Known) -> str:
    if name in known:
        return f"is for {', '.join(known[name].kinds)}, not for {kind}"
    mine = [tag.name for tag in known.values() if kind in tag.kinds]
    like = get_close_matches(name, mine, n=1)
    if like:
        return f"there is none called {name}; did you mean {known[like[0]].pattern}?"
    has = ", ".join(known[tag].pattern for tag in mine) or "none"
    return f"there is none called {name}; {kind} has: {has}"


def _known() -> Known:
    from crds import discovered  # noqa: PLC0415 the kinds import this module

    return discovered().tags


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
