"""The generated files: what is committed is what the models say, and stale ones are found."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from crds import generate, kinds
from crds.schema import definition

FILES = generate.outputs(kinds().values())


def test_what_is_committed_is_what_the_models_say() -> None:
    assert generate.stale(generate.ROOT, FILES) == []


def test_every_kind_has_its_manifest() -> None:
    names = {path.name for path in FILES if path.parent == generate.MANIFESTS}
    assert names == {f"kumulus.dev_{model.INFO.plural}.yaml" for model in kinds().values()}


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_the_yaml_says_what_the_definition_says(kind: str) -> None:
    model = kinds()[kind]
    text = generate.manifest(model)
    assert yaml.safe_load(text) == definition(model)
    assert not [line for line in text.splitlines() if "&id" in line or "*id" in line]


def test_stale_missing_and_left_over_files_are_found_and_mended(tmp_path: Path) -> None:
    manifest, other = Path("crds/manifests/a.yaml"), Path("docs/kinds.md")
    files = {manifest: "a", other: "b"}
    assert generate.write(tmp_path, files) == [manifest, other]
    assert generate.stale(tmp_path, files) == []
    (tmp_path / manifest).write_text("edited")
    left_over = Path("crds/manifests/old.yaml")
    (tmp_path / left_over).write_text("of a kind that is gone")
    assert generate.stale(tmp_path, files) == [manifest, left_over]
    generate.write(tmp_path, files)
    assert (tmp_path / manifest).read_text() == "a"
    assert not (tmp_path / left_over).exists()


def test_check_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "stale: crds/manifests/kumulus.dev_zones.yaml" in said
    assert "make generate" in said
    assert not (tmp_path / "crds").exists()
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_the_page_of_kinds_has_every_field() -> None:
    page = FILES[Path("docs/kinds.md")]
    row = "| `spec.zoneRef` | object | required | Zone by name. Deleting the Zone: cascade."
    assert f"{row} *Fixed*: a cluster stays in its zone. |" in page
    assert "| `spec.powerState` | `Running`, `Stopped`, `Paused` | `Running` |" in page
    assert "| `spec.dhcp.leaseSeconds` | integer 120 to 31536000 | `86400` |" in page
    assert "| `spec.memory` | quantity | required |" in page
    assert "| [VirtualMachine](#virtualmachine) | `vm`, `vms` | namespace |" in page
    for kind in kinds():
        assert f"\n## {kind}\n" in page
