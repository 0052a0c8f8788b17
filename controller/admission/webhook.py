"""The judge behind a validating webhook, for clusters that are not the embedded one.

``POST /admission`` takes an AdmissionReview (``admission.k8s.io/v1``) and answers what the embedded
server would have answered. API servers call webhooks without a client certificate, so anybody who
reaches the port may ask: a review is bounded, only reads, and tells no more than names of objects.

What cannot be judged is allowed, with a warning: the reconciler looks at every object itself. The
store is behind the API server by what the watch takes, so a refusal is checked again with the
kinds that it rests on brought up to date.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import orjson
from aiohttp import web
from prometheus_client import Counter
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from common.logs import bind
from controller.admission.local import LocalLookup, NotSynced
from controller.apiserver.admission import (
    Admission,
    Operation,
    Request,
    User,
    Violation,
    refusal,
)
from controller.errors import KumulusError

log = logging.getLogger(__name__)

PATH = "/admission"
MAX_BODY = 4 * 2**20
"""Two objects of the 1.5 MiB that etcd takes, and the rest of a review."""
MAX_OPEN = 64
BODY_SECONDS, JUDGE_SECONDS, CONFIRM_SECONDS = 4.0, 4.0, 2.0
"""The API server waits five seconds for all of it."""

LOADING = "kumulus: the controller is still loading; other objects were not compared"
LATE = "kumulus: not judged in time; look at the object's conditions"
FAILED = "kumulus: not judged, the controller's log says why; look at the object's conditions"

REVIEWS = Counter("kumulus_admission_reviews", "Reviews for API servers.", ["outcome"])
"""Outcomes: allowed, refused, unjudged (and allowed), malformed, busy."""


def _named(obj: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(obj.get("metadata"), dict):
        raise ValueError("has no metadata")  # noqa: TRY004 - pydantic's way
    return obj


_Object = Annotated[dict[str, Any], AfterValidator(_named)]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class _Kind(_Part):
    group: str = ""
    version: str
    kind: str


class _Resource(_Part):
    resource: str


class _User(_Part):
    username: str = ""
    groups: list[str] = []


class _Call(_Part):
    uid: str
    kind: _Kind
    resource: _Resource
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    operation: Operation
    user_info: _User = _User()
    object: _Object | None = None
    old_object: _Object | None = None
    dry_run: bool = False


class Review(_Part):
    """The part of an AdmissionReview that is looked at. What else there is may change."""

    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: _Call


@dataclass
class Reviewer:
    """Answers reviews. ``lookup`` makes one for each; ``refresh`` brings a kind of the store up to
    date with the API server (it may raise KumulusError), for everyone who waits for it."""

    judge: Admission
    lookup: Callable[[], LocalLookup]
    refresh: Callable[[str], Awaitable[object]]
    _locks: defaultdict[str, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock), init=False
    )
    _began: dict[str, float] = field(default_factory=dict, init=False)

    async def answer(self, review: Review) -> dict[str, Any]:
        """The ``response`` of the AdmissionReview."""
        lookup = self.lookup()
        request = to_request(review, lookup)
        with bind(kind=request.kind, namespace=request.namespace, name=request.name):
            violations, warning = await self._opinion(request, lookup)
        outcome = "unjudged" if warning else "refused" if violations else "allowed"
        REVIEWS.labels(outcome).inc()
        found: dict[str, Any] = {"uid": review.request.uid, "allowed": not violations}
        if violations:
            found["status"] = refusal(request, violations).status()
        if warning:
            found["warnings"] = [warning]
        return found

    async def _opinion(
        self, request: Request, lookup: LocalLookup
    ) -> tuple[Sequence[Violation], str]:
        """(violations, ""), or ([], why it was not judged)."""
        try:
            async with asyncio.timeout(JUDGE_SECONDS):
                violations = await self.judge(request)
                if violations and await self._refreshed(lookup.asked):
                    violations = await self.judge(request)
                return violations, ""
        except NotSynced:
            return [], LOADING
        except TimeoutError:
            log.warning("not judged in time")
            return [], LATE
        except Exception:
            log.exception("not judged")
            return [], FAILED

    async def _refreshed(self, kinds: set[str]) -> bool:
        """Are the kinds as new as this call now? False: nothing to do, or it cannot be done."""
        since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                for kind in sorted(kinds):
                    await self._refresh(kind, since)
        except (KumulusError, TimeoutError) as error:
            log.info("a refusal was not checked again", extra={"why": str(error) or "too slow"})
            return False
        return bool(kinds)

    async def _refresh(self, kind: str, since: float) -> None:
        """One at a time, and one for all who came before it began: whoever asks us a lot does not
        make us ask the API server a lot."""
        async with self._locks[kind]:
            if self._began.get(kind, float("-inf")) < since:
                began = asyncio.get_running_loop().time()
                await self.refresh(kind)
                self._began[kind] = began


def to_request(review: Review, lookup: LocalLookup) -> Request:
    """What the judge is asked. A name that the server has generated is in the object alone."""
    call = review.request
    metadata = (call.object or call.old_object or {}).get("metadata", {})
    return Request(
        operation=call.operation,
        group=call.kind.group,
        version=call.kind.version,
        kind=call.kind.kind,
        resource=call.resource.resource,
        namespace=call.namespace,
        name=call.name or str(metadata.get("name", "")),
        object=call.object,
        old_object=call.old_object,
        user=User(call.user_info.username, frozenset(call.user_info.groups)),
        lookup=lookup,
        subresource=call.sub_resource,
        dry_run=call.dry_run,
    )


def admission_routes(reviewer: Reviewer) -> list[web.RouteDef]:
    """The route for the controller's HTTPS server. At most MAX_OPEN reviews are open at a time."""
    places = [MAX_OPEN]

    async def handle(request: web.Request) -> web.Response:
        if not places[0]:
            REVIEWS.labels("busy").inc()
            raise web.HTTPServiceUnavailable(text="too many reviews at a time")
        places[0] -= 1
        try:
            response = await reviewer.answer(await _review(request))
        finally:
            places[0] += 1
        body = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        }
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    return [web.post(PATH, handle)]


async def _review(request: web.Request) -> Review:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(request)
        return Review.model_validate_json(body)
    except TimeoutError:
        REVIEWS.labels("malformed").inc()
        raise web.HTTPRequestTimeout(text="the body did not come in time") from None
    except ValidationError as error:
        REVIEWS.labels("malformed").inc()
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        where = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems[:8])
        raise web.HTTPBadRequest(text=f"this is no AdmissionReview of v1: {where}") from None


async def _body(request: web.Request) -> bytes:
    """At most MAX_BODY bytes. The server's own limit is a smaller one, for callbacks."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            REVIEWS.labels("malformed").inc()
            raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY, actual_size=len(body))
    return bytes(body)
