"""Who may not be deleted now: what is protected, what others need, a guest's root disk.

``spec.deletionPolicy: Protect`` guards an object, a reference declared ``on_delete="block"`` its
target. Both reach up the cascade: a zone is not deleted while something that would go with it is
protected, or needed by something that would stay. Otherwise the deletion would begin, and stop
half way. What is deleted already is let go on, but for what is protected itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import NamedTuple

from controller.admission.neighbours import going
from controller.apiserver.admission import Lookup, Object, Request, Violation
from crds.base import GROUP, Resource
from crds.refs import Reference, references, targets

SHOWN = 5
_SETTLED = frozenset({"Running", "Paused", "Stopped", "Crashed", "Unknown"})


class Name(NamedTuple):
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


class Guards:
    """The deletion rules that follow from the kinds' references."""

    def __init__(self, models: Mapping[str, type[Resource]]) -> None:
        self._namespaced = {kind for kind, model in models.items() if model.INFO.namespaced}
        declared = [ref for model in models.values() for ref in references(model)]
        self._blocking = [ref for ref in declared if ref.on_delete == "block"]
        self._cascading = [ref for ref in declared if ref.on_delete == "cascade"]
        self._upwards = {
            kind: [ref for ref in self._cascading if ref.source == kind] for kind in models
        }
        self._guarded = self._kinds_above({ref.target for ref in self._blocking})

    async def check(self, request: Request) -> list[Violation]:
        """Why this deletion is refused; nothing if it is not."""
        old = request.old_object
        if old is None or going(old):
            return []
        name = Name(request.kind, request.namespace, request.name)
        leaving = await self._leaving(name, old, request.lookup)
        kept = sorted(one for one, obj in leaving.items() if _is_protected(obj))
        violations = [Violation(_protection(name, one)) for one in kept[:SHOWN]]
        if await self._is_doomed(old, request):
            return violations
        violations += [found async for found in _root_disk(name, request.lookup)]
        if request.kind in self._guarded:
            violations += await self._blocked(name, leaving, request.lookup)
        return violations

    def _kinds_above(self, kinds: set[str]) -> set[str]:
        """``kinds``, and every kind whose deletion can take one of them along."""
        parents = {ref.target for ref in self._cascading if ref.source in kinds}
        return kinds if parents <= kinds else self._kinds_above(kinds | parents)

    def _kinds_below(self, kinds: set[str]) -> set[str]:
        """``kinds``, and every kind that can be deleted along with one of them."""
        children = {ref.source for ref in self._cascading if ref.target in kinds}
        return kinds if children <= kinds else self._kinds_below(kinds | children)

    async def _blocked(
        self, name: Name, leaving: Mapping[Name, Object], lookup: Lookup
    ) -> list[Violation]:
        held: dict[Name, set[Name]] = {}
        for ref in self._blocking:
            async for user, _, used in self._uses(ref, lookup):
                if used in leaving and user not in leaving:
                    held.setdefault(used, set()).add(user)
        return [Violation(_refusal(name, used, users)) for used, users in sorted(held.items())]

    async def _leaving(self, name: Name, old: Object, lookup: Lookup) -> dict[Name, Object]:
        """Everything that deleting ``name`` deletes, itself included."""
        kinds = self._kinds_below({name.kind})
        refs = [r for r in self._cascading if r.target in kinds]
        links = [use for ref in refs async for use in self._uses(ref, lookup)]
        leaving, before = {name: old}, 0
        while len(leaving) > before:
            before = len(leaving)
            leaving |= {child: obj for child, obj, parent in links if parent in leaving}
        disks = [each for vm, obj in leaving.items() for each in _owned_disks(vm, obj)]
        for disk in disks:
            found = await lookup.get(GROUP, *disk)
            if found is not None and not going(found):
                leaving[disk] = found
        return leaving

    async def _uses(
        self, ref: Reference, lookup: Lookup
    ) -> AsyncIterator[tuple[Name, Object, Name]]:
        """(who refers, as what, to what) for every object of the reference's kind that stays."""
        for obj in await lookup.list(GROUP, ref.source):
            if going(obj):
                continue
            user = Name(ref.source, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
            for target in targets(obj, ref):
                yield user, obj, self._target(ref, user.namespace, target)

    def _target(self, ref: Reference, namespace: str, name: str) -> Name:
        return Name(ref.target, namespace if ref.target in self._namespaced else "", name)

    async def _is_doomed(self, obj: Object, request: Request) -> bool:
        """Is it, its namespace, or what it goes with, being deleted already?"""
        if going(obj) or await self._is_going(Name("Namespace", "", request.namespace), request):
            return True
        return await self._parent_going(Name(request.kind, request.namespace, ""), obj, request)

    async def _parent_going(self, name: Name, obj: Object, request: Request) -> bool:
        for ref in self._upwards.get(name.kind, []):
            for target in targets(obj, ref):
                above = self._target(ref, name.namespace, target)
                parent = await request.lookup.get(GROUP, *above)
                if parent and (going(parent) or await self._parent_going(above, parent, request)):
                    return True
        return False

    async def _is_going(self, name: Name, request: Request) -> bool:
        found = await request.lookup.get("", *name) if name.name else None
        return found is not None and going(found)


async def _root_disk(name: Name, lookup: Lookup) -> AsyncIterator[Violation]:
    """A settled VM keeps its root disk; one whose flow is at work may take it down itself."""
    if name.kind != "Volume":
        return
    for vm in await lookup.list(GROUP, "VirtualMachine", name.namespace):
        status = vm.get("status", {})
        busy = going(vm) or "workflow" in status or status.get("state") not in _SETTLED
        if not busy and any(
            disk.get("root") and disk["volumeRef"]["name"] == name.name
            for disk in status.get("disks", [])
        ):
            user = Name("VirtualMachine", name.namespace, vm["metadata"]["name"])
            yield Violation(f"{name} is the root disk of {user}; delete the VM, and it goes too")


def _is_protected(obj: Object) -> bool:
    spec = obj.get("spec")
    return isinstance(spec, Mapping) and spec.get("deletionPolicy") == "Protect"


def _owned_disks(vm: Name, obj: Object) -> list[Name]:
    """Volumes that a VM takes along when it goes."""
    if vm.kind != "VirtualMachine":
        return []
    disks = obj.get("status", {}).get("disks", [])
    return [Name("Volume", vm.namespace, d["volumeRef"]["name"]) for d in disks if d.get("owned")]


def _protection(asked: Name, kept: Name) -> str:
    what = str(kept) if kept == asked else f"{kept}, which goes with {asked},"
    return f"{what} is protected; set its spec.deletionPolicy to Direct first"


def _refusal(asked: Name, used: Name, users: Iterable[Name]) -> str:
    """Names the users, so that somebody can go and look."""
    names = sorted(users)
    listed = ", ".join(str(user) for user in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    what = str(used) if used == asked else f"{used}, which goes with {asked},"
    return f"{what} is in use by {listed}{more}; delete them or take the reference away first"
