"""References between kinds, declared once, on the field.

``Annotated[ObjectRef, Ref("Zone", on_delete="cascade")]`` yields the wait-until-ready, the
reverse index (who refers to me), the cascade edge and the deletion guard. A reference may stand
in ``spec`` (a user wrote it) or in ``status`` (a controller decided it, as a virtual machine's
host); status references never make their object wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from crds.base import Model, NameStr, Resource

OnDelete = Literal["cascade", "detach", "stop", "keep", "block"]
"""What a referring object does when the object it refers to is deleted.

cascade: it is deleted too. detach: it drops the reference (a NIC of a deleted network). stop: it
leaves the parent but lives on (a virtual machine whose host is deleted). keep: nothing happens.
block: the parent's deletion is refused while it refers to it.
"""

REF_KEY = "x-kumulus-ref"
"""Where the models' JSON schema carries a Ref to ``crds.docs``; no CRD has it."""


class ObjectRef(Model):
    """The name of another object; in the same namespace if its kind is namespaced."""

    name: NameStr


@dataclass(frozen=True)
class Ref:
    """Declares what a field refers to and what the reference means.

    wait: the referring object's actuator runs only once the target is Ready. Ignored in status.
    """

    kind: str
    on_delete: OnDelete
    wait: bool = True

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), REF_KEY: vars(self)}


@dataclass(frozen=True, eq=False)
class Reference:
    """A declared reference of a kind: ``source`` refers to ``target`` at ``path``.

    ``path`` holds camelCase field names; ``*`` steps into each item of a list. There is one for
    each declaration (``references``), so that they are compared and hashed as fast as can be.
    """

    source: str
    target: str
    path: tuple[str, ...]
    on_delete: OnDelete
    wait: bool


@cache
def references(model: type[Resource]) -> tuple[Reference, ...]:
    """Every reference that a kind declares, spec's first, in field order."""
    found = []
    for part in ("spec", "status"):
        annotation = model.model_fields[part].annotation
        for path, ref in _walk(annotation, (part,)):
            wait = ref.wait and part == "spec"
            found.append(Reference(model.__name__, ref.kind, path, ref.on_delete, wait))
    return tuple(found)


class DeclarationError(ValueError):
    """References are declared in a way that cannot work; raised at start-up and generation."""


def verify(models: Mapping[str, type[Resource]]) -> None:
    """Every reference has a target that can be found, and no cascade comes back to itself."""
    for model in models.values():
        for reference in references(model):
            _verify_target(models, model, reference)
    graph = {
        name: {ref.target for ref in references(model) if ref.on_delete == "cascade"}
        for name, model in models.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise DeclarationError(f"cascades go in a circle: {' → '.join(error.args[1])}") from None


def _verify_target(
    models: Mapping[str, type[Resource]], model: type[Resource], reference: Reference
) -> None:
    where = f"{reference.source}.{'.'.join(reference.path)}"
    target = models.get(reference.target)
    if target is None:
        raise DeclarationError(f"{where} refers to {reference.target}, which is no kind")
    if target.INFO.namespaced and not model.INFO.namespaced:
        raise DeclarationError(
            f"{where} refers to {reference.target}, which is namespaced; {reference.source} is not"
        )


def targets(wire: Mapping[str, Any], reference: Reference) -> Iterator[str]:
    """Names that ``reference`` holds in an object as it is on the wire."""
    nodes: list[Any] = [wire]
    for step in reference.path:
        if step == "*":
            nodes = [item for node in nodes if isinstance(node, list) for item in node]
        else:
            nodes = [node[step] for node in nodes if isinstance(node, Mapping) and step in node]
    for node in nodes:
        if isinstance(node, Mapping) and isinstance(node.get("name"), str):
            yield node["name"]


@dataclass(frozen=True)
class _Branch:
    """Where references lie below one step of a path: those that end here, and further steps."""

    ends: list[Reference]
    steps: dict[str, _Branch]


@cache
def _tree(model: type[Resource]) -> _Branch:
    root = _Branch([], {})
    for reference in references(model):
        branch = root
        for step in reference.path:
            branch = branch.steps.setdefault(step, _Branch([], {}))
        branch.ends.append(reference)
    return root


def held(wire: Mapping[str, Any], model: type[Resource]) -> list[tuple[Reference, str]]:
    """All references that an object holds, with their names. As targets() of each reference, in
    one walk: a kind declares many, and an object has few of them."""
    found: list[tuple[Reference, str]] = []
    _gather(wire, _tree(model), found)
    return found


def _gather(node: Any, branch: _Branch, found: list[tuple[Reference, str]]) -> None:
    if isinstance(node, list):
        below = branch.steps.get("*")
        for item in node if below is not None else ():
            _gather(item, below, found)  # type: ignore[arg-type]
    elif isinstance(node, dict):
        name = node.get("name") if branch.ends else None
        if isinstance(name, str):
            found += [(reference, name) for reference in branch.ends]
        for step, below in branch.steps.items():
            if step in node:
                _gather(node[step], below, found)


def _walk(annotation: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Ref]]:
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        refs = [m for m in metadata if isinstance(m, Ref)]
        yield from ((path, ref) for ref in refs)
        if not refs:
            yield from _walk(inner, path)
    elif get_origin(annotation) is list:
        yield from _walk(get_args(annotation)[0], (*path, "*"))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            step = (*path, info.alias or name)
            refs = [m for m in info.metadata if isinstance(m, Ref)]
            yield from ((step, ref) for ref in refs)
            if not refs:
                yield from _walk(info.annotation, step)
    else:
        for inner in get_args(annotation):
            yield from _walk(inner, path)


RefList = Annotated[list[ObjectRef], Field(max_length=256)]
