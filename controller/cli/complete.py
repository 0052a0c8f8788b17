"""What the shell offers after TAB: kinds, objects, and tags with their values.

What is declared is known here; what is in use is asked of the cluster, for a second at most. A
completion that cannot be had is left out: nobody wants an error message while typing.
"""

# ruff: noqa: PLC0415 imports inside keep `kumulus --help` quick
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

SECONDS = 1.0
Offer = tuple[str, str]
"""(what to type, what it means)."""


def kinds(incomplete: str) -> list[Offer]:
    """Names of kinds."""
    from crds import kinds as known

    offers = ((name, model.__doc__ or "") for name, model in known().items())
    return [offer for offer in offers if offer[0].lower().startswith(incomplete.lower())]


def targets(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """``vm/``, then ``vm/web-1``."""
    word, slash, _ = incomplete.partition("/")
    if not slash:
        from crds import kinds as known

        offers = [(f"{model.INFO.singular}/", model.__doc__ or "") for model in known().values()]
    else:
        offers = [(f"{word}/{name}", "") for name in _names(ctx, word)]
    return [offer for offer in offers if offer[0].startswith(incomplete)]


def tags(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """User tags in use; system tags by name, then their values one by one."""
    typed, cut = whole_word([str(word) for word in ctx.params.get("tags") or ()], incomplete)
    kind = _kind(str(ctx.params.get("target") or ctx.params.get("kind") or ""))
    offers = [*_user_tags(ctx), *system_tags(typed, kind, lambda other: _names(ctx, other))]
    return [(text[cut:], help_) for text, help_ in offers if text.startswith(typed)]


def whole_word(before: Sequence[str], incomplete: str) -> tuple[str, int]:
    """(the word as the user sees it, how much of it the shell takes for words of their own).

    bash breaks words at colons: of ``staticIp::la`` it hands us ``staticIp``, ``::``, ``la``, and
    it wants to know how the last one goes on.
    """
    parts = [*before, incomplete]
    start = len(parts) - 1
    while start > 0 and (set(parts[start]) == {":"} or set(parts[start - 1]) == {":"}):
        start -= 1
    word = "".join(parts[start:])
    broken = start < len(parts) - 1 or set(incomplete) == {":"}
    return word, word.rfind(":") + 1 if broken else 0


def system_tags(typed: str, kind: str | None, names: Any) -> Iterator[Offer]:
    """How ``typed`` may go on. ``names``: kind → names of its objects."""
    from crds import discovered
    from crds.tags import SEPARATOR

    *given, _ = typed.split(SEPARATOR)
    for tag in discovered().tags.values():
        if kind is not None and kind not in tag.kinds:
            continue
        if not given:
            yield f"{tag.name}{SEPARATOR if tag.values else ''}", tag.description
        elif given[0] == tag.name and len(given) <= len(tag.values):
            value, last = tag.values[len(given) - 1], len(given) == len(tag.values)
            for text in value.choices or (names(value.kind) if value.kind else ()):
                done = SEPARATOR.join([*given, text])
                yield done if last else f"{done}{SEPARATOR}", value.what


def _user_tags(ctx: typer.Context) -> Iterator[Offer]:
    colors: dict[str, str] = {}
    for wire in _objects(ctx):
        for tag in wire.get("spec", {}).get("tags") or ():
            colors[tag["name"]] = tag.get("color", "")
    yield from sorted(colors.items())


def _names(ctx: typer.Context, kind: str) -> list[str]:
    found = _kind(kind)
    return [wire["metadata"]["name"] for wire in _objects(ctx, found)] if found else []


def _objects(ctx: typer.Context, kind: str | None = None) -> Iterable[Mapping[str, Any]]:
    from controller.up import kube
    from crds import kinds as known

    models = [known()[kind]] if kind else list(known().values())
    directory = Path(ctx.params.get("data_dir") or ".kumulus").absolute()
    try:
        cluster = kube.Kube(
            kube.find_kubeconfig(ctx.params.get("kubeconfig"), directory), seconds=SECONDS
        )
        return kube.listing(cluster, models)
    except Exception:  # a shell waits for us: say nothing
        return []


def _kind(word: str) -> str | None:
    from crds import kind_named
    from crds import kinds as known

    return kind_named(word.partition("/")[0], known())
