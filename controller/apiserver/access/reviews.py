"""Questions that are asked by POST and answered, never stored; and the making of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controller.apiserver import auth, errors, meta
from controller.apiserver.access.kinds import (
    AUTHENTICATION,
    AUTHORIZATION,
    TOKEN_REQUEST,
)
from controller.apiserver.access.rbac import Rbac
from controller.apiserver.access.tokens import AUDIENCES, Account, Bearers, Signer
from controller.apiserver.admission import User
from controller.apiserver.auth import Attempt
from controller.apiserver.catalog import Resource
from controller.apiserver.errors import FieldError
from controller.apiserver.store import ObjectKey, Store

Wire = dict[str, Any]
_SHORTEST, _LONGEST, _USUAL = 600, 2**32, 3600
Key = tuple[str, str, str]
"""Group, plural, subresource."""


@dataclass(frozen=True)
class Asked:
    """A question: who asks, where, and what (decoded, in the form of ``resource``)."""

    user: User
    namespace: str
    name: str
    wire: Wire


class Reviews:
    """Answers them all. ``resource`` says in what form a question must come."""

    def __init__(self, store: Store, rbac: Rbac, bearers: Bearers, signer: Signer) -> None:
        self._store = store
        self._rbac = rbac
        self._bearers = bearers
        self._signer = signer
        self._answers: Mapping[Key, Callable[[Asked], Wire]] = {
            (AUTHORIZATION, "subjectaccessreviews", ""): self._subject_access,
            (AUTHORIZATION, "localsubjectaccessreviews", ""): self._local_access,
            (AUTHORIZATION, "selfsubjectaccessreviews", ""): self._self_access,
            (AUTHORIZATION, "selfsubjectrulesreviews", ""): self._self_rules,
            (AUTHENTICATION, "selfsubjectreviews", ""): self._who,
            (AUTHENTICATION, "tokenreviews", ""): self._token_review,
            ("", "serviceaccounts", "token"): self._token_request,
        }

    def form(self, resource: Resource, subresource: str) -> Resource | None:
        """What a POST there must bring; None if that is no question."""
        key = (resource.group, resource.plural, subresource)
        if key not in self._answers:
            return None
        return TOKEN_REQUEST if subresource else resource

    def answer(self, resource: Resource, subresource: str, asked: Asked) -> Wire:
        """The question with its ``status``. Raises ApiError."""
        made = self._answers[(resource.group, resource.plural, subresource)](asked)
        return {**asked.wire, **made}

    # Access

    def _subject_access(self, asked: Asked) -> Wire:
        spec = asked.wire.get("spec") or {}
        problems = _attribute_problems(spec)
        if not spec.get("user") and not spec.get("groups"):
            detail = "at least one of user or group must be specified"
            problems.append(errors.invalid("spec.user", spec.get("user", ""), detail))
        _refuse("SubjectAccessReview", problems)
        return self._access(_user_of(spec), spec)

    def _local_access(self, asked: Asked) -> Wire:
        spec = asked.wire.get("spec") or {}
        problems = _attribute_problems(spec)
        within = (spec.get("resourceAttributes") or {}).get("namespace", "")
        if spec.get("nonResourceAttributes"):
            detail = "disallowed on this kind of request"
            problems.append(
                errors.invalid("spec.nonResourceAttributes", spec["nonResourceAttributes"], detail)
            )
        elif within != asked.namespace:
            path, detail = "spec.resourceAttributes.namespace", "must match metadata.namespace"
            problems.append(errors.invalid(path, within, detail))
        _refuse("LocalSubjectAccessReview", problems)
        return self._access(_user_of(spec), spec)

    def _self_access(self, asked: Asked) -> Wire:
        spec = asked.wire.get("spec") or {}
        _refuse("SelfSubjectAccessReview", _attribute_problems(spec))
        return self._access(asked.user, spec)

    def _access(self, user: User, spec: Wire) -> Wire:
        decision = self._rbac(_attempt(user, spec))
        status: Wire = {"allowed": decision.allowed}
        if decision.reason:
            status["reason"] = decision.reason
        return {"status": status}

    def _self_rules(self, asked: Asked) -> Wire:
        namespace = (asked.wire.get("spec") or {}).get("namespace", "")
        if not namespace:
            raise errors.bad_request("no namespace on request")
        rules = [rule.wire() for rule in self._rbac.rules(asked.user, namespace)]
        status = {
            "resourceRules": [rule for rule in rules if "nonResourceURLs" not in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": False,
        }
        return {"status": status}

    def _who(self, asked: Asked) -> Wire:
        asked.wire["metadata"].setdefault("creationTimestamp", meta.timestamp())
        return {"status": {"userInfo": auth.user_info(asked.user)}}

    # Tokens

    def _token_review(self, asked: Asked) -> Wire:
        spec = asked.wire.get("spec") or {}
        token, audiences = spec.get("token", ""), spec.get("audiences") or list(AUDIENCES)
        if not token:
            raise errors.bad_request("token is required for TokenReview in authentication")
        found = self._bearers.verify(token, audiences)
        if found is None:
            return {"status": {"user": {}, "error": "invalid bearer token"}}
        user = found.user
        groups = user.groups | {auth.AUTHENTICATED}
        info = auth.user_info(User(user.name, groups, user.uid, user.extra))
        status = {"authenticated": True, "user": info, "audiences": list(found.audiences)}
        return {"status": status}

    def _token_request(self, asked: Asked) -> Wire:
        entry = self._store.get(ObjectKey("/serviceaccounts", asked.namespace, asked.name))
        if entry is None:
            raise errors.not_found("", "serviceaccounts", asked.name)
        spec = dict(asked.wire.get("spec") or {})
        spec.setdefault("expirationSeconds", _USUAL)
        spec["audiences"] = spec.get("audiences") or [AUDIENCES[0]]
        _check_life(spec["expirationSeconds"])
        uid = entry.object()["metadata"]["uid"]
        account = Account(asked.namespace, asked.name, uid, self._bound(spec, asked.namespace))
        token, ends = self._signer.sign(account, spec["audiences"], spec["expirationSeconds"])
        metadata = {"name": asked.name, "namespace": asked.namespace,
                    "creationTimestamp": meta.timestamp()}  # fmt: skip
        status = {"token": token, "expirationTimestamp": meta.timestamp_of(ends)}
        return {"metadata": metadata, "spec": spec, "status": status}

    def _bound(self, spec: Wire, namespace: str) -> tuple[str, str] | None:
        reference = spec.get("boundObjectRef")
        if not reference:
            return None
        kind, version = reference.get("kind", ""), reference.get("apiVersion", "")
        if (kind, version) != ("Secret", "v1"):
            raise errors.bad_request(f"cannot bind token for serviceaccount to a {version} {kind}")
        name = reference.get("name", "")
        entry = self._store.get(ObjectKey("/secrets", namespace, name))
        if entry is None:
            raise errors.not_found("", "secrets", name)
        uid = str(entry.object()["metadata"]["uid"])
        if reference.get("uid") and reference["uid"] != uid:
            why = (
                f"the UID in the bound object reference ({reference['uid']}) does not match the "
                f"UID in record. The object might have been deleted and then recreated"
            )
            raise errors.conflict("", "secrets", name, why)
        return name, uid


def _check_life(seconds: int) -> None:
    path, problem = "spec.expirationSeconds", None
    if seconds < _SHORTEST:
        problem = errors.invalid(path, seconds, "may not specify a duration less than 10 minutes")
    elif seconds > _LONGEST:
        detail = "may not specify a duration larger than 2^32 seconds"
        problem = errors.invalid(path, seconds, detail)
    if problem is not None:
        raise errors.invalid_object(AUTHENTICATION, "TokenRequest", "", [problem])


def _refuse(kind: str, problems: list[FieldError]) -> None:
    if problems:
        raise errors.invalid_object(AUTHORIZATION, kind, "", problems)


def _attribute_problems(spec: Wire) -> list[FieldError]:
    resource, url = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and url is not None:
        detail = "cannot be specified in combination with resourceAttributes"
        return [errors.invalid("spec.nonResourceAttributes", url, detail)]
    if resource is None and url is None:
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [errors.invalid("spec.resourceAttributes", None, detail)]
    return []


def _user_of(spec: Wire) -> User:
    extra = tuple((key, tuple(values)) for key, values in (spec.get("extra") or {}).items())
    groups = frozenset(spec.get("groups") or ())
    return User(spec.get("user", ""), groups, spec.get("uid", ""), extra)


def _attempt(user: User, spec: Wire) -> Attempt:
    url = spec.get("nonResourceAttributes")
    if url is not None:
        return Attempt(user, url.get("verb", ""), url.get("path", ""))
    asked = spec["resourceAttributes"]
    return Attempt(
        user, asked.get("verb", ""), "", asked.get("group", ""), asked.get("resource", ""),
        asked.get("subresource", ""), asked.get("namespace", ""), asked.get("name", ""),
    )  # fmt: skip
