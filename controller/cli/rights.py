"""``kumulus rights``: roles for controllers that the Helm chart does not bring up."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from controller.cli.output import CommandFailed, out
from controller.registry import installed
from controller.rights import FEATURES, Feature, Wire, account, declared, group, manifests


def show_rights(name: str, namespace: str, subject: str, features: Sequence[str]) -> None:
    """Print roles and bindings as YAML. Installed plugins' kinds are among them."""
    known: dict[str, Feature] = {feature: feature for feature in FEATURES}
    unknown = sorted(set(features) - set(known))
    if unknown:
        listed = "; ".join(f"{feature}: to {text}" for feature, text in FEATURES.items())
        raise CommandFailed(f"no feature {unknown[0]!r}; there are {listed}")
    found = manifests(
        declared(installed()),
        name=name,
        namespace=namespace,
        subject=_subject(subject),
        features=[known[feature] for feature in features],
    )
    out.print(yaml.safe_dump_all(found, sort_keys=False), markup=False, end="")


def _subject(text: str) -> Wire:
    """``group:NAME`` (which may have colons itself) or ``account:NAMESPACE/NAME``."""
    kind, _, name = text.partition(":")
    place, _, own = name.partition("/")
    if kind == "group" and name:
        return group(name)
    if kind == "account" and place and own:
        return account(own, place)
    raise CommandFailed(f"{text!r}: write --to group:NAME or --to account:NAMESPACE/NAME")
