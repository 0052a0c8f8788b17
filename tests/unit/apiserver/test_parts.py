"""Small parts: JSONPath, ages, paths, negotiation, protobuf, versions, duplicate keys."""

from __future__ import annotations

import datetime as dt
import json
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import pki
from controller.apiserver import decoding, meta, negotiate, protobuf, tables
from controller.apiserver.builtins import builtins
from controller.apiserver.catalog import split_api_version, version_rank
from controller.apiserver.errors import ApiError
from controller.apiserver.jsonpath import BadPath, compile_path
from controller.apiserver.kubeconfig import write_kubeconfig
from controller.apiserver.paths import ResourcePath, parse_resource_path

WIRE = {
    "a": {"b.c": 1, "list": [{"t": "x", "n": 1}, {"t": "y", "n": 2}]},
    "items": [1, 2, 3],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a['b.c']", [1]),
        (r".a.b\.c", [1]),
        (".a.list[0].t", ["x"]),
        (".a.list[-1].t", ["y"]),
        (".a.list[*].n", [1, 2]),
        ('.a.list[?(@.t=="y")].n', [2]),
        (".a.list[?(@.n>1)].t", ["y"]),
        (".items[5]", []),
        (".none.at.all", []),
        ("{.items[1]}", [2]),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    assert compile_path(path)(WIRE) == found


@pytest.mark.parametrize("path", ["a.b", ".a[", ".a[?(@.b~1)]", ".a b"])
def test_bad_json_paths(path: str) -> None:
    with pytest.raises(BadPath):
        compile_path(path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (599, "9m59s"), (600, "10m"),
        (10799, "179m"), (10800, "3h"), (12000, "3h20m"), (28800, "8h"), (172799, "47h"),
        (172800, "2d"), (190000, "2d4h"), (691200, "8d"), (63072000, "2y"), (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_durations(seconds: int, text: str) -> None:
    assert tables.duration(seconds) == text


def test_ages() -> None:
    now = dt.datetime(2026, 1, 1, 0, 1, tzinfo=dt.UTC)
    assert tables.age("2026-01-01T00:00:00Z", now) == "60s"
    assert tables.age(None) == "<unknown>"
    assert tables.age("yesterday") == "<invalid>"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v1/namespaces", ResourcePath("", "v1", "namespaces")),
        ("/api/v1/namespaces/x", ResourcePath("", "v1", "namespaces", "", "x")),
        ("/api/v1/namespaces/x/status", ResourcePath("", "v1", "namespaces", "", "x", "status")),
        ("/api/v1/namespaces/x/secrets", ResourcePath("", "v1", "secrets", "x")),
        ("/api/v1/namespaces/x/secrets/y", ResourcePath("", "v1", "secrets", "x", "y")),
        ("/apis/g/v/k/n/status", ResourcePath("g", "v", "k", "", "n", "status")),
        ("/apis/g/v/namespaces/x/k/n/s", ResourcePath("g", "v", "k", "x", "n", "s")),
        ("/apis/g/v", None),
        ("/api/v2/pods", None),
        ("/healthz", None),
        ("/apis/g/v/k/n/s/t", None),
    ],
)
def test_paths(path: str, found: ResourcePath | None) -> None:
    assert parse_resource_path(path) == found


def test_negotiation() -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    assert negotiate.accepted(table).form == "Table"
    assert (
        negotiate.accepted("application/vnd.kubernetes.protobuf,application/json").form == "object"
    )
    assert (
        negotiate.accepted("application/json;as=Nonsense;v=v1;g=meta.k8s.io,*/*").form == "object"
    )
    assert negotiate.accepted("application/yaml").media == negotiate.YAML
    with pytest.raises(ApiError):
        negotiate.accepted("text/html")


def test_versions_in_order_of_preference() -> None:
    given = ["v1alpha1", "v2", "v10", "v1beta2", "v1", "foo", "v1beta10"]
    assert sorted(given, key=version_rank) == [
        "v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo",
    ]  # fmt: skip
    assert split_api_version("v1") == ("", "v1")
    assert split_api_version("a.b/v1") == ("a.b", "v1")


DOCUMENTS = st.recursive(
    st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(DOCUMENTS, st.booleans())
def test_no_document_without_duplicates_has_any(document: Any, ascii_only: bool) -> None:
    raw = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert decoding.duplicates(raw, orjson.loads(raw)) == []


@given(st.text(min_size=1, max_size=5), DOCUMENTS)
def test_duplicates_are_found(key: str, document: Any) -> None:
    name = json.dumps(key)
    raw = f'{{"x":{json.dumps(document)},{name}:1,"y":[{{{name}:2,{name}:3}}]}}'.encode()
    found = decoding.duplicates(raw, orjson.loads(raw))
    assert f'duplicate field "y[0].{key}"' in found


def test_generated_names_are_short_enough() -> None:
    name = meta.generated_name("x" * 100)
    assert len(name) == 63
    assert meta.name_error(name, "label") == ""


# Protobuf


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    meta_type = _bytes(1, api_version.encode()) + _bytes(2, kind.encode())
    return protobuf.MAGIC + _bytes(1, meta_type) + _bytes(2, raw)


BY_KIND = {(r.group, r.kind): r for r in builtins()}


def test_a_lease_in_protobuf() -> None:
    metadata = _bytes(1, b"l") + _bytes(11, _bytes(1, b"k") + _bytes(2, b"v"))
    renewed = _number(1, 1767225600) + _number(2, 500_000_000)
    spec = _bytes(1, b"me") + _number(2, 15) + _bytes(4, renewed)
    raw = _envelope("coordination.k8s.io/v1", "Lease", _bytes(1, metadata) + _bytes(2, spec))
    found = json.loads(protobuf.to_json(BY_KIND[("coordination.k8s.io", "Lease")], raw))
    assert found == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l", "labels": {"k": "v"}},
        "spec": {
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "renewTime": "2026-01-01T00:00:00.500000Z",
        },
    }


@given(st.binary(max_size=200), st.sampled_from(sorted(BY_KIND)))
def test_any_bytes_are_decoded_or_refused(raw: bytes, kind: tuple[str, str]) -> None:
    for body in (raw, protobuf.MAGIC + raw, _envelope("v1", "X", raw)):
        try:
            json.loads(protobuf.to_json(BY_KIND[kind], body))
        except ApiError as error:
            assert error.code == 400


def test_delete_options_in_protobuf() -> None:
    raw = _number(1, 0) + _bytes(2, _bytes(1, b"uid")) + _bytes(4, b"Orphan") + _bytes(5, b"All")
    found = protobuf.delete_options(_envelope("v1", "DeleteOptions", raw))
    assert found["preconditions"] == {"uid": "uid"}
    assert found["propagationPolicy"] == "Orphan"
    assert found["dryRun"] == ["All"]


def test_a_kubeconfig_is_its_owners_alone(tmp_path: Path) -> None:
    authority = pki.Authority.create(tmp_path / "pki")
    pair = authority.issue(tmp_path / "pki", "admin", common_name="admin", client=True)
    path = write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", authority.ca, pair)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "client-key-data" in path.read_text()
