"""The image's steps, in a bare Debian that debootstrap makes: no container engine is needed.

It downloads some 200 MB of packages. What is made runs a whole cloud, as the image's user.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.embedded import REPOSITORY, ports

pytestmark = [pytest.mark.root, pytest.mark.slow]
USER = "65532"
SUITE = "bookworm"
CA = "host-ca.crt"
HANDED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "https_proxy")
PATH = "/opt/kumulus/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two bare systems: for the build and for the image."""
    if os.geteuid() != 0:
        pytest.skip("only root can make and enter another root file system")
    if shutil.which("debootstrap") is None:
        pytest.skip("no debootstrap; `make test` as root installs it")
    folder = tmp_path_factory.mktemp("image")
    build, image = folder / "build", folder / "image"
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", SUITE, str(build)],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    try:
        if done.returncode:
            pytest.skip(f"debootstrap cannot work here: {done.stdout[-300:]}{done.stderr[-300:]}")
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", build / "etc" / name)
        certificates = Path(os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"))
        if certificates.exists():
            shutil.copy(certificates, build / "etc" / CA)
        subprocess.run(["cp", "-a", str(build), str(image)], check=True, timeout=300)
        yield build, image
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def enter(root: Path, *command: str, user: str = "0", seconds: float = 900) -> str:
    """Run in the root, with namespaces of its own for mounts and processes; what it printed."""
    environment = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    if (root / "etc" / CA).exists():
        environment["PIP_CERT"] = f"/etc/{CA}"
    done = subprocess.run(
        [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc",
            "chroot", f"--userspec={user}:{user}", str(root), *command,
        ],
        capture_output=True, text=True, timeout=seconds, check=False,
        env={**environment, "PATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    return said


def test_the_image_runs_a_cloud_as_its_user(roots: tuple[Path, Path]) -> None:
    build, image = roots
    copy_context(build / "src")
    enter(build, "/src/scripts/image", "build", "/src")
    shutil.copy(REPOSITORY / "scripts" / "image", image / "tmp" / "image")
    enter(image, "/tmp/image", "runtime")
    shutil.copytree(build / "opt/kumulus", image / "opt/kumulus", symlinks=True)

    assert enter(image, "kumulus", "--version", user=USER).startswith("kumulus ")
    home = "/var/lib/kumulus"
    flags = [f"{flag}={port}" for flag, port in ports().items()]
    script = 'cd "$1"; shift; kumulus up "$@" && kumulus status && kumulus down'
    said = enter(image, "sh", "-c", script, "sh", home, "--hosts=1", *flags, user=USER)
    assert re.search(r"web-1 .*Running", said), said[-2000:]
    owners = {path.stat().st_uid for path in (image / home.lstrip("/")).rglob("*")}
    assert owners == {int(USER)}
    # Nothing that could install or compile anything is in the image.
    assert not list((image / "opt/kumulus/bin").glob("pip*"))
    assert not list((image / "usr/bin").glob("gcc*"))


def copy_context(target: Path) -> None:
    """What .dockerignore lets through."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for name in (line[1:] for line in lines if line.startswith("!")):
        source, there = REPOSITORY / name, target / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, there, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, there)
