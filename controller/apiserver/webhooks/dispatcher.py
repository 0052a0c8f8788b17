"""Asks the webhooks about a write: the mutating in order, the validating all at once."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.apiserver import auth, decoding, errors, meta, patches
from controller.apiserver.admission import User
from controller.apiserver.catalog import Catalog, Resource
from controller.apiserver.errors import ApiError
from controller.apiserver.store import ObjectKey, Store
from controller.apiserver.webhooks import conditions, matching, permissions
from controller.apiserver.webhooks.client import CallFailed, HookClient, Verdict
from controller.apiserver.webhooks.hooks import Hook, Hooks

Wire = dict[str, Any]
_log = logging.getLogger(__name__)
_MAX_WARNINGS = 4096


@dataclass
class Write:
    """A write that waits. ``new`` is None for a DELETE, ``old`` for a CREATE; both are in the
    form of ``resource``. ``warnings`` grows."""

    resource: Resource
    namespace: str
    name: str
    subresource: str
    user: User
    dry_run: bool
    new: Wire | None
    old: Wire | None
    warnings: list[str] = field(default_factory=list)

    @property
    def operation(self) -> str:
        return "CREATE" if self.old is None else "DELETE" if self.new is None else "UPDATE"


class Dispatcher:
    """Asked for every write. Everything refused raises ApiError."""

    def __init__(self, store: Store, catalog: Catalog, authorizer: auth.Authorizer) -> None:
        self._store = store
        self._authorizer = authorizer
        self._catalog = catalog
        self._hooks = Hooks(store)
        self._client = HookClient()

    async def close(self) -> None:
        await self._client.close()

    def concerned(self, resource: Resource) -> tuple[bool, bool]:
        """Whether there may be mutating and validating webhooks for it."""
        if resource.group == matching.EXCLUDED:
            return False, False
        return bool(self._hooks.mutating()), bool(self._hooks.validating())

    async def mutate(self, write: Write) -> None:
        """Changes ``write.new``. Those that want to see what later ones changed are asked again."""
        changes = 0
        seen: dict[Hook, int] = {}
        for hook in self._hooks.mutating():
            changes += await self._mutate_once(hook, write)
            seen[hook] = changes
        for hook, then in seen.items():
            if hook.reinvoked and then < changes:
                changes += await self._mutate_once(hook, write)

    async def _mutate_once(self, hook: Hook, write: Write) -> bool:
        """Whether it changed something."""
        form = self._form(hook, write)
        if form is None:
            return False
        verdict = await self._ask(hook, write, form)
        if verdict is None or verdict.patch is None:
            return False
        try:
            patched = _patched(write, form, verdict.patch)
        except ApiError as error:
            self._failed(hook, error.message)
            return False
        changed = patched != write.new
        write.new = patched
        return changed

    async def validate(self, write: Write) -> None:
        forms = [(hook, self._form(hook, write)) for hook in self._hooks.validating()]
        asked = [self._ask(hook, write, form) for hook, form in forms if form is not None]
        results = await asyncio.gather(*asked, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    # Whom does it concern?

    def _form(self, hook: Hook, write: Write) -> Resource | None:
        """The form in which a webhook is to see the write; None if it is not to be asked."""
        others = [] if hook.exact else matching.siblings(self._catalog, write.resource)
        form = matching.seen_as(
            hook.rules, write.operation, write.resource, write.subresource, others
        )
        if form is None:
            return None
        namespace = self._namespace(write) if hook.namespaces else None
        if not matching.selected(hook.namespaces, hook.objects, namespace, (write.new, write.old)):
            return None
        return form if self._conditions_hold(hook, write, form) else None

    def _namespace(self, write: Write) -> Wire | None:
        if write.resource.storage == "/namespaces":
            return write.new or write.old
        if not write.resource.namespaced:
            return None
        entry = self._store.get(ObjectKey("/namespaces", "", write.namespace))
        return entry.object() if entry is not None else {"metadata": {}}

    def _conditions_hold(self, hook: Hook, write: Write, form: Resource) -> bool:
        if not hook.conditions:
            return True
        request = review_request(write, form)
        variables = {
            "object": request["object"], "oldObject": request["oldObject"], "request": request,
            "authorizer": permissions.variable(
                form, write.subresource, write.namespace, write.name
            ),
        }  # fmt: skip
        try:
            with permissions.asking(self._authorizer, write.user):
                return conditions.hold(hook.conditions, variables)
        except conditions.Undecided as error:
            if hook.ignores_failure:
                return False
            resource = write.resource
            why = f"webhook {errors.render(hook.name)}: match conditions: {error}"
            raise errors.forbidden(resource.group, resource.plural, write.name, why) from None

    # Asking

    async def _ask(self, hook: Hook, write: Write, form: Resource) -> Verdict | None:
        """None if it could not be asked, and that does not matter."""
        try:
            verdict = await self._client.ask(hook, review_request(write, form))
        except CallFailed as error:
            self._failed(hook, str(error))
            return None
        _add_warnings(write.warnings, verdict.warnings)
        if not verdict.allowed:
            refused = refusal(hook.name, verdict.status)
            refused.warnings = (*refused.warnings, *write.warnings)
            raise refused
        return verdict

    def _failed(self, hook: Hook, why: str) -> None:
        if not hook.ignores_failure:
            raise errors.internal(f"failed calling webhook {errors.render(hook.name)}: {why}")
        _log.warning(
            "a webhook failed; its failurePolicy is Ignore",
            extra={"webhook": hook.name, "error": why},
        )


def _add_warnings(there: list[str], more: Sequence[str]) -> None:
    room = _MAX_WARNINGS - sum(map(len, there))
    for text in more:
        if room <= 0:
            return
        there.append(text[:room])
        room -= len(text)


def refusal(name: str, status: Mapping[str, Any]) -> ApiError:
    """A webhook's own status, made one that a client understands as a refusal."""
    message = f"admission webhook {errors.render(name)} denied the request"
    if status.get("message"):
        message = f"{message}: {status['message']}"
    elif status.get("reason"):
        message = f"{message}: {status['reason']}"
    else:
        message = f"{message} without explanation"
    code = status.get("code")
    if not isinstance(code, int) or not 400 <= code <= 599:
        code = 400
    details = status.get("details")
    found = details if isinstance(details, dict) else {}
    return ApiError(code, str(status.get("reason") or ""), message, found)


