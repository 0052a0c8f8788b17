"""What is served: the built-in kinds and those that CustomResourceDefinitions declare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.apiserver.schema.cel import RuleNode
from controller.apiserver.schema.structural import Node

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
Wire = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table. ``cell`` takes the object; it may return None."""

    name: str
    type: str
    cell: Callable[[Mapping[str, Any]], Any]
    priority: int = 0
    format: str = ""
    description: str = ""


@dataclass(frozen=True)
class Resource:
    """One resource in one version.

    ``storage`` is where its objects are kept (shared by all versions), ``stored_as`` the
    apiVersion that they are kept in. ``shown`` and ``taken`` translate from and to that version
    where the fields differ (events); they may be None. ``deprecation`` is the warning that every
    use of a deprecated version is answered with. ``kept`` is the schema of the version that objects
    are stored in, if that is another one: what it does not know is not stored.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    schema: Node
    rules: RuleNode | None = None
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    generations: bool = True
    custom: bool = True
    name_style: str = "subdomain"
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    storage: str = ""
    stored_as: str = ""
    scale: Mapping[str, str] | None = None
    extra_subresources: tuple[str, ...] = ()
    shown: Callable[[Wire], Wire] | None = None
    taken: Callable[[Wire], Wire] | None = None
    message: Mapping[int, Any] | None = None
    deprecation: str = ""
    kept: Node | None = None
    verbs: tuple[str, ...] = VERBS
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What others derive from it, made once."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def fields(self) -> tuple[str, ...]:
        """What field selectors may name."""
        always = ("metadata.name", "metadata.namespace") if self.namespaced else ("metadata.name",)
        return (*always, *self.selectable)

    @property
    def subresources(self) -> tuple[str, ...]:
        found = ("status",) if self.has_status else ()
        return (*found, *(("scale",) if self.scale else ()), *self.extra_subresources)


@dataclass
class Catalog:
    """All resources by group, version and plural. ``generation`` counts changes."""

    generation: int = 0
    _found: dict[tuple[str, str, str], Resource] = field(default_factory=dict)

    def add(self, resources: list[Resource]) -> None:
        for resource in resources:
            self._found[(resource.group, resource.version, resource.plural)] = resource
        self.generation += 1

    def remove(self, group: str, plural: str) -> None:
        """All versions of a resource."""
        for key in [key for key in self._found if key[0] == group and key[2] == plural]:
            del self._found[key]
        self.generation += 1

    def get(self, group: str, version: str, plural: str) -> Resource | None:
        return self._found.get((group, version, plural))

    def kind(self, group: str, kind: str, version: str = "") -> Resource | None:
        """The resource of a kind, in ``version`` or any."""
        for resource in self._found.values():
            if resource.group == group and resource.kind == kind:
                if version and resource.version != version:
                    continue
                return resource
        return None

    def stored(self, storage: str) -> Resource | None:
        """A resource (in any version) whose objects are kept there."""
        for resource in self._found.values():
            if resource.storage == storage:
                return resource
        return None

    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """Resources by group and version; versions in order of preference."""
        found: dict[str, dict[str, list[Resource]]] = {}
        for resource in sorted(self._found.values(), key=lambda r: (r.group, r.plural)):
            found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
        return {
            group: dict(sorted(versions.items(), key=lambda item: version_rank(item[0])))
            for group, versions in found.items()
        }

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._found.values()))


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sorts v2 before v1 before v1beta2 before v1alpha1 before anything else."""
    text = version.removeprefix("v")
    for stage, rank in (("alpha", 2), ("beta", 1)):
        major, found, minor = text.partition(stage)
        if found and major.isdigit() and minor.isdigit():
            return (rank, -int(major), -int(minor), version)
    if text.isdigit() and version.startswith("v"):
        return (0, -int(text), 0, version)
    return (3, 0, 0, version)


def split_api_version(api_version: str) -> tuple[str, str]:
    """``group/version`` → (group, version); core has the empty group."""
    group, slash, version = api_version.rpartition("/")
    return (group, version) if slash else ("", api_version)
