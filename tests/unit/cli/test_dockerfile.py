"""The Dockerfile has no steps of its own: those of scripts/image, which a test runs for real."""

from __future__ import annotations

from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[3]


def instructions() -> list[tuple[str, str]]:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    found = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in found]


def test_every_step_is_the_scripts() -> None:
    steps = [rest for word, rest in instructions() if word == "RUN"]
    assert steps == ["/src/scripts/image build /src", "/tmp/image runtime && rm /tmp/image"]


def test_the_base_is_pinned_and_the_user_is_not_root() -> None:
    (base,) = [rest for word, rest in instructions() if word == "ARG"]
    name, _, tag = base.removeprefix("BASE=").partition(":")
    assert name == "debian" and tag.partition("-")[0].replace(".", "").isdigit()
    (user,) = [rest for word, rest in instructions() if word == "USER"]
    assert user == "65532:65532"
    assert f"ID={user.partition(':')[0]}" in (REPOSITORY / "scripts" / "image").read_text()
    pod = (REPOSITORY / "charts/kumulus/templates/deployment.yaml").read_text()
    assert f"runAsUser: {user.partition(':')[0]}" in pod


def test_the_chart_runs_the_images_version() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((REPOSITORY / "charts/kumulus/Chart.yaml").read_text())
    assert chart["appVersion"] == project["version"]
