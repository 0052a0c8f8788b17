"""Calls to webhooks: AdmissionReview v1 over TLS, bounded in time and size."""

from __future__ import annotations

import asyncio
import base64
import functools
import ssl
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from controller.apiserver import errors
from controller.apiserver.webhooks.hooks import Hook

Wire = dict[str, Any]
_MAX_ANSWER = 3 * 2**20
_CONNECTIONS = 64


class CallFailed(Exception):
    """No usable answer; the text says why."""


@dataclass(frozen=True)
class Verdict:
    """What a webhook says. ``status``: its reasons for a refusal."""

    allowed: bool
    status: Wire
    patch: list[Any] | None = None
    warnings: list[str] = field(default_factory=list)


class HookClient:
    """Owns the connections. ``close`` it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, hook: Hook, request: Wire) -> Verdict:
        """Raises CallFailed."""
        url = f"{hook.url}?timeout={hook.seconds:g}s"
        review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                  "request": request}  # fmt: skip
        try:
            async with asyncio.timeout(hook.seconds):
                raw = await self._post(hook, url, orjson.dumps(review))
        except TimeoutError:
            why = f"Post {errors.render(url)}: context deadline exceeded"
            raise CallFailed(f"failed to call webhook: {why}") from None
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
            why = f"Post {errors.render(url)}: {error}"
            raise CallFailed(f"failed to call webhook: {why}") from None
        return read_verdict(raw, request["uid"])

    async def _post(self, hook: Hook, url: str, body: bytes) -> bytes:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector)
        async with self._session.post(
            url, data=body, ssl=_context(hook.ca), allow_redirects=False,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        ) as response:  # fmt: skip
            if response.status != 200:
                raise CallFailed(f"failed to call webhook: it answered {response.status}")
            return await _bounded(response)


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for chunk in response.content.iter_any():
        found += chunk
        if len(found) > _MAX_ANSWER:
            raise CallFailed(f"failed to call webhook: its answer exceeds {_MAX_ANSWER} bytes")
    return bytes(found)


@functools.lru_cache(maxsize=64)
def _context(ca: bytes) -> ssl.SSLContext:
    """Raises ValueError or SSLError if ``ca`` holds no certificates."""
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def read_verdict(raw: bytes, uid: str) -> Verdict:
    """An AdmissionReview's response. Raises CallFailed if it is none, or another's."""
    try:
        review = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise CallFailed(f"failed to call webhook: its answer is no JSON: {error}") from None
    if not isinstance(review, dict) or not isinstance(review.get("response"), dict):
        raise CallFailed("webhook response is no AdmissionReview with a response")
    response = review["response"]
    kind = (review.get("apiVersion"), review.get("kind"))
    if kind != ("admission.k8s.io/v1", "AdmissionReview"):
        raise CallFailed(
            "received invalid webhook response: expected webhook response of "
            f"admission.k8s.io/v1, Kind=AdmissionReview, got {kind[0]}, Kind={kind[1]}"
        )
    if response.get("uid") != uid:
        raise CallFailed(
            f"received invalid webhook response: expected response.uid={errors.render(uid)}, got "
            f"{errors.render(response.get('uid', ''))}"
        )
    status, warnings = response.get("status"), response.get("warnings")
    return Verdict(
        response.get("allowed") is True,
        status if isinstance(status, dict) else {},
        _patch(response),
        [text for text in warnings if isinstance(text, str)] if isinstance(warnings, list) else [],
    )


def _patch(response: Wire) -> list[Any] | None:
    given, type_ = response.get("patch"), response.get("patchType")
    if not given:
        return None
    if type_ != "JSONPatch":
        raise CallFailed(
            f"received invalid webhook response: invalid response.patchType "
            f"{errors.render(type_)}, want JSONPatch"
        )
    try:
        raw = _base64(given)
        found = orjson.loads(raw)
    except ValueError as error:
        raise CallFailed(f"received invalid webhook response: its patch: {error}") from None
    if not isinstance(found, list):
        raise CallFailed("received invalid webhook response: its patch is no list")
    return found


def _base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("it is no base64")  # noqa: TRY004 one type of error for the caller
    return base64.b64decode(text)
