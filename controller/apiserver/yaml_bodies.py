"""YAML in requests: read as JSON would be, with a note of the keys that stand twice."""

from __future__ import annotations

import re
from typing import Any

import orjson
import yaml

from controller.apiserver import errors

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MAX_VALUES = 1_000_000
"""What a document may come to once its aliases are replaced by what they stand for."""


class NotYaml(ValueError):
    """The text says why."""


class _Loader(yaml.SafeLoader):
    """YAML whose values are JSON's; notes keys that stand twice."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.doubled: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            text = getattr(key, "value", None)
            if isinstance(text, str) and text in seen:
                line = key.start_mark.line + 1
                self.doubled.append(f"line {line}: key {errors.render(text)} already set in map")
            if isinstance(text, str):
                seen.add(text)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != _TIMESTAMP]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(body: bytes) -> tuple[Any, list[str]]:
    """The value, and the keys that stand twice. Raises NotYaml."""
    json, doubled = _read(body)
    return orjson.loads(json), doubled


def to_json(body: bytes) -> tuple[bytes, list[str]]:
    """The value as JSON, and the keys that stand twice. Raises ApiError (400)."""
    try:
        return _read(body)
    except NotYaml as error:
        raise errors.bad_request(f"error converting YAML to JSON: {error}") from None


def _read(body: bytes) -> tuple[bytes, list[str]]:
    try:
        loader = _Loader(body)
        try:
            found = loader.get_single_data()
        finally:
            loader.dispose()
        _count(found, {})
        # Through JSON, so that what JSON cannot say is refused.
        return orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS), loader.doubled
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise NotYaml("yaml: " + re.sub(r"\s+", " ", str(error))) from None


def _count(value: Any, counted: dict[int, int]) -> int:
    """How many values there are within, each alias counted as what it stands for."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in counted:
        counted[id(value)] = _MAX_VALUES  # what is within itself has no end
        within = value.values() if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count(item, counted) for item in within)
    if counted[id(value)] > _MAX_VALUES:
        raise ValueError("document contains excessive aliasing")
    return counted[id(value)]
