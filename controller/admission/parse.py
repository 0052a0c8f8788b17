"""A spec through its pydantic model; what is wrong, in the words of the API's users."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.apiserver.admission import Violation
from crds.base import FieldErrors, Resource

_FIELD = re.compile(r"[a-z][A-Za-z0-9]*\Z")
_TIME = "must be a time such as 2026-01-31T12:00:00Z"


def parse_spec(model: type[Resource], spec: object) -> tuple[Any, list[Violation]]:
    """(the parsed spec, []) or (None, why it cannot be parsed)."""
    annotation: Any = model.model_fields["spec"].annotation
    try:
        return annotation.model_validate(spec), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return None, [found for detail in details for found in _violations(detail)]


def _violations(detail: ErrorDetails) -> Iterator[Violation]:
    path = field_path("spec", detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, FieldErrors):
        for below, text in cause.problems:
            yield Violation(text, f"{path}.{below}")
    elif detail["type"] == "missing":
        yield Violation("is required", path, "FieldValueRequired")
    elif detail["type"] in ("literal_error", "enum"):
        expected = detail["ctx"]["expected"].replace("'", '"')
        yield Violation(f"must be one of: {expected}", path, "FieldValueNotSupported")
    else:
        yield Violation(_text(detail), path)


def field_path(root: str, loc: tuple[str | int, ...]) -> str:
    """``spec.nics[0].ip``. What is no field (pydantic names validators there) is left out."""
    path = root
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _FIELD.match(part):
            path += f".{part}"
    return path


_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "value_error": lambda context: str(context["error"]),
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
    "int_type": lambda _: "must be a whole number",
    "int_parsing": lambda _: "must be a whole number",
    "int_from_float": lambda _: "must be a whole number",
    "bool_type": lambda _: "must be true or false",
    "bool_parsing": lambda _: "must be true or false",
    "model_type": lambda _: "must be an object",
    "model_attributes_type": lambda _: "must be an object",
    "list_type": lambda _: "must be a list",
    "string_type": lambda _: "must be a string",
}


def _text(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind in _TEXTS:
        return _TEXTS[kind](detail.get("ctx", {}))
    if kind.startswith(("datetime_", "timezone_")):
        return _TIME
    text = detail["msg"].replace("Input should", "must").replace("should have", "must have")
    return text[0].lower() + text[1:]
