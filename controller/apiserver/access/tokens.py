"""Bearer tokens: static ones from a file, and signed ones of service accounts.

A service account's token is a JWT (ES256) that names the account and its uid; it is good while
that very account exists. https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.apiserver.access.rbac import ACCOUNT_PREFIX
from controller.apiserver.admission import User
from controller.apiserver.store import ObjectKey, Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCES = (ISSUER, "kumulus")
"""A token for any of these is a token for this server. A request that asks for none gets the
first."""
CREDENTIAL = "authentication.kubernetes.io/credential-id"
_ALGORITHM = "ES256"
_MAX_CHECKED = 4096


class BadTokenFile(ValueError):
    """The token file cannot be used; the message names the line."""


@dataclass(frozen=True)
class Account:
    """A service account, and a Secret that a token is bound to (name, uid)."""

    namespace: str
    name: str
    uid: str
    secret: tuple[str, str] | None = None


@dataclass(frozen=True)
class Verified:
    """Who a token stands for, and which of the wanted audiences it is for."""

    user: User
    audiences: tuple[str, ...]


class Signer:
    """Signs tokens, and tells its own from others."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key
        self._public = key.public_key()
        self._clock = clock
        der = self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()

    @classmethod
    def load(cls, path: Path) -> Signer:
        """With the key in ``path``, made (mode 0600) if it is not there."""
        if not path.exists():
            _write_key(path)
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{path} holds no elliptic-curve key; move it away for a new one")
        return cls(key)

    def sign(self, account: Account, audiences: Sequence[str], seconds: int) -> tuple[str, int]:
        """(the token, when it ends in seconds since 1970)."""
        now = int(self._clock())
        bound: dict[str, Any] = {
            "namespace": account.namespace,
            "serviceaccount": {"name": account.name, "uid": account.uid},
        }
        if account.secret is not None:
            bound["secret"] = {"name": account.secret[0], "uid": account.secret[1]}
        claims = {
            "aud": list(audiences),
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": bound,
            "nbf": now,
            "sub": f"{ACCOUNT_PREFIX}{account.namespace}:{account.name}",
        }
        token = jwt.encode(claims, self._key, _ALGORITHM, {"kid": self._key_id})
        return token, now + seconds

    def claims(self, token: str) -> Mapping[str, Any] | None:
        """A token's claims, its signature checked; None if it is not ours. Times are not judged."""
        try:
            found: Mapping[str, Any] = jwt.decode(
                token, self._public, [_ALGORITHM], issuer=ISSUER,
                options={"verify_aud": False, "verify_exp": False, "verify_nbf": False,
                         "verify_iat": False, "require": ["exp", "iss", "sub", "kubernetes.io"]},
            )  # fmt: skip
        except jwt.PyJWTError:
            return None
        return found

    def in_time(self, claims: Mapping[str, Any]) -> bool:
        return bool(claims.get("nbf", 0) <= self._clock() < claims["exp"])


def _write_key(path: Path) -> None:
    """Whole or not at all, never readable by others for a moment."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    scratch.replace(path)


class Bearers:
    """All tokens that the server knows. ``user`` is an ``auth.Tokens``."""

    def __init__(
        self, store: Store, signer: Signer, static: Callable[[str], User | None] | None = None
    ) -> None:
        self._store = store
        self._signer = signer
        self._static = static
        self._checked: dict[str, Mapping[str, Any]] = {}

    def user(self, token: str) -> User | None:
        found = self.verify(token, AUDIENCES)
        return found.user if found is not None else None

    def verify(self, token: str, audiences: Collection[str]) -> Verified | None:
        """None if the token is unknown, too old, for somebody else, or its account is gone."""
        user = self._static(token) if self._static is not None else None
        if user is not None:
            # A static token says nothing of audiences: it is this server's.
            shared = tuple(a for a in audiences if a in AUDIENCES)
            return Verified(user, shared) if shared else None
        claims = self._claims(token)
        if claims is None or not self._signer.in_time(claims):
            return None
        said = claims.get("aud") or ()
        shared = tuple(a for a in audiences if a in said)
        user = self._account_user(claims)
        return Verified(user, shared) if shared and user is not None else None

    def _claims(self, token: str) -> Mapping[str, Any] | None:
        """Signatures are checked once: a check costs more than a request."""
        found = self._checked.get(token)
        if found is None:
            found = self._signer.claims(token)
            if found is None:
                return None
            if len(self._checked) >= _MAX_CHECKED:
                self._checked.clear()
            self._checked[token] = found
        return found

    def _account_user(self, claims: Mapping[str, Any]) -> User | None:
        bound: Any = claims["kubernetes.io"]  # signed by us, so it is whole
        account = bound["serviceaccount"]
        namespace, name, uid = bound["namespace"], account["name"], account["uid"]
        if not self._is_there("/serviceaccounts", namespace, name, uid):
            return None
        secret = bound.get("secret")
        if secret and not self._is_there("/secrets", namespace, secret["name"], secret["uid"]):
            return None
        extra = ((CREDENTIAL, (f"JTI={claims.get('jti', '')}",)),)
        return account_user(namespace, name, uid, extra)

    def _is_there(self, resource: str, namespace: str, name: str, uid: str) -> bool:
        entry = self._store.get(ObjectKey(resource, namespace, name))
        return entry is not None and entry.object()["metadata"]["uid"] == uid


def account_user(
    namespace: str, name: str, uid: str = "", extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
) -> User:
    """The user that a service account is."""
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}"}
    return User(f"{ACCOUNT_PREFIX}{namespace}:{name}", frozenset(groups), uid, extra)


def static_tokens(path: Path) -> Callable[[str], User | None]:
    """Tokens from a file of Kubernetes' form: token,user,uid,"group1,group2" in each line.

    Raises BadTokenFile and OSError.
    """
    users: dict[bytes, User] = {}
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or row[0].lstrip().startswith("#"):
                continue
            if len(row) < 3 or not row[0] or not row[1]:
                raise BadTokenFile(
                    f'{path}, line {number}: write token,user,uid and optionally "group1,group2"'
                )
            groups = row[3].split(",") if len(row) > 3 and row[3] else []
            users[_digest(row[0])] = User(row[1], frozenset(g.strip() for g in groups), row[2])
    # Digests are looked up, so the time that it takes tells nothing of the tokens.
    return lambda token: users.get(_digest(token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
