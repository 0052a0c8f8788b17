"""What a schema asks of a single value: enums, bounds, lengths, patterns, formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.apiserver import errors
from controller.apiserver.cel.texts import compile_pattern
from controller.apiserver.errors import FieldError
from controller.apiserver.schema import formats

Check = Callable[[Any, str, list[FieldError]], None]
"""Gets a value, its path, and a list that grows by what is wrong."""


def checks_of(schema: Mapping[str, Any]) -> list[Check]:
    """What a schema asks of a single value."""
    makers: list[tuple[str, Callable[[Any, Mapping[str, Any]], Check]]] = [
        ("enum", _enum),
        ("minimum", _minimum),
        ("maximum", _maximum),
        ("multipleOf", _multiple),
        ("maxLength", _max_length),
        ("minLength", _min_length),
        ("pattern", _pattern),
        ("maxItems", _max_items),
        ("minItems", _min_items),
        ("maxProperties", _max_properties),
        ("minProperties", _min_properties),
        ("format", _format),
    ]
    return [maker(schema[key], schema) for key, maker in makers if schema.get(key) is not None]


def _enum(allowed: Any, schema: Mapping[str, Any]) -> Check:
    texts = {errors.render(item) for item in allowed}
    shown = [item if isinstance(item, str) else errors.render(item) for item in allowed]

    def check(value: Any, path: str, found: list[FieldError]) -> None:
        if errors.render(value) not in texts:
            found.append(errors.not_supported(path, value, shown))

    return check


def _bound(
    fits: Callable[[Any], bool], kind: type | tuple[type, ...], text: str,
    shown: Callable[[Any], Any] = lambda value: value,
) -> Check:  # fmt: skip
    def check(value: Any, path: str, found: list[FieldError]) -> None:
        if isinstance(value, kind) and not isinstance(value, bool) and not fits(value):
            found.append(errors.invalid(path, shown(value), f"{path} in body {text}"))

    return check


def _number(value: Any) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _minimum(limit: Any, schema: Mapping[str, Any]) -> Check:
    if schema.get("exclusiveMinimum"):
        return _bound(lambda v: v > limit, (int, float), f"should be greater than {_number(limit)}")
    text = f"should be greater than or equal to {_number(limit)}"
    return _bound(lambda v: v >= limit, (int, float), text)


def _maximum(limit: Any, schema: Mapping[str, Any]) -> Check:
    if schema.get("exclusiveMaximum"):
        return _bound(lambda v: v < limit, (int, float), f"should be less than {_number(limit)}")
    text = f"should be less than or equal to {_number(limit)}"
    return _bound(lambda v: v <= limit, (int, float), text)


def _multiple(factor: Any, schema: Mapping[str, Any]) -> Check:
    text = f"should be a multiple of {_number(factor)}"
    return _bound(lambda v: (v / factor).is_integer(), (int, float), text)


def _min_length(limit: Any, schema: Mapping[str, Any]) -> Check:
    return _bound(lambda v: len(v) >= limit, str, f"should be at least {limit} chars long")


def _max_length(limit: Any, schema: Mapping[str, Any]) -> Check:
    def check(value: Any, path: str, found: list[FieldError]) -> None:
        if isinstance(value, str) and len(value) > limit:
            found.append(errors.too_long(path, limit))

    return check


def _pattern(pattern: Any, schema: Mapping[str, Any]) -> Check:
    return _bound(compile_pattern(pattern), str, f"should match '{pattern}'")


def _max_items(limit: Any, schema: Mapping[str, Any]) -> Check:
    def check(value: Any, path: str, found: list[FieldError]) -> None:
        if isinstance(value, list) and len(value) > limit:
            found.append(errors.too_many(path, len(value), limit))

    return check


def _min_items(limit: Any, schema: Mapping[str, Any]) -> Check:
    text = f"should have at least {limit} items"
    return _bound(lambda v: len(v) >= limit, list, text, len)


def _max_properties(limit: Any, schema: Mapping[str, Any]) -> Check:
    def check(value: Any, path: str, found: list[FieldError]) -> None:
        if isinstance(value, dict) and len(value) > limit:
            found.append(errors.too_many(path, len(value), limit))

    return check


def _min_properties(limit: Any, schema: Mapping[str, Any]) -> Check:
    text = f"should have at least {limit} properties"
    return _bound(lambda v: len(v) >= limit, dict, text, len)


def _format(name: Any, schema: Mapping[str, Any]) -> Check:
    fits = formats.CHECKS.get(name)

    def check(value: Any, path: str, found: list[FieldError]) -> None:
        if fits is not None and isinstance(value, str) and not fits(value):
            text = f"{path} in body must be of type {name}: {errors.render(value)}"
            found.append(errors.type_invalid(path, value, text))

    return check
