"""Selects objects by labels and tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from crds.base import Model
from crds.tags import any_like


class Selector(Model):
    """All of it must hold. Empty: everything."""

    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]],
        Field(max_length=16, description="Labels that it has."),
    ] = {}
    match_tags: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=320)]],
        Field(max_length=16, description="Tags that it has; * and ? stand for anything."),
    ] = []

    def missing(self, labels: Mapping[str, str], tags: Iterable[str]) -> str | None:
        """What an object with these lacks; None if it is selected. ``tags``: their texts."""
        texts = list(tags)
        for name, value in self.match_labels.items():
            if labels.get(name) != value:
                return f"label {name}={value}"
        return next((f"tag {tag}" for tag in self.match_tags if not any_like(texts, tag)), None)
