"""A server under comparison: sends steps, follows watches, tells what must agree."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.conformance.client import Cluster, Reply
from tests.integration.apiserver.differential.requests import Step

PATH = "/apis/conformance.kumulus.dev/v1/namespaces/{namespace}/widgets"
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIMES = ("creationTimestamp", "deletionTimestamp")
_NO_TEXT = frozenset({400, 415, 422})
"""Codes whose message is not compared: the wording of decoders, the order of causes."""


class Side:
    """One connection, kept open, in one namespace at a time."""

    def __init__(self, kubeconfig: Path) -> None:
        self.cluster = Cluster(kubeconfig)
        self._connection: http.client.HTTPSConnection | None = None
        self._namespace = ""
        self._versions: dict[str, list[str]] = {}

    def enter(self, namespace: str) -> None:
        """Begin anew in a new namespace."""
        self._namespace, self._versions = namespace, {}
        self.cluster.post("/api/v1/namespaces", {"metadata": {"name": namespace}}).ok()

    def leave(self) -> None:
        self.cluster.delete(f"/api/v1/namespaces/{self._namespace}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def path(self) -> str:
        return PATH.format(namespace=self._namespace)

    def send(self, step: Step) -> Reply:
        return self._request(step, self._body(step), step.query)

    def pages(self, step: Step) -> list[Reply]:
        """Every page of a list, following ``continue``."""
        found = [self.send(step)]
        while found[-1].code == 200:
            token = found[-1].json["metadata"].get("continue")
            if not token or len(found) > 10:
                break
            query = {**step.query, "continue": token}
            query.pop("resourceVersionMatch", None)
            found.append(self._request(step, None, query))
        return found

    def _body(self, step: Step) -> Any:
        body = step.body
        if step.version == "none" or not isinstance(body, dict):
            return body
        metadata = body.get("metadata")
        if not isinstance(metadata, dict):
            return body
        known = self._versions.get(step.name) or ["1"]
        version = {"current": known[-1], "stale": "1", "nonsense": "abc"}[step.version]
        return {**body, "metadata": {**metadata, "resourceVersion": version}}

    def _request(self, step: Step, body: Any, query: dict[str, str]) -> Reply:
        parts = [self.path, *(part for part in (step.name, step.subresource) if part)]
        target = "/".join(parts) + (f"?{urlencode(query)}" if query else "")
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Accept": step.accept, "Content-Type": step.content}
        connection = self._connect()
        connection.request(step.method, target, raw, headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        reply = Reply(answer.status, text, answer.headers.get_all("Warning") or [])
        self._learn(reply)
        return reply

    def _connect(self) -> http.client.HTTPSConnection:
        if self._connection is None:
            self._connection = self.cluster.connection()
        return self._connection

    def _learn(self, reply: Reply) -> None:
        if reply.code not in (200, 201) or not reply.text.startswith("{"):
            return
        metadata = reply.json.get("metadata") or {}
        if "uid" in metadata and "resourceVersion" in metadata:
            known = self._versions.setdefault(metadata["name"], [])
            known.append(metadata["resourceVersion"])

    def version(self) -> str:
        found: str = self.cluster.get(self.path).ok()["metadata"]["resourceVersion"]
        return found

    def watch(self, since: str, last: str, **query: str) -> list[Any]:
        """Events since a version, up to the creation of the object called ``last``."""
        connection = self.cluster.connection()
        asked = {"watch": "1", "resourceVersion": since, "timeoutSeconds": "20", **query}
        try:
            connection.request("GET", f"{self.path}?{urlencode(asked)}")
            answer = connection.getresponse()
            found: list[Any] = []
            seen: dict[str, Any] = {}
            while line := answer.readline():
                event = json.loads(line)
                if event["type"] == "BOOKMARK":
                    continue
                name = event["object"]["metadata"]["name"]
                if name == last:
                    return found
                item = (event["type"], normal(event["object"]))
                if item != ("MODIFIED", seen.get(name)):  # of the managed fields alone
                    found.append(item)
                seen[name] = item[1]
            raise AssertionError("the watch ended before its last object")
        finally:
            connection.close()


def outcome(reply: Reply) -> Any:
    """What of a reply must be the same everywhere."""
    try:
        body = reply.json
    except ValueError:
        return reply.code, reply.text
    warnings = sorted(reply.warnings)
    if body.get("kind") != "Status" or body.get("status") != "Failure":
        return reply.code, normal(body), warnings
    details = dict(body.get("details") or {})
    causes = details.pop("causes", [])
    shown = {
        "reason": body.get("reason"),
        "details": details,
        "causes": sorted({_cause(cause) for cause in causes}),
    }
    if reply.code not in _NO_TEXT:
        shown["message"] = _text(body.get("message", ""))
    return reply.code, shown, warnings


def _cause(cause: dict[str, Any]) -> str:
    if cause.get("field") == "patch":  # begins with the whole object, its uid and times included
        cause = {**cause, "message": cause["message"].rpartition('}": ')[2]}
    return _text(json.dumps(cause, sort_keys=True))


def _managers(entries: Any) -> Any:
    """Who manages which field, in no order: it depends on the times."""
    if not isinstance(entries, list):
        return entries
    timeless = [{k: v for k, v in entry.items() if k != "time"} for entry in entries]
    return sorted(timeless, key=lambda entry: json.dumps(entry, sort_keys=True))


def normal(wire: Any) -> Any:
    """Without what no two servers agree on: uids, times, versions."""
    if isinstance(wire, list):
        return [normal(item) for item in wire]
    if not isinstance(wire, dict):
        return _text(wire) if isinstance(wire, str) else wire
    found = {key: normal(value) for key, value in wire.items()}
    if found.get("kind") == "Table":
        _forget_ages(found)
    if found.get("kind") == "PartialObjectMetadataList":
        found["items"] = found["items"] or []  # upstream: null
    metadata = found.get("metadata")
    if isinstance(metadata, dict):
        metadata = dict(metadata)
        if entries := metadata.get("managedFields"):
            metadata["managedFields"] = _managers(entries)
        for key in (*_TIMES, "resourceVersion", "uid", "continue"):
            if metadata.get(key):
                metadata[key] = "set"
            else:
                metadata.pop(key, None)
        found["metadata"] = metadata
    return found


def _forget_ages(table: dict[str, Any]) -> None:
    """And the words that describe the column of names."""
    columns = table["columnDefinitions"]
    columns[0].pop("description")
    ages = [at for at, column in enumerate(columns) if column["type"] == "date"]
    for row in table["rows"] or []:
        for at in ages:
            row["cells"][at] = "age"


def _text(text: str) -> str:
    if "errors:\n" in text:  # Go goes through maps at random
        text = "\n".join(sorted(text.splitlines()))
    if "field not declared in schema" in text:  # and stops there
        return "field not declared in schema"
    text = re.sub(r"StorageError: .* AdditionalErrorMsg: ", "", text)
    text = re.sub(r"in record \(\d+\)", "in record (N)", text)
    text = re.sub(r"(?<!\.)\bstatus(?:\.(\w+)|)( in body)", r"\1\2", text)
    return _UID.sub("UID", text).replace("conformance.kumulus.dev", "GROUP")
