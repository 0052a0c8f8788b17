"""The seam between the API server and whoever judges what may be stored.

The server validates an object against its schema first and then asks one ``Admission``, in
process. On another cluster the same judge stands behind a validating webhook: ``Request`` holds
what an ``admission.k8s.io/v1`` AdmissionReview holds, and ``refusal`` is the answer of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from controller.apiserver import errors

Operation = Literal["CREATE", "UPDATE", "DELETE"]
Object = Mapping[str, Any]


class Lookup(Protocol):
    """Reads other objects, as they are stored now. Both calls are cheap (memory, no I/O).

    ``group`` is the API group, "" for core kinds. Of an unknown kind there are no objects.
    """

    async def get(self, group: str, kind: str, namespace: str, name: str) -> Object | None:
        """One object, or None. ``namespace`` is "" for cluster-scoped kinds."""

    async def list(self, group: str, kind: str, namespace: str = "") -> Sequence[Object]:
        """All objects of a kind, of one namespace if it is given."""


@dataclass(frozen=True)
class User:
    """Who asks: the certificate's common name and organisations, or what a token stands for."""

    name: str
    groups: frozenset[str] = frozenset()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Request:
    """One write that waits for judgement.

    ``object`` is None on DELETE, ``old_object`` is None on CREATE. Objects are complete (defaults
    applied, metadata set) and must not be changed. ``subresource`` is "" or "status".
    """

    operation: Operation
    group: str
    version: str
    kind: str
    resource: str
    namespace: str
    name: str
    object: Object | None
    old_object: Object | None
    user: User
    lookup: Lookup
    subresource: str = ""
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Violation:
    """Why a write is refused.

    With ``field`` (a path such as ``spec.nics[0].ip``) the server answers 422 Invalid and lists
    the violation among the causes. Without it the answer is 403 Forbidden with the message alone.
    ``reason`` is a cause type of metav1: FieldValueInvalid, FieldValueRequired,
    FieldValueForbidden, FieldValueNotFound, FieldValueDuplicate, FieldValueNotSupported.
    """

    message: str
    field: str = ""
    reason: str = "FieldValueInvalid"


class Admission(Protocol):
    """Judges a write. No violations: it is allowed.

    Called for every CREATE, UPDATE (also of a subresource) and DELETE of every custom resource,
    outside any transaction, with a deadline of ten seconds. An exception refuses the write with
    500 and is logged.
    """

    async def __call__(self, request: Request) -> Sequence[Violation]: ...


def refusal(request: Request, violations: Sequence[Violation]) -> errors.ApiError:
    """What the client is told: 422 with every field, or 403 where no field is to blame."""
    if not any(found.field for found in violations):
        why = "; ".join(found.message for found in violations)
        return errors.forbidden(request.group, request.resource, request.name, why)
    causes = [errors.cause(v.reason, v.field or "metadata", v.message) for v in violations]
    return errors.invalid_object(request.group, request.kind, request.name, causes)
