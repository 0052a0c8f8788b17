"""Who asks, and whether they may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from common import pki
from controller.apiserver import errors
from controller.apiserver.admission import User

MASTERS = "system:masters"
CONTROLLERS = "kumulus:controllers"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = User("system:anonymous", frozenset({UNAUTHENTICATED}))
PUBLIC_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
"""Open to all."""

Tokens = Callable[[str], User | None]
"""Who a bearer token stands for; None if it is not known."""


@dataclass(frozen=True)
class Attempt:
    """What somebody wants to do. ``resource`` is empty for paths that are no resource."""

    user: User
    verb: str
    path: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True)
class Decision:
    """``reason`` says what allows it or, sometimes, why it is not allowed."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    """Decides at once, from memory."""

    def __call__(self, attempt: Attempt) -> Decision: ...


def authorize(authorizer: Authorizer, attempt: Attempt) -> None:
    """Raises ApiError (403) with Kubernetes' words."""
    decision = authorizer(attempt)
    if not decision.allowed:
        why = refusal(attempt)
        if decision.reason:
            why = f"{why}: {decision.reason}"
        raise errors.forbidden(attempt.group, attempt.resource, attempt.name, why)


def refusal(attempt: Attempt) -> str:
    """``User "x" cannot get resource "y" in API group "z" in the namespace "n"``."""
    who = errors.render(attempt.user.name)
    if not attempt.resource:
        return f"User {who} cannot {attempt.verb} path {errors.render(attempt.path)}"
    resource = attempt.resource
    if attempt.subresource:
        resource = f"{resource}/{attempt.subresource}"
    where = "at the cluster scope"
    if attempt.namespace:
        where = f"in the namespace {errors.render(attempt.namespace)}"
    return (
        f"User {who} cannot {attempt.verb} resource {errors.render(resource)} in API group "
        f"{errors.render(attempt.group)} {where}"
    )


def authenticate(request: web.BaseRequest, tokens: Tokens | None) -> User:
    """By client certificate (user = CN, groups = O), else by bearer token, else anonymous.

    Raises ApiError (401) for a token that is not known.
    """
    peer = pki.peer_of(request)
    if peer is not None:
        return User(peer.common_name, peer.organizations | {AUTHENTICATED})
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not token:
        return ANONYMOUS
    user = tokens(token.strip()) if tokens is not None and scheme.lower() == "bearer" else None
    if user is None:
        raise errors.unauthorized()
    return User(user.name, user.groups | {AUTHENTICATED}, user.uid, user.extra)


def user_info(user: User) -> dict[str, object]:
    """authentication.k8s.io UserInfo."""
    found: dict[str, object] = {"username": user.name}
    if user.uid:
        found["uid"] = user.uid
    if user.groups:
        found["groups"] = sorted(user.groups)
    if user.extra:
        found["extra"] = {key: list(values) for key, values in user.extra}
    return found
