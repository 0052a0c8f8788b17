"""What the controller does at the API server, and so what it must be allowed to do there.

A module that talks to the API says in its ``RIGHTS`` which verbs it uses on what, beside the code
that does. From all of these come the roles of the Helm chart (``controller.chart``), those of the
embedded cloud (``controller.up``), and ``kumulus rights``: nobody writes a role by hand, and
nobody has more than the code uses. tests/e2e/test_rights.py runs a controller with these rights
alone and finds what is missing, and what nobody used.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from crds.base import Resource

if TYPE_CHECKING:
    from controller.registry import Registry

Wire = dict[str, Any]
Feature = Literal["", "admission", "registration", "namespace"]
"""What a deployment may do without. "": nothing works without it; admission: answering reviews;
registration: telling the API server to send them; namespace: making the controller's own one."""

FEATURES: dict[Feature, str] = {
    "admission": "answer the API server's admission reviews",
    "registration": "register the admission webhook (`kumulus run --admission on`)",
    "namespace": "make the controller's namespace where it is missing",
}
RBAC = "rbac.authorization.k8s.io"
_NO_CONTROLLER = frozenset({"apiserver", "chart", "cli", "up"})
"""Parts of the package ``controller`` that run in other processes, with rights of their own."""


@dataclass(frozen=True)
class Right:
    """``resource``: plural, or plural/subresource. ``names``: on these objects alone. ``home``: in
    the controller's own namespace alone; else in the whole cluster."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    home: bool = False
    feature: Feature = ""


@dataclass(frozen=True)
class OnKinds:
    """The same right on many of our kinds: those that ``of`` names."""

    verbs: tuple[str, ...]
    subresource: str = ""
    of: Callable[[Registry], Iterable[str]] = lambda registry: registry.models


def on(model: type[Resource], *verbs: str, subresource: str = "") -> Right:
    """A right on one of our kinds."""
    group = str(model.model_fields["api_version"].default).partition("/")[0]
    plural = model.INFO.plural
    return Right(group, f"{plural}/{subresource}" if subresource else plural, verbs)


def declared(registry: Registry) -> list[Right]:
    """All rights that modules declare, ours and the plugins' of the registry."""
    found: dict[Right, None] = {}
    for module in (*_modules(), *registry.modules):
        for right in getattr(module, "RIGHTS", ()):
            found.update(dict.fromkeys(_each(right, registry)))
    return list(found)


def rules(rights: Iterable[Right]) -> list[Wire]:
    """The rules of a role. Resources with the same verbs share one; all in order."""
    verbs: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for right in rights:
        verbs.setdefault((right.group, right.resource, right.names), set()).update(right.verbs)
    shared: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (group, resource, names), wanted in verbs.items():
        shared.setdefault((group, names, tuple(sorted(wanted))), []).append(resource)
    return [
        {
            "apiGroups": [group],
            "resources": sorted(resources),
            **({"resourceNames": list(names)} if names else {}),
            "verbs": list(wanted),
        }
        for (group, names, wanted), resources in sorted(shared.items())
    ]


def select(rights: Iterable[Right], *, home: bool, features: Collection[str] = ("",)) -> list[Wire]:
    """The rules of one role: for the own namespace or the cluster, for these features."""
    return rules(r for r in rights if r.home == home and r.feature in features)


def manifests(
    rights: Collection[Right],
    *,
    name: str,
    namespace: str,
    subject: Wire,
    features: Collection[str] = (),
) -> list[Wire]:
    """Roles and bindings that give ``subject`` (of a binding) all rights but those of features
    that are not named. ``namespace``: the controller's."""
    wanted = ("", *features)
    cluster, home = (select(rights, home=own, features=wanted) for own in (False, True))
    return [
        _role("ClusterRole", {"name": name}, cluster),
        _binding("ClusterRole", {"name": name}, subject),
        _role("Role", {"name": name, "namespace": namespace}, home),
        _binding("Role", {"name": name, "namespace": namespace}, subject),
    ]


def group(name: str) -> Wire:
    """The subject that means all members of a group."""
    return {"apiGroup": RBAC, "kind": "Group", "name": name}


def account(name: str, namespace: str) -> Wire:
    """The subject that means a service account."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def _role(kind: str, metadata: Wire, found: list[Wire]) -> Wire:
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": found}


def _binding(role: str, metadata: Wire, subject: Wire) -> Wire:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": f"{role}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": role, "name": metadata["name"]},
        "subjects": [subject],
    }


def _each(right: Right | OnKinds, registry: Registry) -> Iterator[Right]:
    if isinstance(right, Right):
        yield right
        return
    for kind in right.of(registry):
        yield on(registry.models[kind], *right.verbs, subresource=right.subresource)


def _modules() -> Iterator[ModuleType]:
    """The modules of a controller's process."""
    package = importlib.import_module("controller")
    for info in pkgutil.iter_modules(package.__path__, "controller."):
        if info.name.partition(".")[2] in _NO_CONTROLLER:
            continue
        module = importlib.import_module(info.name)
        yield module
        for inner in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{info.name}."):
            yield importlib.import_module(inner.name)
