"""kubernetes.io/docs: Extend the Kubernetes API with CustomResourceDefinitions (validation,
pruning, defaulting, CEL), API concepts (field validation)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.conftest import Widgets
from tests.conformance.pages import page

UNCHECKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was "
    "invalid; correct the existing errors to complete validation"
)


@page(pages.DEFINITIONS, "validation")
@pytest.mark.parametrize(
    ("spec", "text", "blocking"),
    [
        ({}, "spec.size: Required value", True),
        ({"size": None}, "spec.size: Required value", True),
        (
            {"size": "s"},
            'spec.size: Invalid value: "string": spec.size in body must be of type integer: '
            '"string"',
            True,
        ),
        (
            {"size": True},
            'spec.size: Invalid value: "boolean": spec.size in body must be of type integer: '
            '"boolean"',
            True,
        ),
        (
            {"size": 11},
            "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
            False,
        ),
        (
            {"size": 0},
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
            False,
        ),
        (
            {"size": 1, "mode": "C"},
            'spec.mode: Unsupported value: "C": supported values: "A", "B"',
            True,
        ),
        (
            {"size": 1, "name": "toolong"},
            "spec.name: Too long: may not be more than 5 bytes",
            True,
        ),
        (
            {"size": 1, "name": "X"},
            "spec.name: Invalid value: \"X\": spec.name in body should match '^[a-z]+$'",
            False,
        ),
        ({"size": 1, "name": "bad"}, "spec: Invalid value: bad name", False),
        (
            {"size": 1, "list": [{"k": "a"}, {"k": "a"}]},
            'spec.list[1]: Duplicate value: {"k":"a"}',
            False,
        ),
        (
            {"size": 1, "list": [{"k": c} for c in "abcd"]},
            "spec.list: Too many: 4: must have at most 3 items",
            True,
        ),
        ({"size": 1, "list": [{"v": 1}]}, "spec.list[0].k: Required value", True),
        (
            {"size": 1, "port": 1.5},
            'spec.port: Invalid value: "number": spec.port in body must be of type '
            'integer,string: "number"',
            True,
        ),
        (
            {"size": 1, "list": {}},
            'spec.list: Invalid value: "object": spec.list in body must be of type array: "object"',
            True,
        ),
    ],
)
def test_invalid_specs_are_refused_by_field(
    widgets: Widgets, spec: Any, text: str, blocking: bool
) -> None:
    reply = widgets.cluster.post(widgets.path, widgets.make("x", spec))
    assert reply.code == 422
    body = f"[{text}, {UNCHECKED}]" if blocking else text
    assert reply.message == f'Widget.conformance.kumulus.dev "x" is invalid: {body}'
    assert reply.json["reason"] == "Invalid"
    assert reply.fields[0] == text.partition(": ")[0]
    assert reply.json["details"]["kind"] == "Widget"


@page(pages.DEFINITIONS, "transition-rules")
def test_a_transition_rule_compares_with_the_old_object(widgets: Widgets) -> None:
    widgets.create("x", {"size": 5})
    refused = widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 4}})
    assert refused.code == 422
    assert refused.message.endswith("is invalid: spec.size: Forbidden: no shrink")
    assert widgets.cluster.merge(widgets.at("x"), {"spec": {"size": 6}}).code == 200


@page(pages.DEFINITIONS, "field-pruning")
def test_unknown_fields_are_pruned_and_warned_of(widgets: Widgets) -> None:
    wire = widgets.make("x", {"size": 1, "foo": 1, "list": [{"k": "a", "z": 1}]})
    wire["bar"] = 2
    reply = widgets.cluster.post(widgets.path, wire)
    assert reply.ok()["spec"] == {"size": 1, "mode": "A", "list": [{"k": "a"}]}
    assert "bar" not in reply.json
    assert reply.warnings == [
        '299 - "unknown field \\"bar\\""',
        '299 - "unknown field \\"spec.foo\\""',
        '299 - "unknown field \\"spec.list[0].z\\""',
    ]


@page(pages.API, "setting-the-field-validation-level")
def test_ignore_says_nothing_of_unknown_fields(widgets: Widgets) -> None:
    wire = widgets.make("x", {"size": 1, "foo": 1})
    reply = widgets.cluster.post(widgets.path, wire, fieldValidation="Ignore")
    assert reply.ok()["spec"] == {"size": 1, "mode": "A"}
    assert reply.warnings == []


@page(pages.API, "setting-the-field-validation-level")
def test_strict_refuses_unknown_fields(widgets: Widgets) -> None:
    wire = widgets.make("x", {"size": 1, "foo": 1})
    reply = widgets.cluster.post(widgets.path, wire, fieldValidation="Strict")
    assert reply.code == 400
    assert reply.message == (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown '
        'field "spec.foo"'
    )


@page(pages.API, "setting-the-field-validation-level")
def test_strict_refuses_duplicate_fields(widgets: Widgets) -> None:
    raw = (
        b'{"apiVersion":"conformance.kumulus.dev/v1","kind":"Widget","metadata":{"name":"q"},'
        b'"spec":{"size":1,"size":2}}'
    )
    reply = widgets.cluster.post(widgets.path, raw, fieldValidation="Strict")
    assert reply.code == 400
    assert 'duplicate field "spec.size"' in reply.message


@page(pages.DEFINITIONS, "controlling-pruning")
def test_unknown_fields_stay_where_the_schema_preserves_them(widgets: Widgets) -> None:
    spec = {"size": 1, "free": {"a": {"b": [1, {"c": None}]}}}
    found = widgets.create("x", spec)
    assert found["spec"]["free"] == {"a": {"b": [1, {"c": None}]}}


@page(pages.DEFINITIONS, "defaulting")
def test_defaults_are_filled_in(widgets: Widgets) -> None:
    assert widgets.create("x", {"size": 1})["spec"]["mode"] == "A"


@page(pages.DEFINITIONS, "intorstring")
def test_int_or_string_takes_both(widgets: Widgets) -> None:
    assert widgets.create("a", {"size": 1, "port": 80})["spec"]["port"] == 80
    assert widgets.create("b", {"size": 1, "port": "http"})["spec"]["port"] == "http"


@page(pages.LABELS, "syntax-and-character-set")
@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"name": "Bad_Name"}, 'metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123'),
        ({"labels": {"a b": "c"}}, 'metadata.labels: Invalid value: "a b": name part must'),
        ({"labels": {"a": "c d"}}, 'metadata.labels: Invalid value: "c d": a valid label must'),
        ({"annotations": {"x y": "z"}}, 'metadata.annotations: Invalid value: "x y": name part'),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a"}]},
            'metadata.ownerReferences.uid: Invalid value: "": must not be empty',
        ),
    ],
)
def test_bad_metadata_is_refused(widgets: Widgets, metadata: Any, text: str) -> None:
    wire = widgets.make("x")
    wire["metadata"].update(metadata)
    reply = widgets.cluster.post(widgets.path, wire)
    assert reply.code == 422
    assert text in reply.message


@page(pages.API, "field-validation")
def test_metadata_of_the_wrong_type_is_a_bad_request(widgets: Widgets) -> None:
    wire = widgets.make("x", labels={"a": 1})
    reply = widgets.cluster.post(widgets.path, wire)
    assert reply.code == 400
    assert "cannot unmarshal number into Go struct field ObjectMeta.labels" in reply.message


@page(pages.API, "standard-api-terminology")
@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"{}", b"nul"])
def test_a_body_that_is_no_object_is_a_bad_request(widgets: Widgets, body: bytes) -> None:
    reply = widgets.cluster.post(widgets.path, body)
    assert reply.code == 400
    assert reply.message.startswith(
        "the object provided is unrecognized (must be of type Widget): "
    )


@page(pages.API, "alternate-representations-of-resources")
def test_an_unknown_media_type_is_415(widgets: Widgets) -> None:
    reply = widgets.cluster("POST", widgets.path, b"x", content="text/plain")
    assert reply.code == 415
    assert reply.json["reason"] == "UnsupportedMediaType"


@page(pages.API, "standard-api-terminology")
def test_version_and_kind_must_fit_the_path(widgets: Widgets) -> None:
    wire = {**widgets.make("x"), "apiVersion": "conformance.kumulus.dev/v2"}
    assert widgets.cluster.post(widgets.path, wire).message == (
        "the API version in the data (conformance.kumulus.dev/v2) does not match the expected API "
        "version (conformance.kumulus.dev/v1)"
    )
    other = widgets.cluster.post(widgets.path, {**widgets.make("x"), "kind": "Foo"})
    assert other.code == 422
    assert 'kind: Invalid value: "Foo": must be Widget' in other.message
