"""The server's face: requests in, answers out."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import orjson
from aiohttp import web
from aiohttp.web import BaseRequest
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from common.web import handler
from controller.apiserver import auth, discovery, errors, metrics, negotiate, openapi_v2, sending
from controller.apiserver.access import audit
from controller.apiserver.access.audit import Audit, Exchange
from controller.apiserver.access.impersonation import impersonated
from controller.apiserver.access.reviews import Reviews
from controller.apiserver.admission import User
from controller.apiserver.catalog import Catalog, Resource
from controller.apiserver.deadlines import deadline
from controller.apiserver.errors import ApiError
from controller.apiserver.openapi import OpenApi
from controller.apiserver.paths import ResourcePath, parse_resource_path
from controller.apiserver.selectors import parse_fields
from controller.apiserver.verbs import Answer, Call, Verbs

_log = logging.getLogger(__name__)
_CLIENT_GONE = 499
"""In the audit log alone: the client did not wait for the answer. A watch always ends so."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True)
class Gate:
    """Who gets in and what is taken."""

    tokens: auth.Tokens | None
    authorizer: auth.Authorizer
    body_limit: int
    reviews: Reviews
    audit: Audit | None = None


class HttpApi:
    """Handles every request; no exception leaves it."""

    def __init__(
        self, catalog: Catalog, verbs: Verbs, gate: Gate, ready: Callable[[], bool | str]
    ) -> None:
        self._catalog = catalog
        self._verbs = verbs
        self._gate = gate
        self._ready = ready
        self._openapi = OpenApi(catalog)
        self._plain: dict[str, Callable[[BaseRequest], web.Response]] = {
            "/version": lambda _: _json(discovery.version()),
            "/metrics": lambda _: web.Response(
                body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST}
            ),
            "/healthz": self._probe,
            "/livez": self._probe,
            "/readyz": self._probe,
            "/api": self._core,
            "/apis": self._groups,
            "/openapi/v2": self._openapi_v2,
            "/openapi/v3": lambda _: _raw(self._openapi.index()),
            "/": self._root,
        }

    def application(self) -> web.Server:
        return handler(self.handle, self._gate.body_limit)

    async def handle(self, request: BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        verb, resource = request.method, ""
        seen = Exchange(dt.datetime.now(dt.UTC)) if self._gate.audit is not None else None
        target: ResourcePath | None = None
        try:
            user = auth.authenticate(request, self._gate.tokens)
            if seen is not None:
                seen.by = user
            path = request.path
            target = parse_resource_path(request.rel_url.raw_path)
            if target is not None:
                target = _decoded(target)
                verb, resource = _verb(request, target), _label(target)
            user = impersonated(user, request.headers, self._gate.authorizer)
            if seen is not None:
                seen.acting = user
            self._authorize(request, user, verb, path, target)
            async with deadline(request.query) if verb != "watch" else contextlib.nullcontext():
                response = await self._answer(request, user, path, target, verb)
        except ApiError as error:
            response = _status(error)
        except web.HTTPRequestEntityTooLarge:
            response = _status(errors.too_large_body(self._gate.body_limit))
        except (asyncio.CancelledError, ConnectionResetError):
            if seen is not None:
                seen.verb, seen.target = verb, target
                seen.code = 200 if verb == "watch" else _CLIENT_GONE
                await self._audit(request, seen)
            raise
        except Exception:
            _log.exception("a request failed", extra={"verb": verb, "path": request.path})
            response = _status(errors.internal("the server's log has the reason"))
        if (deprecation := request.get("deprecation")) and not response.prepared:
            response.headers.add("Warning", _warning(deprecation))
        metrics.requests(verb, resource, response.status).inc()
        if verb != "watch":
            metrics.duration(verb, resource).observe(time.perf_counter() - started)
        if seen is not None:
            seen.verb, seen.target, seen.code = verb, target, response.status
            await self._audit(request, seen)
        return response

    async def _audit(self, request: BaseRequest, seen: Exchange) -> None:
        log = self._gate.audit
        if log is None:
            return
        body = b""
        if seen.code < 400 and request.method in _WITH_BODY and log.wants_body(seen.target):
            body = await request.read()  # kept from when it was first read
        seen.target = seen.target and _meant(request, seen.target)
        await log.record(audit.event(request, seen, level=log.level, body=body))

    def _authorize(
        self,
        request: BaseRequest,
        user: User,
        verb: str,
        path: str,
        target: ResourcePath | None,
    ) -> None:
        if path in auth.PUBLIC_PATHS or auth.MASTERS in user.groups:
            return
        if user is auth.ANONYMOUS:
            raise errors.unauthorized()
        auth.authorize(self._gate.authorizer, _attempt(request, user, verb, path, target))

    async def _answer(
        self,
        request: BaseRequest,
        user: User,
        path: str,
        target: ResourcePath | None,
        verb: str,
    ) -> web.StreamResponse:
        if target is None:
            return self._answer_plain(request, path.rstrip("/") or "/")
        resource = self._catalog.get(target.group, target.version, target.plural)
        if resource is None or (target.namespace and not resource.namespaced):
            return _nowhere()
        if resource.deprecation:
            request["deprecation"] = resource.deprecation
        if target.subresource and target.subresource not in resource.subresources:
            raise errors.not_found(target.group, target.plural, target.name)
        call = Call(
            resource,
            target.namespace,
            target.name,
            target.subresource,
            request.query,
            user,
            negotiate.accepted(request.headers.get("Accept", "")),
            request.headers.get("User-Agent", ""),
        )
        form = self._gate.reviews.form(resource, target.subresource)
        if form is not None:
            return await self._respond(request, await self._review(request, call, form, verb))
        if verb == "watch":
            return await self._watch(request, call)
        return await self._respond(request, await self._run(request, call, verb))

    async def _review(self, request: BaseRequest, call: Call, form: Resource, verb: str) -> Answer:
        if verb != "create":
            raise errors.method_not_allowed()
        media = negotiate.media_type(request.headers.get("Content-Type", ""))
        body = await request.read()
        return await self._verbs.review(call, body, media, form, self._gate.reviews)

    async def _run(self, request: BaseRequest, call: Call, verb: str) -> Answer:
        verbs = self._verbs
        if verb in ("get", "list"):
            return await (verbs.get(call) if verb == "get" else verbs.list(call))
        if verb == "deletecollection" and call.resource.namespaced and not call.namespace:
            # Those of all namespaces are not deleted at once.
            raise errors.method_not_allowed()
        body = await request.read()
        media = negotiate.media_type(request.headers.get("Content-Type", ""))
        written: dict[str, Callable[[Call, bytes, str], Awaitable[Answer]]] = {
            "create": verbs.create,
            "update": verbs.update,
            "patch": verbs.patch,
            "delete": verbs.delete,
            "deletecollection": verbs.delete_collection,
        }
        found = written.get(verb)
        if found is None:
            raise errors.method_not_allowed()
        return await found(call, body, media)

    async def _respond(self, request: BaseRequest, answer: Answer) -> web.StreamResponse:
        response = await sending.response(request, answer)
        _warn(response, answer.warnings)
        return response

    async def _watch(self, request: BaseRequest, call: Call) -> web.StreamResponse:
        watch = self._verbs.watch(call)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        if call.resource.deprecation:
            response.headers.add("Warning", _warning(call.resource.deprecation))
        label = call.resource.storage
        metrics.WATCHERS.labels(label).inc()
        lines = watch.lines()
        try:
            writer = await response.prepare(request)
            assert writer is not None
            outlet = sending.Outlet(request, writer)
            watch.outlet = outlet.send
            async for chunk in lines:
                if not chunk or not outlet.send(chunk):
                    await outlet.caught_up()
            await response.write_eof()
        except (TimeoutError, ConnectionError):
            # The client does not read: end the connection, its queue is bounded already.
            if request.transport is not None:
                request.transport.abort()
        finally:
            await lines.aclose()
            metrics.WATCHERS.labels(label).dec()
        return response

    # What is no resource

    def _answer_plain(self, request: BaseRequest, path: str) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        found = self._plain.get(path)
        if found is not None:
            return found(request)
        return self._discover(path) or _nowhere()

    def _discover(self, path: str) -> web.Response | None:
        parts = path.strip("/").split("/")
        if parts[:2] == ["openapi", "v3"]:
            return self._openapi_v3(parts[2:])
        if parts == ["api", "v1"]:
            return _found(discovery.resource_list(self._catalog, "", "v1"))
        if parts[0] == "apis" and len(parts) == 2:
            return _found(discovery.group(self._catalog, parts[1]))
        if parts[0] == "apis" and len(parts) == 3:
            return _found(discovery.resource_list(self._catalog, parts[1], parts[2]))
        return None

    def _openapi_v3(self, parts: Sequence[str]) -> web.Response | None:
        if len(parts) == 2 and parts[0] == "api":
            document = self._openapi.document("", parts[1])
        elif len(parts) == 3 and parts[0] == "apis":
            document = self._openapi.document(parts[1], parts[2])
        else:
            return None
        return _raw(document) if document is not None else None

    def _openapi_v2(self, request: BaseRequest) -> web.Response:
        if openapi_v2.wanted(request.headers.get("Accept", "")):
            body = openapi_v2.encode(self._openapi.v2())
            return web.Response(body=body, headers={"Content-Type": openapi_v2.MEDIA_TYPE})
        return _raw(self._openapi.v2_json())

    def _probe(self, request: BaseRequest) -> web.Response:
        state = self._ready() if request.path != "/livez" else True
        if state is True:
            verbose = "verbose" in request.query
            text = f"[+]store ok\n{request.path[1:]} check passed\n" if verbose else "ok"
            return web.Response(text=text)
        return web.Response(status=503, text=state or "not ready")

    def _core(self, request: BaseRequest) -> web.Response:
        if negotiate.wants_aggregated(request.headers.get("Accept", "")):
            found = discovery.aggregated(self._catalog, core=True)
            return _json(found, content_type=discovery.AGGREGATED)
        return _json(discovery.api_versions(request.host))

    def _groups(self, request: BaseRequest) -> web.Response:
        if negotiate.wants_aggregated(request.headers.get("Accept", "")):
            found = discovery.aggregated(self._catalog, core=False)
            return _json(found, content_type=discovery.AGGREGATED)
        return _json(discovery.group_list(self._catalog))

    def _root(self, _: BaseRequest) -> web.Response:
        groups = self._catalog.groups()
        served = [
            f"/apis/{group}/{version}" if group else f"/api/{version}"
            for group, versions in groups.items()
            for version in versions
        ]
        return _json({"paths": sorted([*self._plain, *served])})


def _attempt(
    request: BaseRequest, user: User, verb: str, path: str, target: ResourcePath | None
) -> auth.Attempt:
    """As Kubernetes takes a request apart for its authorizers."""
    if target is None:
        return auth.Attempt(user, verb.lower(), path)
    namespace = target.namespace
    if not target.group and target.plural == "namespaces":
        namespace = target.name
    name = _meant(request, target).name
    return auth.Attempt(
        user, verb, path, target.group, target.plural, target.subresource, namespace, name
    )


def _meant(request: BaseRequest, target: ResourcePath) -> ResourcePath:
    """With the name that a field selector asks for, if the path has none."""
    if target.name or "fieldSelector" not in request.query:
        return target
    return replace(target, name=_selected_name(request.query["fieldSelector"]))


def _selected_name(selector: str) -> str:
    """The one name that a list or watch is about, if it is about one."""
    try:
        return parse_fields(selector, ("metadata.name",)).exact("metadata.name") or ""
    except ApiError:
        return ""


def _warn(response: web.StreamResponse, warnings: Sequence[str]) -> None:
    for warning in warnings:
        response.headers.add("Warning", _warning(warning))


def _verb(request: BaseRequest, target: ResourcePath) -> str:
    method = request.method
    if method in ("GET", "HEAD"):
        watch = request.query.get("watch")
        if watch in ("1", "true", "True", "t", "T", ""):
            return "watch" if not target.name else "get"
        return "get" if target.name else "list"
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())


def _decoded(target: ResourcePath) -> ResourcePath:
    return ResourcePath(
        target.group, target.version, target.plural,
        unquote(target.namespace), unquote(target.name), target.subresource,
    )  # fmt: skip


def _label(target: ResourcePath) -> str:
    name = errors.qualified(target.group, target.plural)
    return f"{name}/{target.subresource}" if target.subresource else name


def _warning(text: str) -> str:
    """The value of a Warning header (RFC 7234). Headers cannot hold control characters."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def _raw(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": "application/json"})


def _json(
    wire: Mapping[str, Any], *, status: int = 200, content_type: str = "application/json"
) -> web.Response:
    return web.Response(
        body=orjson.dumps(wire), status=status, headers={"Content-Type": content_type}
    )


def _found(wire: Mapping[str, Any] | None) -> web.Response | None:
    return _json(wire) if wire is not None else None


def _status(error: ApiError) -> web.Response:
    response = _json(error.status(), status=error.code)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    _warn(response, error.warnings)
    if retry := error.details.get("retryAfterSeconds"):
        response.headers["Retry-After"] = str(retry)
    return response


def _nowhere() -> web.Response:
    return web.Response(status=404, text="404 page not found\n")
