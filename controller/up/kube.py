"""A small synchronous client for commands: raw JSON in and out, errors in words.

Which cluster: ``--kubeconfig``, else $KUBECONFIG, else the embedded cloud of the data directory,
else ~/.kube/config. The kubernetes client brings authentication (tokens, exec plug-ins); its
models are not used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from controller.errors import KumulusError
from controller.up.layout import Layout
from crds.base import GROUP, VERSION, Resource

TIMEOUT_SECONDS = 10.0
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


class ApiError(KumulusError):
    """The API server refused, or (code 0) could not be reached."""

    default_reason = "ApiError"

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def find_kubeconfig(explicit: Path | None, data_dir: Path) -> Path:
    """The kubeconfig to use. Raises KumulusError if there is none."""
    if explicit is not None:
        candidates = [explicit]
    elif os.environ.get("KUBECONFIG"):
        candidates = [Path(p) for p in os.environ["KUBECONFIG"].split(os.pathsep) if p]
    else:
        candidates = [Layout(data_dir).kubeconfig, Path.home() / ".kube" / "config"]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    tried = " or ".join(str(candidate) for candidate in candidates)
    raise KumulusError(
        f"no kubeconfig at {tried}; start a cloud with `kumulus up`, or name a cluster "
        "with --kubeconfig or $KUBECONFIG"
    )


class Kube:
    """One cluster. Every method raises ApiError."""

    def __init__(self, kubeconfig: Path, seconds: float = TIMEOUT_SECONDS) -> None:
        self._seconds = seconds
        try:
            self._api: Any = _client(kubeconfig)
        except config.ConfigException as error:
            raise KumulusError(f"{kubeconfig} is no usable kubeconfig: {error}") from None
        self.server: str = self._api.configuration.host

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, query=query)

    def list(
        self, model: type[Resource], namespace: str | None = None, labels: str | None = None
    ) -> list[dict[str, Any]]:
        """All objects of a kind, in one namespace or everywhere, that a label selector selects."""
        query = {"labelSelector": labels} if labels else {}
        return list(self.get(collection(model, namespace), **query)["items"])

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON (or its text if it is none)."""
        target = f"{path}?{urlencode(query)}" if query else path
        serialized = self._api.param_serialize(
            method, target, body=body, auth_settings=["BearerToken"],
            header_params={"Accept": JSON, "Content-Type": content_type},
        )  # fmt: skip
        try:
            response = self._api.call_api(*serialized[:4], _request_timeout=self._seconds)
            data = response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(f"cannot reach {self.server}: {_cause(error)}", 0) from None
        except ApiException as error:
            raise ApiError(_words(error.body, error.status), int(error.status or 0)) from None
        if response.status >= 400:
            raise ApiError(_words(data, response.status), response.status)
        return _decoded(data)


def _client(kubeconfig: Path) -> Any:
    configuration: Any = client.Configuration()
    configuration.retries = False  # a command says at once that nothing answers
    load: Any = config.load_kube_config
    load(str(kubeconfig), client_configuration=configuration, persist_config=False)
    return client.ApiClient(configuration)


def collection(model: type[Resource], namespace: str | None = None) -> str:
    """The URL path of a kind's objects."""
    place = f"/namespaces/{quote(namespace)}" if namespace and model.INFO.namespaced else ""
    return f"/apis/{GROUP}/{VERSION}{place}/{model.INFO.plural}"


def listing(
    kube: Kube, models: Iterable[type[Resource]], labels: str | None = None
) -> list[dict[str, Any]]:
    """Objects of several kinds; a kind whose CRD is not there has none."""
    found = []
    for model in models:
        try:
            objects = kube.list(model, labels=labels)
        except ApiError as error:
            if error.code != 404:
                raise
            continue
        # Items of a list may come without their kind.
        found += [{**item, "kind": model.__name__} for item in objects]
    return found


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


def _words(body: bytes | str | None, status: int | None) -> str:
    """What a metav1.Status says, or the first line of anything else."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        message = json.loads(text).get("message")
    except (ValueError, AttributeError):
        message = next(iter(text.splitlines()), "")
    return str(message) if message else f"the API server answered {status}"


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    text = str(reason)
    return "connection refused; is it running?" if "Connection refused" in text else text
