"""The Kubernetes API, thinly: what controllers need of it, with time-outs and retries.

Configuration, credentials and TLS come from ``kubernetes.aio`` (kubeconfig, exec plugins, service
accounts); requests go straight to an aiohttp session. A status patch costs 1.1 CPU-ms so, 2.1
through its REST client and 2.5 through its generated calls (side by side on one busy machine).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from kubernetes.aio import config as kubeconfig
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from controller import metrics
from controller.errors import Conflict, Terminal, Transient

log = logging.getLogger(__name__)

TIMEOUT = 30.0
CONNECT_TIMEOUT = 5.0
CONNECTIONS = 64
WATCH_SECONDS = 240
ATTEMPTS = 4
LONGEST_PAUSE = 5.0
PAGE = 500
MERGE = "application/merge-patch+json"
JSON = "application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
TOO_LARGE = "Too large resource version"
_load_in_pod: Callable[..., None] = kubeconfig.load_incluster_config
_load_file: Callable[..., Awaitable[object]] = kubeconfig.load_kube_config
_RETRIED = frozenset({429, 500, 502, 503, 504})


class NoCluster(Exception):
    """No usable kubeconfig; the message says what was tried."""


class ApiUnavailable(Transient):
    """The API server cannot be reached or is overloaded."""

    default_reason = "ApiUnavailable"


class NotFound(Transient):
    default_reason = "NotFound"


class Exists(Transient):
    default_reason = "AlreadyExists"


class Expired(Transient):
    """410: the list or version is no longer there; start again."""

    default_reason = "Expired"


class Ahead(ApiUnavailable):
    """The server does not know a version that it is asked for: it lags, or has lost it."""


class Denied(Transient):
    """401 or 403: an administrator, a new token or an admission plugin may change that."""

    default_reason = "Forbidden"


class Rejected(Terminal):
    """The API server finds the request itself wrong."""

    default_reason = "Rejected"


@dataclass(frozen=True)
class Resource:
    """Where objects of a kind are: group ("" for core), version, plural, namespaced or not."""

    group: str
    version: str
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of an object, or of a collection when ``name`` is empty."""
        parts = ["api", self.version] if not self.group else ["apis", self.group, self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


class Api:
    """One pool of connections to one API server. close() it."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._session = self.new_session()
        self.reachable = False
        """Did the last request get any answer?"""

    @classmethod
    async def connect(cls, path: Path | None = None, context: str | None = None) -> Api:
        """From a kubeconfig (``path``, else $KUBECONFIG, else ~/.kube/config), or in a pod from
        its service account. Opens no connection yet. Raises NoCluster."""
        configuration = Configuration()
        try:
            if path is None and _in_pod():
                _load_in_pod(client_configuration=configuration)
            else:
                file = str(path) if path else os.environ.get("KUBECONFIG")
                await _load_file(
                    config_file=file,
                    context=context,
                    client_configuration=configuration,
                    persist_config=False,
                )
        except (kubeconfig.ConfigException, OSError) as error:
            where = path or os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise NoCluster(
                f"cannot use the kubeconfig {where}: {error}; give one with --kubeconfig"
            ) from None
        return cls(configuration)

    @property
    def server(self) -> str:
        return str(self._configuration.host)

    def new_session(self, headers: Mapping[str, str] | None = None) -> aiohttp.ClientSession:
        """A session with the cluster's TLS settings and a pool of its own; the caller closes it."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._rest.ssl_context),
            headers=headers,
            proxy=self._configuration.proxy,
            auto_decompress=True,
            read_bufsize=2**20,
        )

    async def authorization(self) -> dict[str, str]:
        """The header that authenticates by token; empty where a client certificate does."""
        value = await self._configuration.get_api_key_with_prefix(
            "BearerToken", alias="authorization"
        )
        return {"Authorization": value} if value else {}

    async def close(self) -> None:
        await self._session.close()
        await self._rest.close()

    # -- verbs

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        """Raises NotFound."""
        return await self._call("GET", resource, resource.path(namespace, name))

    async def pages(
        self, resource: Resource, *, metadata_only: bool = False, shards: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Pages of the list of all objects in all namespaces. ``shards``: a shardSelector, which a
        server that does not know it ignores. Raises Expired: start again."""
        query = {"limit": str(PAGE)} | ({"shardSelector": shards} if shards else {})
        while True:
            page = await self.page(resource, query, metadata_only=metadata_only)
            yield page
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    async def page(
        self, resource: Resource, query: Mapping[str, str], *, metadata_only: bool = False
    ) -> dict[str, Any]:
        """One page of the list of all objects, as ``query`` says. Raises Expired: start again."""
        accept = METADATA_LIST if metadata_only else JSON
        return await self._call("GET", resource, resource.path(), query=query, accept=accept)

    async def select(self, resource: Resource, namespace: str, labels: str) -> list[dict[str, Any]]:
        """What a label selector finds in one namespace, all at once: for small collections."""
        path = resource.path(namespace)
        query = {"labelSelector": labels}
        return list((await self._call("GET", resource, path, query=query)).get("items") or ())

    async def changes(
        self, resource: Resource, namespace: str, name: str
    ) -> AsyncGenerator[None, None]:
        """Ticks at each change of one object, and once at the start; ends when the server ends
        the watch, some minutes later. Raises ApiUnavailable, Denied, ..."""
        query = {"fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(WATCH_SECONDS)}
        silence = WATCH_SECONDS + TIMEOUT
        async with self.stream(resource, query, silence, namespace) as pieces:
            yield
            async for piece in pieces:
                if piece.endswith(b"\n"):
                    yield

    @contextlib.asynccontextmanager
    async def stream(
        self, resource: Resource, query: Mapping[str, str], silence: float, namespace: str = ""
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An open watch: its answer, piece by piece, cut anywhere. Tried once.

        Raises what a list does, also within the block: ApiUnavailable when the connection breaks
        or brings nothing for ``silence`` seconds.
        """
        path = resource.path(namespace)
        url = f"{self.server}{path}?{urlencode({**query, 'watch': 'true'})}"
        limits = aiohttp.ClientTimeout(
            total=None, connect=TIMEOUT, sock_connect=CONNECT_TIMEOUT, sock_read=silence
        )
        try:
            async with self._session.get(
                url,
                headers={"Accept": JSON, **await self.authorization()},
                timeout=limits,
                server_hostname=self._configuration.tls_server_name,
            ) as response:
                metrics.API_REQUESTS.labels("WATCH", resource.plural, str(response.status)).inc()
                self.reachable = True
                if response.status != 200:
                    error = _error(response.status, await response.read(), f"WATCH {path}")
                    error.retry_after = _retry_after(response) or None
                    raise error
                yield response.content.iter_any()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise ApiUnavailable(f"WATCH {path}: the connection broke ({why})") from None

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Raises Exists."""
        return await self._call("POST", resource, resource.path(namespace), body=body)

    async def replace(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """PUT; raises Conflict if the body's resourceVersion is not the newest."""
        return await self._call("PUT", resource, resource.path(namespace, name), body=body)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Mapping[str, Any],
        subresource: str = "",
    ) -> dict[str, Any]:
        """JSON merge patch. Raises Conflict if it has a resourceVersion that is not the newest."""
        path = resource.path(namespace, name, subresource)
        return await self._call("PATCH", resource, path, body=patch, content=MERGE)

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str
    ) -> dict[str, Any] | None:
        """Delete this very object. None: it is gone, or another has its name now."""
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            return await self._call("DELETE", resource, resource.path(namespace, name), body=body)
        except (NotFound, Conflict):
            return None

    async def served(self, group: str, version: str) -> set[str]:
        """Plurals that the server serves in a group and version; empty if it knows neither."""
        try:
            found = await self._call("GET", None, f"/apis/{group}/{version}")
        except NotFound:
            return set()
        return {item["name"] for item in found["resources"]}

    # -- inside

    async def _call(
        self,
        verb: str,
        resource: Resource | None,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        plural = resource.plural if resource else "discovery"
        headers = {"Accept": accept, "Content-Type": content, **await self.authorization()}
        data = orjson.dumps(body) if body is not None else None
        for attempt in range(1, ATTEMPTS + 1):
            status, answer, pause = await self._once(verb, plural, url, headers, data)
            if 0 < status < 300:
                return _parse(answer)
            if status not in {0, *_RETRIED} or attempt == ATTEMPTS:
                break
            await asyncio.sleep(_pause(attempt, pause))
        raise _error(status, answer, f"{verb} {path}")

    async def _once(
        self, verb: str, plural: str, url: str, headers: dict[str, str], data: bytes | None
    ) -> tuple[int, bytes, float]:
        """(status or 0 for no answer, body, seconds that the server asks to wait)."""
        began = time.perf_counter()
        try:
            async with self._session.request(
                verb,
                url,
                headers=headers,
                data=data,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=CONNECT_TIMEOUT),
                server_hostname=self._configuration.tls_server_name,
            ) as response:
                answer = await response.read()
                status, pause = response.status, _retry_after(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            status, answer, pause = 0, str(error or type(error).__name__).encode(), 0.0
        self.reachable = status != 0
        metrics.API_SECONDS.labels(verb).observe(time.perf_counter() - began)
        metrics.API_REQUESTS.labels(verb, plural, str(status or "none")).inc()
        return status, answer, pause


def _in_pod() -> bool:
    return "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ


def _pause(attempt: int, asked: float) -> float:
    """Seconds before the next attempt: doubling from 0.1, jittered, or what the server asks."""
    own = 0.1 * 2.0 ** (attempt - 1) * (0.5 + random.random())  # noqa: S311 - jitter
    return min(LONGEST_PAUSE, max(own, asked))


def _retry_after(response: aiohttp.ClientResponse) -> float:
    with contextlib.suppress(ValueError):
        return float(response.headers.get("Retry-After", 0))
    return 0.0


def _parse(answer: bytes) -> dict[str, Any]:
    found = orjson.loads(answer)
    if not isinstance(found, dict):
        raise ApiUnavailable("the API server answered with something that is no object")
    return found


def _error(status: int, answer: bytes, what: str) -> Transient | Terminal:
    """The error for an answer; the API's own message says best what is wrong."""
    reason, text = "", ""
    with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
        reported = orjson.loads(answer)
        reason, text = str(reported.get("reason", "")), str(reported.get("message", ""))
    text = text or answer[:200].decode(errors="replace")
    message = f"{what}: {text}" if status else f"{what}: no answer from the API server ({text})"
    if status == 409 and reason == "AlreadyExists":
        return Exists(message)
    if status == 504 and TOO_LARGE in text:
        return Ahead(message)
    kinds: dict[int, type[Transient | Terminal]] = {
        400: Rejected, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 410: Expired,
        413: Rejected, 415: Rejected, 422: Rejected,
    }  # fmt: skip
    return kinds.get(status, ApiUnavailable)(message)
