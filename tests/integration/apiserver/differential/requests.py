"""Generated requests. A step names what differs between servers (versions, uids) symbolically."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.conformance.client import JSON_PATCH, MERGE, STRATEGIC, TABLE

NAMES = ("a", "b", "c")
APPLY = "application/apply-patch+yaml"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
Version = Literal["none", "current", "stale", "nonsense"]


@dataclass(frozen=True)
class Step:
    """One request on one collection. ``version``: which resourceVersion the body carries."""

    method: str
    name: str = ""
    subresource: str = ""
    body: Any = None
    content: str = "application/json"
    query: dict[str, str] = field(default_factory=dict)
    version: Version = "none"
    follow: bool = False
    """Follow ``continue`` to the last page."""
    accept: str = "application/json"


def maps(keys: tuple[str, ...], values: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), values, max_size=3)


LABEL_KEYS = ("tier", "app", "example.com/x")
LABELS = maps(LABEL_KEYS, st.sampled_from(["1", "2", ""]))
BAD_LABELS = st.sampled_from([{"-bad": "1"}, {"tier": "no good"}, {"a/b/c": "1"}, {"x": "y" * 64}])
SPECS: SearchStrategy[Any] = st.fixed_dictionaries(
    {"size": st.sampled_from([1, 2, 5, 10])},
    optional={
        "mode": st.sampled_from(["A", "B", "C", 1, None]),
        "port": st.sampled_from([80, "http", 1.5, None, True]),
        "name": st.sampled_from(["ok", "bad", "toolong", "UP", ""]),
        "free": st.sampled_from([{}, {"x": [1, {"y": None}]}, "text", None]),
        "list": st.lists(
            st.fixed_dictionaries(
                {"k": st.sampled_from(["p", "q"])}, optional={"v": st.sampled_from([1, "x", None])}
            )
            | st.just({"v": 1}),
            max_size=4,
        ),
        "unknown": st.sampled_from([1, {"deep": 1}]),
    },
)
GOOD_SPECS: SearchStrategy[Any] = st.fixed_dictionaries(
    {"size": st.sampled_from([2, 5, 10])},
    optional={
        "mode": st.sampled_from(["A", "B"]),
        "port": st.sampled_from([80, "http"]),
        "name": st.just("ok"),
        "free": st.sampled_from([{}, {"x": 1}, {"x": {"y": 2}}, {"z": [1]}]),
        "list": st.lists(
            st.fixed_dictionaries(
                {"k": st.sampled_from("pqr")}, optional={"v": st.sampled_from([1, 2])}
            ),
            max_size=3, unique_by=lambda item: item["k"],
        ),
    },
)  # fmt: skip
BAD_SPECS: SearchStrategy[Any] = st.sampled_from(
    [None, {}, {"size": 0}, {"size": 11}, {"size": "x"}, {"size": 1.5}, {"size": 2.0}, [], "x",
     {"size": None}, {"size": True}]
)  # fmt: skip
ANY_SPEC = st.one_of(GOOD_SPECS, GOOD_SPECS, GOOD_SPECS, SPECS, SPECS, BAD_SPECS)
STATUS = st.sampled_from([{}, {"ready": True}, {"ready": False, "more": 1}, None])
BAD_STATUS = st.sampled_from([{"ready": "x"}, {"ready": {}}, [], "x"])
FINALIZERS = st.sampled_from([[], ["example.com/hold"], ["example.com/hold", "example.com/two"]])
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.one_of(LABELS, LABELS, LABELS, BAD_LABELS),
        "annotations": maps(("note", "example.com/y"), st.sampled_from(["", "text"])),
        "finalizers": FINALIZERS,
        "generation": st.just(77),
        "deletionTimestamp": st.just("2020-01-01T00:00:00Z"),
        "creationTimestamp": st.just("2020-01-01T00:00:00Z"),
        "uid": st.just("11111111-1111-1111-1111-111111111111"),
        "selfLink": st.just("/x"),
        "unknown": st.just(1),
    },
)
VALIDATION = st.sampled_from(["", "", "", "", "", "Ignore", "Warn", "Strict", "Nonsense"])
DRY_RUN = st.sampled_from(["", "", "", "", "", "", "", "All", "Some"])
ANY_NAME = st.sampled_from(NAMES)


def _write_query(validation: str, dry_run: str) -> dict[str, str]:
    given = {"fieldValidation": validation, "dryRun": dry_run}
    return {key: value for key, value in given.items() if value}


WRITE_QUERY = st.builds(_write_query, VALIDATION, DRY_RUN)


def wire(metadata: dict[str, Any], spec: Any, status: Any, name: str) -> dict[str, Any]:
    found = {
        "apiVersion": "conformance.kumulus.dev/v1", "kind": "Widget",
        "metadata": {"name": name, **metadata}, "spec": spec,
    }  # fmt: skip
    return {**found, "status": status} if status else found


OBJECTS = st.builds(wire, METADATA, ANY_SPEC, STATUS, ANY_NAME)
VERSIONS: SearchStrategy[Version] = st.sampled_from(
    ["current", "current", "current", "none", "stale", "nonsense"]
)

CREATE = st.builds(lambda body, query: Step("POST", body=body, query=query), OBJECTS, WRITE_QUERY)


def plain_create(name: str) -> SearchStrategy[Step]:
    return st.builds(
        lambda labels, finalizers: Step(
            "POST",
            body=wire({"labels": labels, "finalizers": finalizers}, {"size": 2}, None, name),
        ),
        LABELS, FINALIZERS,
    )  # fmt: skip


def plain_apply(name: str) -> SearchStrategy[Step]:
    return st.builds(
        lambda labels, spec: Step(
            "PATCH", name, body=wire({"labels": labels}, spec, None, name),
            content=APPLY, query={"fieldManager": "one"},
        ),
        LABELS, GOOD_SPECS,
    )  # fmt: skip


PLAIN_CREATE = ANY_NAME.flatmap(plain_create)
PUT = st.builds(
    lambda body, sub, query, version: Step(
        "PUT", body["metadata"]["name"], sub, {**body, "spec": {"size": 7}} if sub else body,
        query=query, version=version,
    ),
    OBJECTS, st.sampled_from(["", "", "status"]), WRITE_QUERY, VERSIONS,
)  # fmt: skip
NULLS = st.sampled_from(
    [
        {"metadata": {"finalizers": None}},
        {"metadata": {"labels": None}},
        {"metadata": None},
        {"spec": None},
        {"spec": {"mode": None}},
        {"status": None},
        {"metadata": {"name": "other"}},
        {"metadata": {"namespace": "other"}},
        {"kind": "Other"},
        {"apiVersion": "x/v1"},
        {"unknown": 1},
        {},
    ]
)
CHANGES = st.one_of(
    st.builds(lambda spec: {"spec": spec}, ANY_SPEC),
    st.builds(lambda metadata: {"metadata": metadata}, METADATA),
    st.builds(lambda status: {"status": status}, STATUS),
    NULLS,
)
MERGE_PATCH = st.builds(
    lambda name, sub, body, query, version: Step(
        "PATCH", name, sub, body, MERGE, query, version if "metadata" in body else "none"
    ),
    ANY_NAME, st.sampled_from(["", "", "status"]), CHANGES, WRITE_QUERY,
    st.sampled_from(["none", "none", "stale"]),
)  # fmt: skip
STATUS_PATCH = st.builds(
    lambda name, status: Step("PATCH", name, "status", {"status": status}, MERGE),
    ANY_NAME, st.one_of(STATUS, BAD_STATUS),
)  # fmt: skip
OPERATIONS = st.sampled_from(
    [
        {"op": "add", "path": "/spec/list", "value": [{"k": "p", "v": 1}]},
        {"op": "add", "path": "/spec/list/-", "value": {"k": "q"}},
        {"op": "remove", "path": "/spec/list/0"},
        {"op": "replace", "path": "/spec/size", "value": 9},
        {"op": "replace", "path": "/spec/size", "value": "x"},
        {"op": "test", "path": "/spec/size", "value": 2},
        {"op": "copy", "from": "/spec/size", "path": "/spec/free"},
        {"op": "move", "from": "/spec/mode", "path": "/spec/name"},
        {"op": "add", "path": "/metadata/labels", "value": {"tier": "1"}},
        {"op": "remove", "path": "/metadata/finalizers"},
        {"op": "remove", "path": "/spec"},
        {"op": "replace", "path": "", "value": {}},
        {"op": "remove", "path": "/nowhere"},
        {"op": "add", "path": "/spec/free", "value": {"a~b/c": 1}},
        {"op": "remove", "path": "/spec/free/a~0b~1c"},
    ]
)
JSON_PATCHES = st.builds(
    lambda name, body, query: Step("PATCH", name, "", body, JSON_PATCH, query),
    ANY_NAME, st.lists(OPERATIONS, min_size=1, max_size=3), WRITE_QUERY,
)  # fmt: skip
STRATEGIC_PATCH = st.builds(
    lambda name, body: Step("PATCH", name, "", body, STRATEGIC), ANY_NAME, CHANGES
)


def _apply_query(query: dict[str, str], manager: str, force: str) -> dict[str, str]:
    given = {"fieldManager": manager, "force": force}
    return {**query, **{key: value for key, value in given.items() if value}}


_GOOD_METADATA = st.fixed_dictionaries({}, optional={"labels": LABELS, "finalizers": FINALIZERS})
APPLIED_METADATA = st.one_of(_GOOD_METADATA, _GOOD_METADATA, _GOOD_METADATA, METADATA)
APPLIES = st.builds(
    lambda metadata, spec, status, name, sub, query, version: Step(
        "PATCH", name, sub, wire(metadata, spec, status, name), APPLY, query, version
    ),
    APPLIED_METADATA, st.one_of(GOOD_SPECS, GOOD_SPECS, GOOD_SPECS, ANY_SPEC),
    st.one_of(st.none(), STATUS, BAD_STATUS), st.sampled_from("aab"),
    st.sampled_from(["", "", "", "status"]),
    st.builds(
        _apply_query, WRITE_QUERY, st.sampled_from(["one", "one", "two", "two", ""]),
        st.sampled_from(["", "", "true", "false", "x"]),
    ),
    st.sampled_from(["none", "none", "none", "stale"]),
)  # fmt: skip
"""Two managers apply, with and without force."""

DELETE = st.builds(
    lambda name, body, query: Step("DELETE", name, body=body, query=query),
    ANY_NAME,
    st.sampled_from(
        [
            None,
            None,
            {"kind": "DeleteOptions", "apiVersion": "v1"},
            {"preconditions": {"uid": "11111111-1111-1111-1111-111111111111"}},
            {"preconditions": {"resourceVersion": "1"}},
            {"propagationPolicy": "Nonsense"},
            {"propagationPolicy": "Background"},
            {"propagationPolicy": "Background", "orphanDependents": True},
        ]
    ),
    st.builds(lambda dry: {"dryRun": dry} if dry else {}, DRY_RUN),
)
RELEASE = st.builds(
    lambda name: Step("PATCH", name, "", {"metadata": {"finalizers": None}}, MERGE), ANY_NAME
)
LABEL_SELECTORS = st.sampled_from(
    ["", "tier=1", "tier!=1", "tier in (1,2)", "!tier", "app,tier", "tier notin ()", "tier=",
     "tier in (1", "=1", "tier==1,app=2", "tier>0", "tier<2"]
)  # fmt: skip
FIELD_SELECTORS = st.sampled_from(
    ["", "", "metadata.name=a", "metadata.name!=a", "spec.size=1", "metadata.name", "x",
     "spec.mode=A", "spec.mode!=A,metadata.name!=b", "spec.mode="]
)  # fmt: skip


def _list_query(labels: str, fields: str, limit: str, match: str) -> dict[str, str]:
    given = {
        "labelSelector": labels, "fieldSelector": fields, "limit": limit,
        "resourceVersionMatch": match,
    }  # fmt: skip
    return {key: value for key, value in given.items() if value}


LIST_QUERY = st.builds(
    _list_query, LABEL_SELECTORS, FIELD_SELECTORS, st.sampled_from(["", "", "1", "2", "x", "-1"]),
    st.sampled_from(["", "", "", "Exact"]),
)  # fmt: skip
LIST = st.builds(
    lambda query, accept: Step("GET", query=query, follow=True, accept=accept),
    LIST_QUERY, st.sampled_from(["application/json", "application/json", TABLE, PARTIAL_LIST]),
)  # fmt: skip
GET = st.builds(
    lambda name, sub, accept: Step("GET", name, sub, accept=accept),
    ANY_NAME, st.sampled_from(["", "", "status", "nothing"]),
    st.sampled_from(["application/json", "application/json", TABLE, PARTIAL, "text/html"]),
)  # fmt: skip
DELETE_ALL = st.builds(
    lambda labels, dry: Step(
        "DELETE", query={k: v for k, v in (("labelSelector", labels), ("dryRun", dry)) if v}
    ),
    st.sampled_from(["tier=1", "!tier", "tier in (1"]), DRY_RUN,
)  # fmt: skip
RAW = st.sampled_from([b"", b"{", b"[]", b"null", b"1", b'"x"', b'{"kind":"Widget"}', b"\xff\xfe"])
MALFORMED = st.one_of(
    st.builds(lambda raw: Step("POST", body=raw), RAW),
    st.builds(lambda raw, name: Step("PUT", name, body=raw), RAW, ANY_NAME),
    st.builds(lambda raw, name: Step("PATCH", name, body=raw, content=MERGE), RAW, ANY_NAME),
    st.builds(lambda raw, name: Step("PATCH", name, body=raw, content=JSON_PATCH), RAW, ANY_NAME),
    st.builds(
        lambda raw, name: Step(
            "PATCH", name, body=raw, content=APPLY, query={"fieldManager": "one"}
        ),
        RAW,
        ANY_NAME,
    ),
    st.builds(lambda name: Step("PATCH", name, body=b"{}", content="text/plain"), ANY_NAME),
    st.builds(lambda body: Step("POST", body=body, content="text/plain"), OBJECTS),
)
STEPS = st.one_of(
    PLAIN_CREATE, CREATE, PUT, MERGE_PATCH, MERGE_PATCH, STATUS_PATCH, JSON_PATCHES,
    STRATEGIC_PATCH, APPLIES,
    APPLIES, APPLIES, DELETE, RELEASE, LIST, GET, DELETE_ALL, MALFORMED,
)  # fmt: skip
SEQUENCES = st.builds(
    lambda first, rest: [*first, *rest],
    st.tuples(st.one_of(plain_create("a"), plain_apply("a")), plain_create("b")),
    st.lists(STEPS, min_size=3, max_size=12),
)
