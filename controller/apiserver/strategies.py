"""What is particular to the built-in kinds when they are written."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from controller.apiserver import errors, scale
from controller.apiserver.access import rbac
from controller.apiserver.access import validation as access
from controller.apiserver.catalog import Catalog, Resource
from controller.apiserver.errors import FieldError
from controller.apiserver.schema import crd as crds
from controller.apiserver.webhooks import kinds as webhooks

Wire = dict[str, Any]
PROTECTED = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
DEFINITIONS = f"{crds.GROUP}/customresourcedefinitions"


def prepare(resource: Resource, new: Wire, old: Mapping[str, Any] | None) -> None:
    """Fill in what the server decides, in place. ``old`` is None at creation."""
    found = _PREPARE.get(resource.storage)
    if found is not None:
        found(new, old)


def complete(resource: Resource, new: Wire, catalog: Catalog) -> None:
    """Fill in what follows from an object that has proved valid, in place."""
    if resource.storage == DEFINITIONS and not new["metadata"].get("deletionTimestamp"):
        new["status"] = dict(new.get("status") or {})  # the old object may share it
        establish(new, catalog)


def validate(
    resource: Resource, new: Mapping[str, Any], old: Mapping[str, Any] | None
) -> list[FieldError]:
    if resource.scale is not None:
        return list(scale.problems(resource, new))
    found = _VALIDATE.get(resource.storage)
    return found(new, old) if found is not None else []


def before_delete(resource: Resource, wire: Wire) -> None:
    """Change the object as its deletion begins, in place. Raises ApiError to refuse."""
    if resource.storage == "/namespaces":
        if wire["metadata"]["name"] in PROTECTED:
            raise errors.forbidden(
                "", "namespaces", wire["metadata"]["name"], "this namespace may not be deleted"
            )
        wire["status"] = {**(wire.get("status") or {}), "phase": "Terminating"}
    elif resource.storage == DEFINITIONS:
        finalizers = wire["metadata"].setdefault("finalizers", [])
        if crds.CLEANUP not in finalizers:
            finalizers.append(crds.CLEANUP)
        crds.set_condition(
            wire,
            crds.condition(
                "Terminating", "True", "InstanceDeletionPending",
                "CustomResourceDefinition marked for deletion; CustomResource deletion will begin "
                "soon",
            ),
        )  # fmt: skip


def holds_back(resource: Resource, wire: Mapping[str, Any]) -> bool:
    """Whether something beside metadata.finalizers delays the deletion."""
    if resource.storage != "/namespaces":
        return False
    return bool((wire.get("spec") or {}).get("finalizers"))


def _namespace(new: Wire, old: Mapping[str, Any] | None) -> None:
    labels = new["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = new["metadata"].get("name", "")
    if old is None:
        new["spec"] = {"finalizers": ["kubernetes"]}
        new["status"] = {"phase": "Active"}


def _secret(new: Wire, old: Mapping[str, Any] | None) -> None:
    texts = new.pop("stringData", None) or {}
    if texts:
        data = new.setdefault("data", {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()
    new.setdefault("type", old.get("type", "Opaque") if old else "Opaque")


def establish(crd: Wire, catalog: Catalog) -> None:
    """Set the status of a definition: are its names free, is it served, in what is it stored."""
    accepted_names, taken = _free_names(crd, catalog)
    broken = crds.unservable(crd)
    if broken:
        accepted = crds.condition("NamesAccepted", "True", "NoConflicts", "no conflicts found")
        served = crds.condition("Established", "False", "InvalidRule", broken)
    elif taken:
        accepted = crds.condition("NamesAccepted", "False", taken[0], taken[1])
        served = crds.condition("Established", "False", "NotAccepted", "not all names are accepted")
    else:
        accepted = crds.condition("NamesAccepted", "True", "NoConflicts", "no conflicts found")
        served = crds.condition(
            "Established", "True", "InitialNamesAccepted", "the initial names have been accepted"
        )
    crds.set_condition(crd, accepted)
    crds.set_condition(crd, served)
    crd["status"]["acceptedNames"] = accepted_names
    crd["status"]["storedVersions"] = crds.stored_versions(crd)


def _free_names(crd: Mapping[str, Any], catalog: Catalog) -> tuple[Wire, tuple[str, str] | None]:
    """The names that nobody else in the group has, and why the last of the others is refused."""
    group, names = crd["spec"].get("group"), crd["spec"]["names"]
    others = [o for o in catalog if o.group == group and o.plural != names.get("plural")]
    words = {word for o in others for word in (o.plural, o.singular, *o.short_names)}
    kinds = {kind for o in others for kind in (o.kind, o.list_kind)}
    # The API machinery wants a plural and a kind, so these are there even if they are refused.
    accepted: Wire = {"plural": "", "kind": ""}
    refused = None
    for key, used in (
        ("plural", words), ("singular", words), ("shortNames", words), ("kind", kinds),
        ("listKind", kinds),
    ):  # fmt: skip
        wanted = names.get(key)
        taken = next((name for name in _each(wanted) if name in used), None)
        if taken is not None:
            reason = f"{key[0].upper()}{key[1:]}Conflict"
            refused = reason, f"{errors.render(taken)} is already in use"
        elif wanted:
            accepted[key] = wanted
    if names.get("categories"):
        accepted["categories"] = names["categories"]
    return accepted, refused


def _each(names: Any) -> list[str]:
    return names if isinstance(names, list) else [names]


def _definition(new: Wire, old: Mapping[str, Any] | None) -> None:
    if old is None:
        new.pop("status", None)
    crds.fill_defaults(new)


def _check_definition(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    """A specification that was good enough stays so: its status must be writable."""
    return [] if old is not None and new["spec"] == old["spec"] else crds.validate(new, old)


_PREPARE: dict[str, Callable[[Wire, Mapping[str, Any] | None], None]] = {
    DEFINITIONS: _definition,
    "/namespaces": _namespace,
    "/secrets": _secret,
    rbac.ROLE_BINDINGS: access.fill_binding,
    rbac.CLUSTER_ROLE_BINDINGS: access.fill_binding,
    webhooks.MUTATING: webhooks.fill_mutating,
    webhooks.VALIDATING: webhooks.fill_validating,
}


def _immutable_data(*keys: str) -> Callable[[Mapping[str, Any], Mapping[str, Any] | None], Any]:
    def check(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
        if old is None or not old.get("immutable"):
            return []
        found = []
        if not new.get("immutable"):
            found.append(
                errors.forbidden_field("immutable", "field is immutable when `immutable` is set")
            )
        for key in keys:
            if (new.get(key) or {}) != (old.get(key) or {}):
                found.append(
                    errors.forbidden_field(key, "field is immutable when `immutable` is set")
                )
        return found

    return check


def _check_secret(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    found: list[FieldError] = _immutable_data("data")(new, old)
    if old is not None and old.get("type") != new.get("type"):
        found.append(errors.invalid("type", new.get("type"), "field is immutable"))
    return found


def _check_event(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    about = new.get("involvedObject") or new.get("regarding") or {}
    namespace = about.get("namespace") or ""
    field = "regarding" if "regarding" in new else "involvedObject"
    if namespace == new["metadata"].get("namespace"):
        return []
    if not namespace and new["metadata"].get("namespace") in ("default", "kube-system"):
        return []
    return [errors.invalid(f"{field}.namespace", namespace, "does not match event.namespace")]


_VALIDATE: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any] | None], list[FieldError]]] = {
    "/configmaps": _immutable_data("data", "binaryData"),
    "/secrets": _check_secret,
    "/events": _check_event,
    DEFINITIONS: _check_definition,
    rbac.ROLES: access.check_role,
    rbac.CLUSTER_ROLES: access.check_cluster_role,
    rbac.ROLE_BINDINGS: access.check_role_binding,
    rbac.CLUSTER_ROLE_BINDINGS: access.check_cluster_role_binding,
    webhooks.MUTATING: webhooks.check,
    webhooks.VALIDATING: webhooks.check,
}
