"""Hostile requests, made from good ones and a seed."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

GROUP = "fuzz.example.com"
BASE = f"/apis/{GROUP}/v1/namespaces/default/gadgets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer", "minimum": 0},
                "name": {"type": "string", "maxLength": 8, "pattern": "^[a-z]*$"},
                "ratio": {"type": "number", "multipleOf": 0.1},
                "port": {"x-kubernetes-int-or-string": True},
                "when": {"type": "string", "format": "date-time"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                "list": {
                    "type": "array",
                    "maxItems": 5,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {
                        "type": "object",
                        "required": ["k"],
                        "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                    },
                },
                "set": {
                    "type": "array",
                    "maxItems": 5,
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string"},
                },
            },
            "x-kubernetes-validations": [
                {"rule": "!has(self.replicas) || 100 / self.replicas >= 0"},
                {"rule": "!has(self.list) || self.list[0].v < 100"},
                {"rule": "!has(self.map) || self.map.all(k, self.map[k] > -5)"},
                {"rule": "!has(self.name) || self.name != 'bad' || oldSelf.name == 'x'"},
            ],
        },
        "status": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
        },
    },
}
GOOD: dict[str, Any] = {
    "apiVersion": f"{GROUP}/v1",
    "kind": "Gadget",
    "metadata": {
        "name": "a",
        "labels": {"tier": "1"},
        "annotations": {"note": "x"},
        "finalizers": ["example.com/hold"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "y"}],
    },
    "spec": {
        "replicas": 1, "name": "ok", "ratio": 0.5, "port": 80, "when": "2020-01-01T00:00:00Z",
        "free": {"a": [1]}, "map": {"a": 1}, "list": [{"k": "a", "v": 1}], "set": ["a"],
    },
    "status": {"replicas": 1, "selector": "a=b"},
}  # fmt: skip
DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**63), 2**64, 10**40, 1e308, "", " ", "\0",
    "\n", "é", "🂡", "a" * 300, "-", "a=b", "__proto__", "9" * 30, "/", "..", "%00", "\\", '"',
    [], {}, [[]], [None], {"": None}, {"a": {"b": None}}, DEEP, ["a", "a"], {"k": 1},
    "2020-13-45T99:99:99Z", "0001-01-01T00:00:00Z",
)  # fmt: skip
RAW = (
    b"", b" ", b"{", b"}", b"[", b"null", b"true", b"1", b'"', b"{}", b"[]", b'{"a":1e999}',
    b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"metadata":{"name":"\\ud800"}}', b"\xff\xfe\xfd", b"\0",
    b'{"a":1,"a":2}', b"[" * 5000, b'{"a":' * 3000, b'{"a":' + b"9" * 5000 + b"}", b"--- []\n",
    b"&a [*a]", b"!!python/object:os.system x", b"k8s\0\0", b"k8s\0" + bytes(range(256)),
    b"\xef\xbb\xbf{}", b"a: &a [1]\nb: *a\n", b"\x80" * 40,
)  # fmt: skip
PARTS = (
    "apis", "api", "v1", GROUP, "namespaces", "default", "gadgets", "a", "status", "scale", "..",
    ".", "", "%2f", "%00", "%ff", "%", "%zz", "~", "é", "x" * 300, "openapi", "v3", "v2",
    "configmaps", "events", "secrets", "finalize", "healthz", "metrics", "a b", "a;b", "a?b", "a#b",
)  # fmt: skip
SELECTORS = (
    "a", "a=1", "a!=1", "a in (1,2)", "a notin ()", "!a", "a>1", "a<x", "(", ")", ",", ",,", "a==",
    "=", "!", "in", "a in", "a in (", "a in (,", "\0", "é=1", "a=" + "b" * 100, "a/b/c", "/a", "a/",
    "metadata.name=a", "metadata.name", "spec.name=ok", "spec.name!=", "a\\=b=c", "x\\,y=z", "\\",
    "shardRange(object.metadata.uid, '0x0000000000000000', '0x8000000000000000')", "shardRange(",
    "shardRange(object.metadata.uid,'','')", "||", "shardRange() || shardRange()", "'", '"',
)  # fmt: skip
VALUES = (
    *SELECTORS, "", "0", "1", "-1", "x", "true", "99999999999999999999", "1.5", "All", "Strict",
    "Ignore", "Exact", "NotOlderThan", "Foreground", "Orphan", "eyJ9", "e30", "eyJ2IjoxfQ", "²",
    "eyJydiI6MSwic3RhcnQiOiIvIn0", "eyJydiI6dHJ1ZSwic3RhcnQiOiJhL2IifQ", "+1", "1_0", " 1", "٣",
)  # fmt: skip
KEYS = (
    "labelSelector", "fieldSelector", "shardSelector", "limit", "continue", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "allowWatchBookmarks", "dryRun", "fieldManager",
    "fieldValidation", "propagationPolicy", "orphanDependents", "gracePeriodSeconds", "force",
    "includeObject", "pretty", "x",
)  # fmt: skip
TYPES = (
    "application/json", "application/json", "application/json", "application/yaml",
    "application/merge-patch+json", "application/json-patch+json",
    "application/strategic-merge-patch+json", "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf", "text/plain", "", ";", "application/json; charset=x",
    "a/b/c",
)  # fmt: skip
ACCEPTS = (
    "application/json", "*/*", "", "application/yaml", "text/html", ";;;", "application/json;as=",
    "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;q=x",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as=Table;v=v9;g=x", "application/vnd.kubernetes.protobuf",
)  # fmt: skip
METHODS = (
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "OPTIONS",
    "HEAD",
)
POINTERS = (
    "", "/", "/spec", "/spec/list/0", "/spec/list/-", "/spec/list/-1", "/spec/list/99999999999999",
    "/spec/list/01", "/spec/list/x", "/spec/free/a/0", "/metadata", "/metadata/name", "/status",
    "/a~2b", "/~", "x", "/spec/name/deeper", "/kind", "/spec/map/a~1b", "/metadata/labels/tier",
)  # fmt: skip
WORDS = (
    "self", "oldSelf", ".", "(", ")", "[", "]", "{", "}", "==", "&&", "||", "!", "?", ":", "1",
    "0", "-", "/", "%", "+", "'a'", '"', "has", "size", "all", "exists", "map", "matches", "in",
    "self.spec", "self.x", "duration('1h')", "1.5", "null", "true", ",", "x", "\\", "\0", "é",
    "string", "int('x')", "self.all(x, x", "optional", "99999999999999999999", "b'x'", "u", "'''",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def case(dice: Random) -> Case:
    """A request that is wrong somewhere, most likely."""
    make = dice.choice((_body, _body, _body, _patch, _patch, _read, _read, _path, _definition))
    return make(dice)


def _headers(dice: Random, content: str = "application/json") -> dict[str, str]:
    if dice.random() < 0.15:
        content = dice.choice(TYPES)
    accept = dice.choice(ACCEPTS) if dice.random() < 0.2 else "application/json"
    return {"Content-Type": content, "Accept": accept}


def _query(dice: Random, likely: float) -> str:
    if dice.random() > likely:
        return ""
    pairs = [(dice.choice(KEYS), dice.choice(VALUES)) for _ in range(dice.randint(1, 3))]
    text = urlencode(pairs)
    return text + dice.choice(("", "", "", "&", "&=", "&%", "&a=%ff", "&watch=0"))


def _nasty(dice: Random) -> Any:
    return copy.deepcopy(dice.choice(NASTY))


def mutated(dice: Random, wire: Any) -> Any:
    """A copy that differs in a few places."""
    found = json.loads(json.dumps(wire))
    for _ in range(dice.randint(1, 3)):
        found = _mutate(dice, found)
    return found


def _mutate(dice: Random, node: Any) -> Any:
    if isinstance(node, dict) and node and dice.random() < 0.85:
        key = dice.choice(sorted(node))
        action = dice.random()
        if action < 0.1:
            del node[key]
        elif action < 0.2:
            node[str(dice.choice(("x", "", "é", "a.b", "$", "-x", "a" * 200)))] = _nasty(dice)
        else:
            node[key] = _mutate(dice, node[key])
        return node
    if isinstance(node, list) and node and dice.random() < 0.7:
        at = dice.randrange(len(node))
        if dice.random() < 0.2:
            node.append(node[at])
        else:
            node[at] = _mutate(dice, node[at])
        return node
    return _nasty(dice)


def _dumped(dice: Random, wire: Any) -> bytes:
    raw = json.dumps(wire).encode()
    if dice.random() < 0.15 and raw:
        at = dice.randrange(len(raw))
        return raw[:at] + bytes([dice.randrange(256)]) + raw[at + dice.randint(0, 3) :]
    return raw


def _body(dice: Random) -> Case:
    raw = dice.choice(RAW) if dice.random() < 0.15 else _dumped(dice, mutated(dice, GOOD))
    tail = dice.choice(("", "", "/a", "/a", "/a/status", "/a/scale", "/b"))
    method = "POST" if not tail else dice.choice(("PUT", "PUT", "POST", "DELETE"))
    if tail == "/a/scale" and dice.random() < 0.8:
        scale = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "a"},
                 "spec": {"replicas": 2}}  # fmt: skip
        raw = _dumped(dice, mutated(dice, scale))
    return Case(method, BASE + tail, _query(dice, 0.2), raw, _headers(dice))


def _patch(dice: Random) -> Case:
    tail = dice.choice(("/a", "/a", "/a", "/a/status", "/a/scale", "", "/none"))
    if dice.random() < 0.5:
        operations = [_operation(dice) for _ in range(dice.randint(0, 3))]
        wire: Any = operations if dice.random() < 0.95 else _nasty(dice)
        content = "application/json-patch+json"
    else:
        whole = mutated(dice, GOOD)
        part = dice.choice(("spec", "metadata", "status"))
        wire = {part: whole.get(part)} if isinstance(whole, dict) else whole
        content = "application/merge-patch+json"
    raw = dice.choice(RAW) if dice.random() < 0.1 else _dumped(dice, wire)
    return Case("PATCH", BASE + tail, _query(dice, 0.2), raw, _headers(dice, content))


def _operation(dice: Random) -> Any:
    operation: dict[str, Any] = {
        "op": dice.choice(("add", "remove", "replace", "move", "copy", "test", "x", 1)),
        "path": dice.choice((*POINTERS, *POINTERS, None, 1)),
        "value": _nasty(dice),
        "from": dice.choice((*POINTERS, None, 1)),
    }
    if dice.random() < 0.3:
        del operation[dice.choice(sorted(operation))]
    return operation


def _read(dice: Random) -> Case:
    where = dice.choice(
        (BASE, BASE, BASE, f"{BASE}/a", "/api/v1/events", "/api/v1/namespaces", CRDS)
    )
    method = dice.choice(("GET", "GET", "GET", "DELETE"))
    if method == "DELETE" and where != f"{BASE}/a":
        where = BASE
    return Case(method, where, _query(dice, 0.95), b"", _headers(dice))


def _path(dice: Random) -> Case:
    parts = [dice.choice(PARTS) for _ in range(dice.randint(0, 8))]
    if dice.random() < 0.5:
        parts = ["apis", GROUP, "v1", "namespaces", "default", *parts[:4]]
    path = "/" + "/".join(quote(part, safe="%~") for part in parts)
    raw = dice.choice(RAW) if dice.random() < 0.5 else b""
    return Case(dice.choice(METHODS), path, _query(dice, 0.2), raw, _headers(dice))


def definition(rule: str = "true", schema: Any = None, name: str = "gadgets") -> dict[str, Any]:
    whole = schema if schema is not None else {
        "type": "object",
        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "x-kubernetes-validations": [{"rule": rule}],
    }  # fmt: skip
    version = {
        "name": "v1", "served": True, "storage": True,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "selectableFields": [{"jsonPath": ".spec.name"}] if schema is not None else [],
        "additionalPrinterColumns": [{"name": "N", "type": "string", "jsonPath": ".spec.name"}],
        "schema": {"openAPIV3Schema": whole},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}.{GROUP}"},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": name, "kind": name[:-1].title()}, "versions": [version],
        },
    }  # fmt: skip


def _definition(dice: Random) -> Case:
    if dice.random() < 0.6:
        rule = " ".join(dice.choice(WORDS) for _ in range(dice.randint(1, 8)))
        wire = definition(rule, name="others")
    else:
        wire = mutated(dice, definition(schema=SCHEMA, name="others"))
    return Case("POST", CRDS, "dryRun=All", _dumped(dice, wire), _headers(dice))
