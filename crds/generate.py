"""Writes what is generated from the models: ``python -m crds.generate [--check]``.

``crds/manifests/<group>_<plural>.yaml``, one CustomResourceDefinition each, and ``docs/kinds.md``.
With ``--check`` nothing is written: the exit code is 1 when a file is missing, stale or left over.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from crds import own_kinds
from crds.base import GROUP, Resource
from crds.docs import kinds_page
from crds.refs import verify
from crds.schema import definition

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = Path("crds/manifests")
HEADER = "# Generated from crds/v1alpha1 by `make generate`; edit the models, not this file.\n"


class _Dumper(yaml.SafeDumper):
    """Lists indented under their key, no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def manifest(model: type[Resource]) -> str:
    """The YAML of a kind's CustomResourceDefinition."""
    text: str = yaml.dump(
        definition(model), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )
    return HEADER + text


def outputs(models: Iterable[type[Resource]]) -> dict[Path, str]:
    """Every generated file: path below the project's root → text."""
    models = list(models)
    files = {MANIFESTS / f"{GROUP}_{model.INFO.plural}.yaml": manifest(model) for model in models}
    return {**files, Path("docs/kinds.md"): kinds_page(models)}


def stale(root: Path, files: Mapping[Path, str], folder: Path = MANIFESTS) -> list[Path]:
    """Files that are missing, differ, or stand in ``folder`` for no kind."""
    differing = [path for path, text in files.items() if _read(root / path) != text]
    present = {path.relative_to(root) for path in (root / folder).glob("*.yaml")}
    return sorted({*differing, *(present - files.keys())})


def write(root: Path, files: Mapping[Path, str], folder: Path = MANIFESTS) -> list[Path]:
    """Bring the files up to date; returns what changed."""
    changed = stale(root, files, folder)
    for path in changed:
        if path in files:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(files[path], encoding="utf-8")
        else:
            (root / path).unlink()
    return changed


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main(arguments: list[str] | None = None) -> int:
    check = asked_to_check("crds.generate", __doc__, arguments)
    verify(own_kinds())
    return bring(outputs(own_kinds().values()), MANIFESTS, check=check)


def asked_to_check(module: str, about: str | None, arguments: list[str] | None) -> bool:
    """Reads a generator's command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when stale")
    return bool(parser.parse_args(arguments).check)


def bring(files: Mapping[Path, str], folder: Path, *, check: bool) -> int:
    """Write the files, or only say which ones are stale; returns the exit code."""
    changed = stale(ROOT, files, folder) if check else write(ROOT, files, folder)
    for path in changed:
        sys.stdout.write(f"{'stale' if check else 'wrote'}: {path}\n")
    if check and changed:
        sys.stdout.write("run `make generate` and commit what it writes\n")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
