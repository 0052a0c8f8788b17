"""``authorizer`` in match conditions: CEL's questions to the server's own authorizer.

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library: what the chain
of calls has said so far is a map, and the last call asks whoever ``asking`` named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from controller.apiserver.access.tokens import account_user
from controller.apiserver.admission import User
from controller.apiserver.auth import AUTHENTICATED, Attempt, Authorizer
from controller.apiserver.catalog import Resource
from controller.apiserver.cel.functions import Function, Run, T, member

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


def functions() -> tuple[Function, ...]:
    """The functions of the library."""
    text, state = T.STRING, T.Map(T.STRING, T.DYN)

    def function(name: str, arguments: int, run: Run, result: Any = state) -> Function:
        return member(name, run, (f"authorizer_{name}", result, (state, *([text] * arguments))))

    def said(name: str, kind: str, becomes: str) -> Function:
        return function(name, 1, lambda so_far, value: _said(so_far, kind, becomes, name, value))

    return (
        said("path", "authorizer", "path"),
        said("group", "authorizer", "group"),
        said("resource", "group", "resource"),
        *(
            said(name, "resource", "resource")
            for name in ("subresource", "namespace", "name", "fieldSelector", "labelSelector")
        ),
        function("serviceAccount", 2, _service_account),
        function("check", 1, _check),
        function("allowed", 0, lambda found: _decided(found)["allowed"], T.BOOL),
        function("reason", 0, lambda found: _decided(found)["reason"], text),
        # An authorizer that decides from memory always comes to a decision.
        function("errored", 0, lambda found: not _decided(found), T.BOOL),
        function("error", 0, lambda found: str(_decided(found).get("error", "")), text),
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
