"""``kubectl --as``: somebody acts as another, if he may (verb impersonate)."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from multidict import CIMultiDictProxy

from controller.apiserver import auth, errors
from controller.apiserver.access.rbac import ACCOUNT_PREFIX
from controller.apiserver.access.tokens import account_user
from controller.apiserver.admission import User
from controller.apiserver.auth import Attempt, Authorizer

_USER, _GROUP, _UID = "Impersonate-User", "Impersonate-Group", "Impersonate-Uid"
_EXTRA = "impersonate-extra-"
_AUTHENTICATION = "authentication.k8s.io"


def impersonated(user: User, headers: CIMultiDictProxy[str], authorizer: Authorizer) -> User:
    """Whom the request is to be made as. Raises ApiError (400, 403)."""
    name = headers.get(_USER, "")
    groups = headers.getall(_GROUP, [])
    uid = headers.get(_UID, "")
    extra = _extra(headers)
    if not name:
        if groups or uid or extra:
            raise errors.bad_request(
                "requested groups, a uid or extra information without impersonating a user"
            )
        return user
    for attempt in _attempts(user, name, groups, uid, extra):
        auth.authorize(authorizer, attempt)
    return _assumed(name, groups, uid, extra)


def _extra(headers: CIMultiDictProxy[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        key = header.lower()
        if key.startswith(_EXTRA):
            key = unquote(key.removeprefix(_EXTRA))
            found[key] = (*found.get(key, ()), value)
    return found


def _attempts(
    user: User, name: str, groups: list[str], uid: str, extra: dict[str, tuple[str, ...]]
) -> Iterator[Attempt]:
    account = _account(name)
    if account is not None:
        namespace, short = account
        yield Attempt(user, "impersonate", "", "", "serviceaccounts", "", namespace, short)
    else:
        yield Attempt(user, "impersonate", "", "", "users", name=name)
    for group in groups:
        yield Attempt(user, "impersonate", "", "", "groups", name=group)
    if uid:
        yield Attempt(user, "impersonate", "", _AUTHENTICATION, "uids", name=uid)
    for key, values in extra.items():
        for value in values:
            yield Attempt(user, "impersonate", "", _AUTHENTICATION, "userextras", key, name=value)


def _account(name: str) -> tuple[str, str] | None:
    namespace, colon, short = name.removeprefix(ACCOUNT_PREFIX).partition(":")
    if name.startswith(ACCOUNT_PREFIX) and colon and namespace and short:
        return namespace, short
    return None


def _assumed(name: str, groups: list[str], uid: str, extra: dict[str, tuple[str, ...]]) -> User:
    found = frozenset(groups)
    account = _account(name)
    if account is not None and not found:
        found = account_user(*account).groups
    if name == auth.ANONYMOUS.name:
        found |= {auth.UNAUTHENTICATED}
    else:
        found |= {auth.AUTHENTICATED}
    return User(name, found, uid, tuple(sorted(extra.items())))
