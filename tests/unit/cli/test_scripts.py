"""The scripts know what the tests need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import guest, hypervisor

REPOSITORY = Path(__file__).parents[3]


def packages() -> set[str]:
    text = (REPOSITORY / "scripts" / "install-test-deps").read_text()
    (listed,) = re.findall(r"^packages=\((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    return {word for line in listed.splitlines() for word in line.split("#")[0].split()}


@pytest.mark.parametrize("needed", [guest.APT_PACKAGES, hypervisor.APT_PACKAGES])
def test_every_package_that_a_test_asks_for_is_installed(needed: tuple[str, ...]) -> None:
    assert set(needed) <= packages()


def test_nothing_that_starts_a_daemon_of_the_system() -> None:
    assert not packages() & {"libvirt-daemon-system", "mariadb-server"}


@pytest.mark.parametrize("script", ["venv", "install-test-deps", "tool", "test", "image"])
def test_shell_scripts_parse(script: str) -> None:
    path = REPOSITORY / "scripts" / script
    assert path.stat().st_mode & 0o111
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
