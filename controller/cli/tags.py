"""``kumulus tags`` and ``kumulus tag``: which tags there are, who has them, and giving them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from controller.cli.output import CommandFailed, out, say
from controller.errors import KumulusError
from controller.up.kube import MERGE_PATCH, Kube, collection, find_kubeconfig, listing
from crds import discovered, kind_named, kinds
from crds.tags import SEPARATOR, SystemTag

COLORS = {"orange": "dark_orange", "purple": "purple", "pink": "hot_pink", "gray": "grey50"}
SHOWN = 3
"""Objects that are named for each tag."""


@dataclass
class Use:
    """A tag that objects have. ``objects``: kind/name."""

    text: str
    color: str = ""
    objects: list[str] = field(default_factory=list)


def show_tags(kubeconfig: Path | None, data_dir: Path, kind: str | None, *, as_json: bool) -> None:
    """System tags as they are declared; then all tags in use, if there is a cluster."""
    wanted = _known_kind(kind) if kind else None
    declared = [tag for tag in discovered().tags.values() if wanted in (None, *tag.kinds)]
    try:
        kube = Kube(find_kubeconfig(kubeconfig, data_dir))
        models = [kinds()[wanted]] if wanted else list(kinds().values())
        used = in_use(listing(kube, models))
    except KumulusError as error:
        if kubeconfig is not None:
            raise
        used, why = [], error.message
    else:
        why = ""
    if as_json:
        say(json.dumps(_described(declared, used), indent=2, ensure_ascii=False))
        return
    out.print(_declared_table(declared))
    say()
    if used:
        out.print(_used_table(used))
    else:
        say(why or "No object has a tag. Give one: kumulus tag vm/NAME important --color red")


def change_tags(
    kube: Kube,
    target: str,
    tags: Sequence[str],
    *,
    namespace: str,
    color: str | None,
    remove: bool,
) -> None:
    """Give or take tags. Raises CommandFailed and ApiError (what admission says)."""
    word, slash, name = target.partition("/")
    if not slash or not name:
        raise CommandFailed(f"{target!r} names no object; write KIND/NAME such as vm/web-1")
    model = kinds()[_known_kind(word)]
    path = f"{collection(model, namespace)}/{name}"
    live = kube.get(path)
    spec = live.get("spec") or {}
    new = changed(spec, tags, color=color, remove=remove)
    if all(new[part] == list(spec.get(part) or ()) for part in new):
        say(f"{target} has them already." if not remove else f"{target} has none of them.")
        return
    meta = {"resourceVersion": live["metadata"]["resourceVersion"]}
    kube.request("PATCH", path, {"metadata": meta, "spec": new}, content_type=MERGE_PATCH)
    say(f"{target}: {'took' if remove else 'gave'} {', '.join(tags)}")


def changed(
    spec: Mapping[str, Any], tags: Sequence[str], *, color: str | None, remove: bool
) -> dict[str, Any]:
    """``tags`` and ``systemTags`` of a spec after the change.

    A system tag that an object has once replaces its old value.
    """
    user = {tag["name"]: dict(tag) for tag in spec.get("tags") or ()}
    system = list(spec.get("systemTags") or ())
    for text in tags:
        if not is_system(text):
            old = user.pop(text, {"name": text})
            if not remove:
                user[text] = {**old, **({"color": color} if color else {})}
            continue
        system = [other for other in system if not _replaces(text, other, remove=remove)]
        if not remove:
            system.append(text)
    return {"tags": list(user.values()), "systemTags": system}


def is_system(text: str) -> bool:
    return SEPARATOR in text or text in discovered().tags


def in_use(objects: Iterable[Mapping[str, Any]]) -> list[Use]:
    """User tags, then system tags, by name."""
    user: dict[str, Use] = {}
    system: dict[str, Use] = {}
    for wire in objects:
        title = f"{wire['kind']}/{wire['metadata']['name']}"
        spec = wire.get("spec") or {}
        for tag in spec.get("tags") or ():
            use = user.setdefault(tag["name"], Use(tag["name"]))
            use.color = use.color or tag.get("color", "")
            use.objects.append(title)
        for text in spec.get("systemTags") or ():
            system.setdefault(text, Use(text)).objects.append(title)
    return [uses[text] for uses in (user, system) for text in sorted(uses)]


def _known_kind(word: str) -> str:
    kind = kind_named(word, kinds())
    if kind is None:
        raise CommandFailed(f"there is no kind {word!r}; there are: {', '.join(kinds())}")
    return kind


def _replaces(new: str, old: str, *, remove: bool) -> bool:
    """Does ``old`` go when ``new`` comes (or is removed: by its whole text or by its name)?"""
    name = new.split(SEPARATOR, maxsplit=1)[0]
    if remove:
        return old == new or (new == name and old.split(SEPARATOR, maxsplit=1)[0] == name)
    tag = discovered().tags.get(name)
    parts = 2 if tag is not None and tag.repeated else 1
    return old.split(SEPARATOR)[:parts] == new.split(SEPARATOR)[:parts]


def _described(declared: Iterable[SystemTag], used: Iterable[Use]) -> dict[str, Any]:
    return {
        "systemTags": [
            {
                "name": tag.name,
                "pattern": tag.pattern,
                "kinds": list(tag.kinds),
                "repeated": tag.repeated,
                "values": {value.name: value.what for value in tag.values},
                "description": tag.description,
            }
            for tag in declared
        ],
        "inUse": [vars(use) for use in used],
    }


def _declared_table(declared: Iterable[SystemTag]) -> Table:
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("SYSTEM TAG", "KINDS"):
        result.add_column(column, no_wrap=True)
    result.add_column("MEANING", overflow="fold")
    for tag in declared:
        values = "; ".join(f"{v.name}: {v.what}" for v in tag.values)
        meaning = f"{tag.description} ({values})" if values else tag.description
        result.add_row(Text(tag.pattern), ", ".join(tag.kinds), Text(meaning))
    return result


def _used_table(used: Iterable[Use]) -> Table:
    result = Table(box=None, pad_edge=False, header_style="bold")
    result.add_column("TAG IN USE", no_wrap=True)
    result.add_column("OBJECTS", justify="right")
    result.add_column("", overflow="fold")
    for use in used:
        more = ", …" if len(use.objects) > SHOWN else ""
        style = COLORS.get(use.color, use.color)
        result.add_row(
            Text(use.text, style=style),
            str(len(use.objects)),
            Text(", ".join(use.objects[:SHOWN]) + more),
        )
    return result
