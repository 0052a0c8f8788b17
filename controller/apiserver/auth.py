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
ANONYMOUS = User("system:anonymous", frozenset({"system:unauthenticated"}))
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


class Authorizer(Protocol):
    """Decides. Answers why not, or the empty string."""

    def __call__(self, attempt: Attempt) -> str: ...


def members_only(groups: frozenset[str] = frozenset({MASTERS, CONTROLLERS})) -> Authorizer:
    """Everything is allowed to the members of ``groups``, nothing to others."""

    def decide(attempt: Attempt) -> str:
        if attempt.user.groups & groups:
            return ""
        return (
            f"User {errors.render(attempt.user.name)} is in none of the groups that may use this "
            f"server ({', '.join(sorted(groups))})"
        )

    return decide


def authenticate(request: web.Request, tokens: Tokens | None) -> User:
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
    return User(user.name, user.groups | {AUTHENTICATED})
