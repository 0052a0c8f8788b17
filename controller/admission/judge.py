"""The judge: one function over a request, for the embedded server and for webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controller.admission.checks import checks
from controller.admission.guards import Guards
from controller.admission.neighbours import Neighbours, going
from controller.admission.parse import parse_spec
from controller.apiserver.admission import Request, Violation
from crds import kinds
from crds.base import GROUP, Resource
from crds.tags import read_all


class Judge:
    """A ``controller.apiserver.admission.Admission``: judges the writes of our kinds.

    Reads other objects through the request's lookup, writes nothing, keeps nothing. ``models``:
    the kinds to judge, by name; all of ours unless a test has its own. An update is refused for
    what it makes wrong, not for what was wrong before it: a VM can be stopped whatever became of
    its network.
    """

    def __init__(self, models: Mapping[str, type[Resource]] | None = None) -> None:
        self._models = kinds() if models is None else models
        self._guards = Guards(self._models)

    async def __call__(self, request: Request) -> Sequence[Violation]:
        if request.group != GROUP or request.kind not in self._models or request.subresource:
            return []
        if request.operation == "DELETE":
            return await self._guards.check(request)
        return [] if _needs_no_judging(request) else await self._judge(request)

    async def _judge(self, request: Request) -> list[Violation]:
        model = self._models[request.kind]
        spec, violations = parse_spec(model, (request.object or {}).get("spec", {}))
        violations = [*_name_too_long(model, request), *violations]
        if spec is not None:
            violations += self._tags(request, spec)
        if violations:
            return violations
        found = await self._check(spec, request)
        if not found or request.old_object is None:
            return found
        before, unreadable = parse_spec(model, request.old_object.get("spec", {}))
        accepted = [] if unreadable else await self._check(before, request)
        return [violation for violation in found if violation not in accepted]

    def _tags(self, request: Request, spec: Any) -> list[Violation]:
        """System tags that are wrong, but for those that were there before as they are: a VM can
        be stopped although the plugin that knew its tag is gone."""
        before = ((request.old_object or {}).get("spec") or {}).get("systemTags") or ()
        wrong = read_all(request.kind, spec)[1]
        return [
            Violation(why, f"spec.systemTags[{place}]")
            for place, why in wrong
            if spec.system_tags[place] not in before
        ]

    async def _check(self, spec: Any, request: Request) -> list[Violation]:
        check = checks().get(request.kind)
        if check is None:
            return []
        return [found async for found in check(spec, Neighbours(request))]


def _name_too_long(model: type[Resource], request: Request) -> list[Violation]:
    """The schema says it too, but not every server asks a schema about metadata."""
    limit = model.INFO.max_name
    if request.operation != "CREATE" or len(request.name) <= limit:
        return []
    return [Violation(f"may not be longer than {limit} characters", "metadata.name")]


def _needs_no_judging(request: Request) -> bool:
    """What keeps its spec is let through even if the spec would be refused today: labels and
    finalizers must stay changeable. So is what is being deleted."""
    new, old = request.object, request.old_object
    if new is None or old is None:
        return False
    return going(new) or new.get("spec") == old.get("spec")
