"""``kumulus cascade preview`` and ``kumulus recover``: before a deletion, and after it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text
from rich.tree import Tree

from controller.cascade.preview import Effect, Node, preview
from controller.cli.output import CommandFailed, out, say
from controller.keys import Key
from controller.kinds.trash import HOME, RECOVER_FROM, manifest
from controller.reconcile.deletion import holds_in
from controller.registry import Registry, installed
from controller.up.kube import ApiError, Kube, collection, find_kubeconfig, listing
from controller.watch.base import Change
from controller.watch.store import ObjectStore
from crds import kind_named, kinds
from crds.base import API_VERSION, Resource
from crds.v1alpha1.trash_item import TrashItem

DEFAULT_NAMESPACE = "default"
_WORDS: dict[Effect, tuple[str, str]] = {
    "delete": ("is deleted", "red"),
    "trash": ("is deleted; its data are kept in the trash", "yellow"),
    "stop": ("lives on, stopped or without it", "yellow"),
    "detach": ("lives on without it", "yellow"),
    "block": ("needs it: nothing is deleted", "bold magenta"),
    "protect": ("is protected: nothing is deleted", "bold magenta"),
}


# -- preview


def show_preview(
    what: str, namespace: str | None, kubeconfig: Path | None, data_dir: Path, *, as_json: bool
) -> None:
    """Print what deleting ``what`` would do. Raises CommandFailed and ApiError."""
    registry = installed()
    key = parse_key(what, namespace, registry.models)
    kube = Kube(find_kubeconfig(kubeconfig, data_dir))
    root = planned(key, listing(kube, registry.models.values()), registry)
    if as_json:
        say(json.dumps({"refused": bool(root.refused()), **root.plain()}, indent=2))
        return
    out.print(drawn(root))
    say(summary(root))


def planned(key: Key, objects: Sequence[Mapping[str, Any]], registry: Registry) -> Node:
    """The preview of deleting ``key``, given all objects. Raises CommandFailed if it is none."""
    store = ObjectStore(registry.models)
    for obj in objects:
        store.apply(Change.PRESENT, obj["kind"], obj)
    if store.entry(key) is None:
        raise CommandFailed(f"there is no {key}")
    return preview(store, key, holds_in(store, registry.actuators))


def drawn(node: Node) -> Tree:
    words, colour = _WORDS[node.effect]
    label = Text(f"{node.key}  ")
    label.append(words, style=colour)
    tree = Tree(label, guide_style="dim")
    tree.children += [drawn(child) for child in node.children]
    return tree


def summary(root: Node) -> str:
    """One line: how many of which effect; or why nothing would happen."""
    why = root.refused()
    if why:
        names = ", ".join(dict.fromkeys(str(node.key) for node in why))
        return f"Refused because of {names}: nothing is deleted."
    counts = Counter(node.effect for node in root.walk())
    parts = [f"{counts['delete'] + counts['trash']} deleted"]
    parts += [f"{counts['trash']} of them to the trash"] if counts["trash"] else []
    parts += [f"{counts[effect]} {word}" for effect, word in _LIVING if counts[effect]]
    return ", ".join(parts) + "."


_LIVING: tuple[tuple[Effect, str], ...] = (("stop", "stopped"), ("detach", "detached"))


def parse_key(what: str, namespace: str | None, models: Mapping[str, type[Resource]]) -> Key:
    """``zone/zone-1``, ``vm/web``, ``vm/shop/web``: a kind by any of its names. CommandFailed."""
    word, *rest = what.split("/")
    kind = kind_named(word, models)
    if kind is None or not 1 <= len(rest) <= 2 or not all(rest):
        known = ", ".join(sorted(m.INFO.singular for m in models.values()))
        raise CommandFailed(f"{what!r} is no KIND/NAME such as vm/web; kinds are {known}")
    place = rest[0] if len(rest) == 2 else namespace or DEFAULT_NAMESPACE
    return Key(kind, place if models[kind].INFO.namespaced else "", rest[-1])


# -- recover


def recover(
    what: str | None,
    namespace: str | None,
    kubeconfig: Path | None,
    data_dir: Path,
    *,
    new_name: str | None,
    item_name: str | None,
) -> None:
    """Make the object again that takes its data from the trash; without ``what``, list the trash.
    Raises CommandFailed and ApiError."""
    kube = Kube(find_kubeconfig(kubeconfig, data_dir))
    items = [TrashItem.model_validate(obj) for obj in kube.list(TrashItem)]
    if what is None:
        _show(items)
        return
    key = parse_key(what, namespace, kinds())
    item = chosen(items, key, item_name)
    body = recovered(item, key, new_name or key.name)
    try:
        kube.request("POST", collection(kinds()[key.kind], key.namespace), body)
    except ApiError as error:
        if error.code == 409:
            raise CommandFailed(
                f"there is a {key.kind} {body['metadata']['name']} already; "
                "give the recovered one another name with --as"
            ) from None
        raise
    place = f"{key.namespace}/" if key.namespace else ""
    say(f"{key.kind} {place}{body['metadata']['name']} is being recovered from {item.name}")


def _show(items: Sequence[TrashItem]) -> None:
    if not items:
        say("The trash is empty.")
    for item in sorted(items, key=lambda i: i.spec.expires_at):
        subject, place = item.spec.subject, item.metadata.namespace
        where = "" if subject.kind == "Image" else f"{place}/"
        until = f"until {item.spec.expires_at:%Y-%m-%d %H:%M} UTC"
        say(f"{subject.kind}/{where}{subject.name}  {until}  {item.name}")


def chosen(items: Sequence[TrashItem], key: Key, name: str | None) -> TrashItem:
    """The item called ``name``, or the last one of ``key``. Raises CommandFailed."""
    found = [
        item
        for item in items
        if (item.metadata.namespace or "") == (key.namespace or HOME)
        and item.spec.subject.kind == key.kind
        and (item.name == name if name else item.spec.subject.name == key.name)
        and not item.deleting
    ]
    if not found:
        raise CommandFailed(
            f"{name or key} is not in the trash; `kumulus recover` lists what is there"
        )
    return max(found, key=lambda item: (str(item.metadata.creation_timestamp), item.name))


def recovered(item: TrashItem, key: Key, name: str) -> dict[str, Any]:
    """The manifest of the object that takes over what ``item`` has."""
    kept = manifest(item.spec.subject.manifest)
    meta = kept.get("metadata", {})
    annotations = {**meta.get("annotations", {}), RECOVER_FROM: item.name}
    metadata = {"name": name, "labels": meta.get("labels", {}), "annotations": annotations}
    if key.namespace:
        metadata["namespace"] = key.namespace
    return {
        "apiVersion": API_VERSION,
        "kind": key.kind,
        "metadata": metadata,
        "spec": kept["spec"],
    }
