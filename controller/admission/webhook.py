"""The judge behind kopf's validating webhook, for clusters that are not the embedded one.

kopf serves the endpoint and keeps the ValidatingWebhookConfiguration; here is only the
translation. kopf remembers every object that it reviewed (about 1.4 KB each), so the webhook
belongs into a process that is restarted now and then, or has few objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import kopf

from controller.apiserver.admission import Admission, Lookup, Request, User, Violation
from crds import kinds
from crds.base import GROUP, VERSION, Resource

Operation = Literal["CREATE", "UPDATE", "DELETE"]
OPERATIONS: tuple[Operation, ...] = ("CREATE", "UPDATE", "DELETE")


def register(registry: kopf.OperatorRegistry, judge: Admission, lookup: Lookup) -> None:
    """Have kopf ask ``judge`` about every write of our kinds; ``lookup`` reads other objects."""
    for model in kinds().values():
        kopf.on.validate(
            GROUP,
            VERSION,
            model.INFO.plural,
            id=f"validate-{model.INFO.singular}",
            operations=OPERATIONS,
            side_effects=False,
            registry=registry,
        )(_handler(model, judge, lookup))


def _handler(model: type[Resource], judge: Admission, lookup: Lookup) -> Any:
    async def validate(**review: Any) -> None:
        violations = await judge(to_request(model, review, lookup))
        if violations:
            raise to_error(violations)

    return validate


def to_request(model: type[Resource], review: Mapping[str, Any], lookup: Lookup) -> Request:
    """kopf's arguments of a validation handler as a Request."""
    new, old = review["new"], review["old"]
    user = review["userinfo"]
    return Request(
        operation=review["operation"],
        group=GROUP,
        version=VERSION,
        kind=model.__name__,
        resource=model.INFO.plural,
        namespace=review["namespace"] or "",
        name=review["name"] or "",
        object=None if new is None else dict(new),
        old_object=None if old is None else dict(old),
        user=User(user.get("username", ""), frozenset(user.get("groups", []))),
        lookup=lookup,
        subresource=review["subresource"] or "",
        dry_run=review["dryrun"],
    )


def to_error(violations: Sequence[Violation]) -> kopf.AdmissionError:
    """One answer that names every field: 422, or 403 where no field is to blame."""
    said = [f"{found.field}: {found.message}" if found.field else found.message
            for found in violations]  # fmt: skip
    code = 422 if all(found.field for found in violations) else 403
    return kopf.AdmissionError("; ".join(said), code=code)
