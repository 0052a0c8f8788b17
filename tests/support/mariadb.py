"""A real MariaDB for tests: own data directory, own socket and port, ended by its process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pymysql
import pytest

from tests.support.ports import free_port

SERVER, INSTALL = "mariadbd", "mariadb-install-db"
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"))
_START_SECONDS = 60.0


@dataclass
class MariaDb:
    """A running server. ``stop`` and ``start`` make outages; the data stay."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                _program(SERVER), "--no-defaults", *_as_root(), "--skip-name-resolve",
                f"--datadir={self.directory / 'data'}", f"--socket={self.directory / 's'}",
                f"--port={self.port}", "--bind-address=127.0.0.1",
                f"--pid-file={self.directory / 'pid'}", f"--log-error={self.directory / 'log'}",
                "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=2",
                "--innodb-flush-method=nosync", "--skip-log-bin", "--performance-schema=0",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = self.directory / "log"
                self.stop()
                pytest.fail(f"mariadbd did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        if self.process is None:
            return
        (self.process.kill if kill else self.process.terminate)()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        self.process = None

    def database(self, name: str) -> str:
        """The ledger URL of a fresh, empty database."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
            cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return f"mariadb://root@127.0.0.1:{self.port}/{name}"

    def _connect(self) -> pymysql.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=2)

    def _answers(self) -> bool:
        with contextlib.suppress(pymysql.MySQLError):
            self._connect().close()
            return True
        return False


def missing() -> str | None:
    """Why no MariaDB can be started here, or None."""
    for name in (SERVER, INSTALL):
        if shutil.which(name, path=_PATH) is None:
            return f"{name} is not installed (apt install mariadb-server)"
    return None


@contextlib.contextmanager
def mariadb() -> Iterator[MariaDb]:
    """A fresh server for as long as the block runs. Its socket's path must be short: not in
    pytest's tmp_path."""
    with tempfile.TemporaryDirectory(prefix="kumulus-db-") as scratch:
        directory = Path(scratch)
        subprocess.run(
            [
                _program(INSTALL), "--no-defaults", *_as_root(), "--skip-test-db",
                f"--datadir={directory / 'data'}", "--auth-root-authentication-method=normal",
            ],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        server = MariaDb(directory, free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found is not None, missing()
    return found


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []
