"""Schema and model agree: what one takes, the other takes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from crds import kinds
from crds.base import Resource
from crds.schema import object_schema
from tests.support.openapi import problems, values

MODELS = kinds()
PARTS = {
    (kind, part): object_schema(model)["properties"][part]
    for kind, model in MODELS.items()
    for part in ("spec", "status")
}
STRATEGIES = {key: values(schema) for key, schema in PARTS.items()}
pytestmark = pytest.mark.parametrize("kind", sorted(MODELS))
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.text(max_size=5), st.just([]),
    st.just({}), st.just("x" * 3000), st.floats(allow_nan=False, width=16),
)  # fmt: skip


def model_of(kind: str, part: str) -> Any:
    return MODELS[kind].model_fields[part].annotation


@given(st.data())
@relaxed
def test_what_the_schema_takes_the_model_takes(kind: str, data: st.DataObject) -> None:
    """But for what the model's own validators add, which is what admission is for."""
    spec = data.draw(STRATEGIES[kind, "spec"])
    try:
        model_of(kind, "spec").model_validate(spec)
    except ValidationError as error:
        assert {detail["type"] for detail in error.errors()} == {"value_error"}


@given(st.data())
@relaxed
def test_every_status_of_the_schema_is_read(kind: str, data: st.DataObject) -> None:
    status = data.draw(STRATEGIES[kind, "status"])
    model_of(kind, "status").model_validate(status)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything below, inner ones too."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for step, child in inside:
        yield (*path, step)
        if isinstance(child, dict | list):
            yield from leaves(child, (*path, step))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    found = copy.deepcopy(value)
    node = found
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = by
    return found


@given(st.data())
@relaxed
def test_what_the_model_takes_the_schema_takes(kind: str, data: st.DataObject) -> None:
    """Junk is put anywhere into a good spec: if the model reads it, its wire form is good."""
    schema = PARTS[kind, "spec"]
    spec = data.draw(STRATEGIES[kind, "spec"])
    where = list(leaves(spec))
    assume(where)
    bad = replaced(spec, data.draw(st.sampled_from(where)), data.draw(JUNK))
    try:
        wire = model_of(kind, "spec").model_validate(bad).wire()
    except ValidationError:
        return
    assert list(problems(schema, wire)) == []


@given(st.data())
@relaxed
def test_an_object_survives_the_wire(kind: str, data: st.DataObject) -> None:
    spec = data.draw(STRATEGIES[kind, "spec"])
    status = data.draw(STRATEGIES[kind, "status"])
    model: type[Resource] = MODELS[kind]
    try:
        obj = model.model_validate(
            {"metadata": {"name": "a", "uid": "u", "generation": 3}, "spec": spec, "status": status}
        )
    except ValidationError:
        return
    wire = obj.wire()
    assert model.model_validate(wire) == obj
    assert wire["kind"] == kind
    assert wire["apiVersion"] == "kumulus.dev/v1alpha1"
    assert list(problems(PARTS[kind, "status"], wire["status"])) == []
