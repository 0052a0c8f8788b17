"""``authorizer`` in match conditions: CEL's questions to the server's own authorizer.

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library: what the chain
of calls has said so far is a map, and the last call asks whoever ``asking`` named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from cel_expr_python import cel

from controller.apiserver.access.tokens import account_user
from controller.apiserver.admission import User
from controller.apiserver.auth import AUTHENTICATED, Attempt, Authorizer
from controller.apiserver.catalog import Resource

_T = cel.Type
State = Mapping[str, Any]
_KIND = "kind"
_asked: ContextVar[tuple[Authorizer, User]] = ContextVar("asked")


@contextlib.contextmanager
def asking(authorizer: Authorizer, user: User) -> Iterator[None]:
    """Whom the expressions evaluated within ask, and on whose behalf."""
    token = _asked.set((authorizer, user))
    try:
        yield
    finally:
        _asked.reset(token)


def variable(resource: Resource, subresource: str, namespace: str, name: str) -> dict[str, Any]:
    """The value of ``authorizer``; its ``requestResource`` is what the request is about."""
    about = {
        _KIND: "resource", "group": resource.group, "resource": resource.plural,
        "subresource": subresource, "namespace": namespace, "name": name,
    }  # fmt: skip
    return {_KIND: "authorizer", "requestResource": about}


def extension() -> cel.CelExtension:
    """The functions of the library."""
    text, state = _T.STRING, _T.Map(_T.STRING, _T.DYN)

    def member(name: str, arguments: int, run: Callable[..., Any], result: Any = state) -> Any:
        parameters = [state, *([text] * arguments)]
        overload = cel.Overload(f"authorizer_{name}", result, parameters, True, run)
        return cel.FunctionDecl(name, [overload])

    def said(name: str, kind: str, becomes: str) -> Any:
        return member(name, 1, lambda so_far, value: _said(so_far, kind, becomes, name, value))

    return cel.CelExtension(
        "authorizer",
        [
            said("path", "authorizer", "path"),
            said("group", "authorizer", "group"),
            said("resource", "group", "resource"),
            *(
                said(name, "resource", "resource")
                for name in ("subresource", "namespace", "name", "fieldSelector", "labelSelector")
            ),
            member("serviceAccount", 2, _service_account),
            member("check", 1, _check),
            member("allowed", 0, lambda found: _decided(found)["allowed"], _T.BOOL),
            member("reason", 0, lambda found: _decided(found)["reason"], text),
            # An authorizer that decides from memory always comes to a decision.
            member("errored", 0, lambda found: not _decided(found), _T.BOOL),
            member("error", 0, lambda found: str(_decided(found).get("error", "")), text),
        ],
    )


def _expect(state: State, *kinds: str) -> None:
    if state.get(_KIND) not in kinds:
        raise ValueError(f"no such overload: this is no {' or '.join(kinds)} of an authorizer")


def _said(state: State, kind: str, becomes: str, name: str, value: str) -> dict[str, Any]:
    _expect(state, kind)
    return {**state, _KIND: becomes, name: value}


def _service_account(state: State, namespace: str, name: str) -> dict[str, Any]:
    _expect(state, "authorizer")
    return {**state, "account": [namespace, name]}


def _check(state: State, verb: str) -> dict[str, Any]:
    """Selectors do not narrow what is asked: RBAC knows none."""
    _expect(state, "resource", "path")
    authorizer, user = _asked.get()
    account = state.get("account")
    if account is not None:
        user = account_user(*account)
        user = replace(user, groups=user.groups | {AUTHENTICATED})
    if state[_KIND] == "path":
        attempt = Attempt(user, verb, state["path"])
    else:
        given = {
            key: state.get(key, "")
            for key in ("group", "resource", "subresource", "namespace", "name")
        }
        attempt = Attempt(user, verb, "", **given)
    found = authorizer(attempt)
    return {_KIND: "decision", "allowed": found.allowed, "reason": found.reason}


def _decided(state: State) -> State:
    _expect(state, "decision")
    return state
