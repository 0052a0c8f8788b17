"""docs/kinds.md: every kind and its fields, from the same schema that the CRDs are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from crds.base import API_VERSION, IMMUTABLE_KEY, Resource
from crds.nodes import Schema, children
from crds.refs import REF_KEY
from crds.schema import marked, object_schema

_INTRO = f"""\
<!-- Generated from crds/v1alpha1 by `make generate`; edit the models, not this file. -->
# Kinds of {API_VERSION}

Every object has `metadata.name`, `spec.description`, `spec.tags` (free text and a colour),
`spec.systemTags` (typed; `kumulus tags` lists them) and a status with `state`, the conditions
`Ready`, `Reconciling` and `Stalled`, `observedGeneration` and `lastOperationTime`. *Fixed* fields
cannot change once they are set. A reference says what becomes of the object when its target is
deleted: *cascade* deletes it too, *detach* drops the reference, *stop* stops it, *keep* does
nothing, *block* refuses the deletion.
"""
_EVERYWHERE = frozenset(
    [
        "description",
        "tags",
        "systemTags",
        "observedGeneration",
        "conditions",
        "lastOperationTime",
        "workflow",
    ]
)


def kinds_page(models: Iterable[type[Resource]]) -> str:
    """The page, in Markdown."""
    models = list(models)
    overview = ["| Kind | Short names | Scope | What it is |", "|---|---|---|---|"]
    overview += [_overview(model) for model in models]
    return "\n".join([_INTRO, *overview, "", *(_section(model) for model in models)])


def _overview(model: type[Resource]) -> str:
    info = model.INFO
    name = model.__name__
    short = ", ".join(f"`{short}`" for short in info.short_names) or "none"
    scope = "namespace" if info.namespaced else "cluster"
    return f"| [{name}](#{name.lower()}) | {short} | {scope} | {_cell(model.__doc__ or '')} |"


def _section(model: type[Resource]) -> str:
    marks = {part: marked(model.model_fields[part].annotation) for part in ("spec", "status")}
    parts = object_schema(model)["properties"]
    lines = [f"## {model.__name__}", "", model.__doc__ or "", ""]
    lines += ["| Field | Type | Default | Meaning |", "|---|---|---|---|"]
    lines += [_row(*field) for field in _fields(parts["spec"], marks["spec"], "spec")]
    lines += ["", "| Status | Type | Meaning |", "|---|---|---|"]
    for path, schema, mark, _ in _fields(parts["status"], marks["status"], "status"):
        lines.append(f"| `{path}` | {_type(schema)} | {_meaning(schema, mark)} |")
    return "\n".join([*lines, ""])


def _fields(schema: Schema, marks: Schema, path: str) -> Iterator[tuple[str, Schema, Schema, bool]]:
    """(path, schema, marked schema, required), depth first; the insides of references left out."""
    required = schema.get("required", [])
    both = zip(children(schema, path), children(marks, path), strict=True)
    for (below, child), (_, mark) in both:
        name = below.rpartition(".")[2]
        if path in ("spec", "status") and name in _EVERYWHERE:
            continue
        if not below.endswith("[]"):
            yield below, child, mark, name in required
        if REF_KEY not in mark:
            yield from _fields(child, mark, below)


def _row(path: str, schema: Schema, mark: Schema, required: bool) -> str:
    default = "required" if required else _default(schema)
    return f"| `{path}` | {_type(schema)} | {default} | {_meaning(schema, mark)} |"


def _default(schema: Schema) -> str:
    value = schema.get("default")
    if value is None or value == {}:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value != "")
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema.get("format") == "date-time":
        return "time"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}s"
    if schema["type"] == "integer":
        return "integer" + _span(schema)
    return str(schema["type"])


def _span(schema: Schema) -> str:
    bounds: tuple[Any, Any] = (schema.get("minimum"), schema.get("maximum"))
    return "" if None in bounds else f" {bounds[0]} to {bounds[1]}"


def _meaning(schema: Schema, mark: Schema) -> str:
    """What the field says, where it points to, and whether it is fixed."""
    refs = [node[REF_KEY] for node in (mark, mark.get("items", {})) if REF_KEY in node]
    said = [_cell(str(schema.get("description", "")))]
    said += [f"Deleting the {ref['kind']}: {ref['on_delete']}." for ref in refs]
    if fixed := mark.get(IMMUTABLE_KEY):
        said.append(f"*Fixed{' once set' if fixed['once'] else ''}*: {_cell(fixed['why'])}.")
    return " ".join(part for part in said if part)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