def review_request(write: Write, form: Resource) -> Wire:
    """admission.k8s.io/v1 AdmissionRequest."""
    resource = write.resource
    operation = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}
    namespace = write.name if resource.storage == "/namespaces" else write.namespace
    options: Wire = {"kind": operation[write.operation], "apiVersion": "meta.k8s.io/v1"}
    if write.dry_run:
        options["dryRun"] = ["All"]
    found: Wire = {
        "uid": meta.new_uid(),
        "kind": _kind(form),
        "resource": _resource(form),
        "requestKind": _kind(resource),
        "requestResource": _resource(resource),
        "operation": write.operation,
        "userInfo": auth.user_info(write.user),
        "object": _converted(write.new, resource, form),
        "oldObject": _converted(write.old, resource, form),
        "dryRun": write.dry_run,
        "options": options,
    }
    texts = (("name", write.name), ("namespace", namespace),
             ("subResource", write.subresource),
             ("requestSubResource", write.subresource))  # fmt: skip
    found.update({key: text for key, text in texts if text})
    return found


def _kind(resource: Resource) -> Wire:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _resource(resource: Resource) -> Wire:
    return {"group": resource.group, "version": resource.version, "resource": resource.plural}


def _converted(wire: Wire | None, source: Resource, target: Resource) -> Wire | None:
    if wire is None or source is target:
        return wire
    return decoding.present_wire(target, decoding.store_wire(source, wire))


def _patched(write: Write, form: Resource, patch: list[Any]) -> Wire:
    """The new object with a webhook's patch in it. Raises ApiError."""
    if write.new is None:
        raise errors.bad_request("a patch of an object that is being deleted")
    shown = _converted(copy.deepcopy(write.new), write.resource, form)
    assert shown is not None
    found = patches.apply_json_patch(shown, patches.parse_json_patch(patch))
    decoding.check_type(form, found)
    decoding.shape(form, found)
    new = _converted(found, form, write.resource)
    assert new is not None
    return new
